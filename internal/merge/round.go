package merge

import (
	"encoding/binary"
	"math"
	"sync"

	"lycoris/internal/tensor"
)

// halfValues are the values of all F16 codes: looking up is faster than taking codes apart.
var halfValues = sync.OnceValue(func() *[1 << 16]float32 {
	var t [1 << 16]float32
	for i := range t {
		t[i] = tensor.F16ToFloat32(uint16(i))
	}
	return &t
})

// decode writes the values of floating-point bytes to dst.
func decode(dst []float64, d tensor.DType, src []byte) {
	le := binary.LittleEndian
	switch d {
	case tensor.F16:
		values := halfValues()
		src = src[:2*len(dst)]
		for i := range dst {
			dst[i] = float64(values[le.Uint16(src[2*i:])])
		}
	case tensor.BF16:
		for i := range dst {
			dst[i] = float64(tensor.BF16ToFloat32(le.Uint16(src[2*i:])))
		}
	case tensor.F32:
		for i := range dst {
			dst[i] = float64(math.Float32frombits(le.Uint32(src[4*i:])))
		}
	case tensor.F64:
		for i := range dst {
			dst[i] = math.Float64frombits(le.Uint64(src[8*i:]))
		}
	case tensor.F8E4M3, tensor.F8E5M2:
		values := tensor.F8Values(d)
		for i := range dst {
			dst[i] = float64(values[src[i]])
		}
	default:
		panic("merge: decode of " + d.String())
	}
}

// eachValue calls do with each value of floating-point bytes.
func eachValue(d tensor.DType, src []byte, do func(i int, v float64)) {
	var block [256]float64
	size := d.Size()
	for from := 0; from*size < len(src); from += len(block) {
		n := min(len(block), len(src)/size-from)
		decode(block[:n], d, src[from*size:])
		for i, v := range block[:n] {
			do(from+i, v)
		}
	}
}

// rounder writes float64 values in a file's element type, rounding once to nearest even. Values that may be off by a little are rounded as the exact ones would be: where a
// tie is within that distance the exact value is asked for.
type rounder struct {
	dtype tensor.DType
	bound float64
	// tol is by exponent: the distance to a tie, in units of the last bit of a float64, within which a value is decided by its exact one; all of them outside the
	// normal range.
	tol [2048]uint64
}

func newRounder(d tensor.DType) *rounder {
	r := &rounder{dtype: d}
	for i := range r.tol {
		r.tol[i] = math.MaxUint64
	}
	r.setBound(0)
	return r
}

// normal returns the biased exponents of values that are normal and far from the type's end, and the bits of a float64 mantissa that it lacks.
func (r *rounder) normal() (from, to, lacks int) {
	if r.dtype == tensor.F16 {
		return 1023 - 14, 1023 + 14, 42
	}
	return 1023 - 126, 1023 + 126, 45
}

func (r *rounder) setBound(bound float64) {
	if r.dtype != tensor.F16 && r.dtype != tensor.BF16 {
		return
	}
	r.bound = bound
	from, to, lacks := r.normal()
	limit := float64(uint64(1) << lacks)
	at := math.Ldexp(bound, 52-(from-1023))
	for e := from; e <= to; e++ {
		r.tol[e] = uint64(min(at, limit)) + 1
		at /= 2
	}
}

// round writes row acc to dst. exact gives the exact value of an element, nil where acc is exact. It returns the first element that is not finite, or is too large for
// the type; -1 if there is none.
func (r *rounder) round(dst []byte, acc []float64, bound float64, exact func(j int) float64) int {
	le := binary.LittleEndian
	switch r.dtype {
	case tensor.F16, tensor.BF16:
		if bound != r.bound {
			r.setBound(bound)
		}
		return r.round16(dst, acc, exact)
	case tensor.F32:
		for j, v := range acc {
			x := float32(v)
			if x-x != 0 {
				return j
			}
			le.PutUint32(dst[4*j:], math.Float32bits(x))
		}
	case tensor.F64:
		for j, v := range acc {
			if v-v != 0 {
				return j
			}
			le.PutUint64(dst[8*j:], math.Float64bits(v))
		}
	default:
		panic("merge: rounding to " + r.dtype.String())
	}
	return -1
}

// largest returns the largest finite value of a type, and the size from which values round to none.
func largest(d tensor.DType) (most, beyond float64) {
	switch d {
	case tensor.F16:
		return 65504, 65520
	case tensor.BF16:
		return 0x1.fep127, 0x1.ffp127
	case tensor.F32:
		return math.MaxFloat32, 0x1.ffffffp127
	}
	return math.MaxFloat64, math.Inf(1)
}

func (r *rounder) round16(dst []byte, acc []float64, exact func(j int) float64) int {
	_, _, lacks := r.normal()
	narrow, top, bias := tensor.Float64ToF16, uint16(0x7c00), uint64(1023-15)<<10
	if r.dtype == tensor.BF16 {
		narrow, top, bias = tensor.Float64ToBF16, 0x7f80, uint64(1023-127)<<7
	}
	shift := uint(lacks) & 63
	mask, half := uint64(1)<<shift-1, int64(1)<<(shift-1)
	dst = dst[:2*len(acc)]
	for j, v := range acc {
		bits := math.Float64bits(v)
		d := int64(bits&mask) - half
		if d < 0 {
			d = -d
		}
		if uint64(d) <= r.tol[bits>>52&0x7ff] {
			if exact != nil && v-v == 0 {
				v = exact(j)
			}
			code := narrow(v)
			if code&top == top {
				return j
			}
			dst[2*j], dst[2*j+1] = byte(code), byte(code>>8)
			continue
		}
		mag := bits & (1<<63 - 1)
		mag = (mag+uint64(half))>>shift - bias // never a tie
		code := uint16(bits>>48)&0x8000 | uint16(mag)
		dst[2*j], dst[2*j+1] = byte(code), byte(code>>8)
	}
	return -1
}

// infinite reports whether bytes of a floating-point type hold a NaN or an infinity: an exponent of all ones carries into the sign when one is added to it.
func infinite(d tensor.DType, p []byte) bool {
	var exponent, one, carry uint64
	switch d {
	case tensor.F16:
		exponent, one, carry = 0x7c007c007c007c00, 0x0400040004000400, 0x8000800080008000
	case tensor.BF16:
		exponent, one, carry = 0x7f807f807f807f80, 0x0080008000800080, 0x8000800080008000
	case tensor.F32:
		exponent, one, carry = 0x7f8000007f800000, 0x0080000000800000, 0x8000000080000000
	case tensor.F64:
		exponent, one, carry = 0x7ff<<52, 1<<52, 1<<63
	case tensor.F8E4M3, tensor.F8E5M2:
		for _, code := range p {
			if v := tensor.F8Values(d)[code]; v-v != 0 {
				return true
			}
		}
		return false
	default:
		return false
	}
	found := uint64(0)
	for ; len(p) >= 8; p = p[8:] {
		found |= (binary.LittleEndian.Uint64(p) & exponent) + one
	}
	if len(p) > 0 {
		var rest [8]byte
		copy(rest[:], p)
		found |= (binary.LittleEndian.Uint64(rest[:]) & exponent) + one
	}
	return found&carry != 0
}
