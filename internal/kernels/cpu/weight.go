//go:build cgo

package cpu

// #include "kernels.h"
import "C"

import (
	"fmt"
	"slices"
	"unsafe"

	"lycoris/internal/fault"
	"lycoris/internal/kernels"
	"lycoris/internal/tensor"
)

// weight is a frozen weight in panels (gemm.h), in memory of its own.
type weight struct {
	c     C.lyc_weight
	shape []int
	dtype tensor.DType
	bytes int64
}

func (w *weight) Shape() []int        { return w.shape }
func (w *weight) DType() tensor.DType { return w.dtype }
func (w *weight) Bytes() int64        { return w.bytes }

var dtypes = map[tensor.DType]C.int32_t{tensor.F32: C.LYC_F32, tensor.F16: C.LYC_F16, tensor.BF16: C.LYC_BF16}

// Pack lays a frozen weight [O,I] or [O,I,kh,kw] of F32, F16 or BF16 out in panels, in the same precision.
func (b *Backend) Pack(src tensor.Tensor) (kernels.Weight, error) {
	dtype, ok := dtypes[src.DType]
	if !ok {
		return nil, fault.New(fault.Input, "", "a weight of element type %s can't be used; want F32, F16 or BF16", src.DType)
	}
	if n := len(src.Shape); n != 2 && n != 4 {
		return nil, fault.New(fault.Input, "", "a weight of shape %v can't be used; want [O I] or [O I kh kw]", src.Shape)
	}
	if elems := tensor.Elems(src.Shape); elems == 0 || len(src.Data) != elems*src.DType.Size() {
		return nil, fault.New(fault.Input, "", "a weight of shape %v has %d bytes", src.Shape, len(src.Data))
	}
	taps := tensor.Elems(src.Shape[2:])
	w := &weight{shape: slices.Clone(src.Shape), dtype: src.DType}
	w.c = C.lyc_weight{dtype: dtype, taps: C.int32_t(taps), out: C.int64_t(src.Shape[0]), in: C.int64_t(src.Shape[1])}
	w.bytes = int64(C.lyc_weight_bytes(b.c, w.c))
	w.c.data = C.lyc_map(C.size_t(w.bytes))
	if w.c.data == nil {
		return nil, outOfMemory(w.bytes)
	}
	b.weights[w] = struct{}{}
	C.lyc_pack(b.c, w.c, unsafe.Pointer(unsafe.SliceData(src.Data)))
	return w, nil
}

// Unpack returns the values of w, row-major.
func (b *Backend) Unpack(w kernels.Weight) []float32 {
	v := mustWeight("Unpack", w)
	dst := make([]float32, tensor.Elems(v.shape))
	C.lyc_unpack(b.c, ptr(dst), v.c, nil)
	return dst
}

// Expand writes the values of w, row-major, + add to y; add may be y.
func (b *Backend) Expand(y []float32, w kernels.Weight, add []float32) {
	v := mustWeight("Expand", w)
	mustLen("Expand", "y", y, tensor.Elems(v.shape))
	mustLenOrNil("Expand", "add", add, len(y))
	C.lyc_unpack(b.c, ptr(y), v.c, ptr(add))
}

// Release gives the memory of w back.
func (b *Backend) Release(w kernels.Weight) {
	v := mustWeight("Release", w)
	delete(b.weights, v)
	C.lyc_unmap(v.c.data, C.size_t(v.bytes))
	v.c.data = nil
}

// mustWeight returns w as this package's type, panics if it is another's or was released.
func mustWeight(op string, w kernels.Weight) *weight {
	v, ok := w.(*weight)
	if !ok || v.c.data == nil {
		panic(fmt.Sprintf("cpu: %s: weight of type %T was not packed here, or was released", op, w))
	}
	return v
}
