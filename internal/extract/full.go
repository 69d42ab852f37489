package extract

import (
	"unsafe"

	"lycoris/internal/tensor"
)

type named = tensor.Named

// bytesOf is a [m,n] as a tensor, without a copy. Every machine that the kernels run on is little-endian, as files are.
func bytesOf(a []float32, m, n int) tensor.Tensor {
	return tensor.Tensor{DType: tensor.F32, Shape: []int{m, n}, Data: unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(a))), 4*len(a))}
}

// full stores the change itself.
func (w *worker) full(l *layer) (*fit, error) {
	diff, err := w.stored(l, "diff", l.Shape, l.delta)
	if err != nil {
		return nil, err
	}
	f := &fit{tensors: []named{diff}, rank: 0}
	for i, v := range diff.Float32() {
		l.delta[i] -= v
	}
	f.left, f.worst = rest(l.delta)
	return f, nil
}
