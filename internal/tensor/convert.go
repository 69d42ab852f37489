package tensor

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Float32 returns the values as float32, row-major, in memory of their own. Wider types are rounded to nearest.
func (t Tensor) Float32() []float32 {
	out := make([]float32, Elems(t.Shape))
	d, le := t.Data, binary.LittleEndian
	switch t.DType {
	case F64:
		for i := range out {
			out[i] = float32(math.Float64frombits(le.Uint64(d[8*i:])))
		}
	case F32:
		for i := range out {
			out[i] = math.Float32frombits(le.Uint32(d[4*i:]))
		}
	case F16:
		for i := range out {
			out[i] = F16ToFloat32(le.Uint16(d[2*i:]))
		}
	case BF16:
		for i := range out {
			out[i] = BF16ToFloat32(le.Uint16(d[2*i:]))
		}
	case F8E4M3, F8E5M2:
		values := F8Values(t.DType)
		for i := range out {
			out[i] = values[d[i]]
		}
	default:
		for i := range out {
			out[i] = float32(t.int(i))
		}
	}
	return out
}

// Int64 returns the values of an integer or bool tensor.
func (t Tensor) Int64() []int64 {
	if t.DType.IsFloat() || t.DType.IsF8() {
		panic(fmt.Sprintf("tensor: Int64 of a %s tensor", t.DType))
	}
	out := make([]int64, Elems(t.Shape))
	for i := range out {
		out[i] = t.int(i)
	}
	return out
}

func (t Tensor) int(i int) int64 {
	d, le := t.Data, binary.LittleEndian
	switch t.DType {
	case I64, U64:
		return int64(le.Uint64(d[8*i:]))
	case I32:
		return int64(int32(le.Uint32(d[4*i:])))
	case U32:
		return int64(le.Uint32(d[4*i:]))
	case I16:
		return int64(int16(le.Uint16(d[2*i:])))
	case U16:
		return int64(le.Uint16(d[2*i:]))
	case I8:
		return int64(int8(d[i]))
	case U8, Bool:
		return int64(d[i])
	}
	panic(fmt.Sprintf("tensor: integers of a %s tensor", t.DType))
}

// FromFloat32 makes a tensor of a floating-point type from v, rounding to nearest even. The values are copied.
func FromFloat32(d DType, shape []int, v []float32) Tensor {
	if Elems(shape) != len(v) {
		panic(fmt.Sprintf("tensor: FromFloat32: shape %v, len(v) = %d", shape, len(v)))
	}
	t := Tensor{DType: d, Shape: slices.Clone(shape), Data: make([]byte, len(v)*d.Size())}
	le := binary.LittleEndian
	switch d {
	case F64:
		for i, x := range v {
			le.PutUint64(t.Data[8*i:], math.Float64bits(float64(x)))
		}
	case F32:
		for i, x := range v {
			le.PutUint32(t.Data[4*i:], math.Float32bits(x))
		}
	case F16:
		for i, x := range v {
			le.PutUint16(t.Data[2*i:], Float32ToF16(x))
		}
	case BF16:
		for i, x := range v {
			le.PutUint16(t.Data[2*i:], Float32ToBF16(x))
		}
	default:
		panic(fmt.Sprintf("tensor: FromFloat32: %s is not a floating-point type", d))
	}
	return t
}

// FromInt64 makes an I64 tensor.
func FromInt64(shape []int, v []int64) Tensor {
	if Elems(shape) != len(v) {
		panic(fmt.Sprintf("tensor: FromInt64: shape %v, len(v) = %d", shape, len(v)))
	}
	t := Tensor{DType: I64, Shape: slices.Clone(shape), Data: make([]byte, 8*len(v))}
	for i, x := range v {
		binary.LittleEndian.PutUint64(t.Data[8*i:], uint64(x))
	}
	return t
}

// NonFinite counts the NaN and infinite values of a floating-point tensor and gives the index of the first, -1 if there is none.
func (t Tensor) NonFinite() (count, first int) {
	first = -1
	bad := func(i int, yes bool) {
		if yes {
			if count++; count == 1 {
				first = i
			}
		}
	}
	d, le := t.Data, binary.LittleEndian
	for i := range len(d) / max(t.DType.Size(), 1) {
		switch t.DType {
		case F64:
			bad(i, le.Uint64(d[8*i:])&(0x7ff<<52) == 0x7ff<<52)
		case F32:
			bad(i, le.Uint32(d[4*i:])&0x7f800000 == 0x7f800000)
		case F16:
			bad(i, le.Uint16(d[2*i:])&0x7c00 == 0x7c00)
		case BF16:
			bad(i, le.Uint16(d[2*i:])&0x7f80 == 0x7f80)
		default:
			return 0, -1
		}
	}
	return count, first
}

// FormatShape64 is FormatShape for sizes as they stand in a file.
func FormatShape64(shape []int64) string { return fmt.Sprint(shape) }

// group writes n with a comma between thousands.
func group(n int64) string {
	s := fmt.Sprint(n)
	var parts []string
	for len(s) > 3 {
		parts = append(parts, s[len(s)-3:])
		s = s[:len(s)-3]
	}
	parts = append(parts, s)
	slices.Reverse(parts)
	return strings.Join(parts, ",")
}
