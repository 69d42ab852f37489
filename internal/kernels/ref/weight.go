package ref

import (
	"encoding/binary"
	"math"
	"slices"

	"lycoris/internal/fault"
	"lycoris/internal/kernels"
	"lycoris/internal/tensor"
)

// weight keeps a frozen weight as float32 values, which hold F16 and BF16 exactly.
type weight struct {
	shape  []int // [O,I] or [O,I,kh,kw]
	dtype  tensor.DType
	values []float32 // row-major
}

func (w *weight) Shape() []int        { return w.shape }
func (w *weight) DType() tensor.DType { return w.dtype }
func (w *weight) Bytes() int64        { return 4 * int64(len(w.values)) }

// Pack converts src to float32 values.
func (Backend) Pack(src tensor.Tensor) (kernels.Weight, error) {
	if len(src.Shape) != 2 && len(src.Shape) != 4 {
		return nil, fault.BadInput("", "weight has shape %s, want [O I] or [O I kh kw]", tensor.FormatShape(src.Shape))
	}
	if src.DType != tensor.F32 && src.DType != tensor.F16 && src.DType != tensor.BF16 {
		return nil, fault.BadInput("", "weight has element type %s, want F32, F16 or BF16", src.DType)
	}
	n := tensor.Elems(src.Shape)
	check("Pack", "src.Data", len(src.Data), n*src.DType.Size())
	w := &weight{shape: slices.Clone(src.Shape), dtype: src.DType, values: make([]float32, n)}
	for i := range w.values {
		switch src.DType {
		case tensor.F32:
			w.values[i] = math.Float32frombits(binary.LittleEndian.Uint32(src.Data[4*i:]))
		case tensor.F16:
			w.values[i] = tensor.F16ToFloat32(binary.LittleEndian.Uint16(src.Data[2*i:]))
		case tensor.BF16:
			w.values[i] = tensor.BF16ToFloat32(binary.LittleEndian.Uint16(src.Data[2*i:]))
		}
	}
	return w, nil
}

// Unpack returns a copy of the values.
func (Backend) Unpack(w kernels.Weight) []float32 { return slices.Clone(w.(*weight).values) }

// Expand: y = the values of w + add.
func (Backend) Expand(y []float32, w kernels.Weight, add []float32) {
	v := w.(*weight)
	check("Expand", "y", len(y), len(v.values))
	checkOptional("Expand", "add", add, len(y))
	for i, x := range v.values {
		y[i] = x + float32(at(add, i))
	}
}

// Release drops the values, so that a use afterwards panics.
func (Backend) Release(w kernels.Weight) { w.(*weight).values = nil }
