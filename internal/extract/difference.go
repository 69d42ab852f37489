package extract

import (
	"bytes"
	"encoding/binary"
	"math"
	"sync"

	"lycoris/internal/tensor"
)

// difference is a tensor's change.
type difference struct {
	equal  bool      // bit by bit, or every element
	noise  bool      // no more than the rounding of the two files
	change []float32 // tuned − base; nil where it wasn't asked for
	base   []float32 // nil where it wasn't asked for
	total  float64   // ‖tuned − base‖², not finite where a value isn't
	frozen float64   // ‖base‖²
}

// want says what of a difference is kept.
type want struct {
	change, base bool
	keepNoise    bool
}

// chunk is how many elements are widened at a time.
const chunk = 1 << 12

// differ compares two tensors of as many elements. Δ is rounded once, from the exact difference, to float32.
func differ(base, tuned tensor.Tensor, w want) difference {
	if base.DType == tuned.DType && bytes.Equal(base.Data, tuned.Data) {
		return difference{equal: true}
	}
	n := tensor.Elems(base.Shape)
	var d difference
	if w.change {
		d.change = make([]float32, n)
	}
	if w.base {
		d.base = make([]float32, n)
	}
	var bits [2]uint32         // of the values as float32, or-ed
	var exponents [2][2048]int // how many values have each, by side
	// Where both files are BF16, or once neither side can have been, the precisions are known to be equal.
	unequal := func() bool {
		return !w.keepNoise && (base.DType != tuned.DType || base.DType != tensor.BF16 && (bits[0]<<16 == 0 || bits[1]<<16 == 0))
	}
	var b, t [chunk]float64
	for at := 0; at < n; at += chunk {
		k := min(chunk, n-at)
		bits[0] |= widen(b[:k], base, at)
		bits[1] |= widen(t[:k], tuned, at)
		for i, x := range b[:k] {
			delta := t[i] - x
			d.total += delta * delta
			d.frozen += x * x
			if w.change {
				d.change[at+i] = float32(delta)
			}
			if w.base {
				d.base[at+i] = float32(x)
			}
		}
		if unequal() {
			count(&exponents[0], b[:k])
			count(&exponents[1], t[:k])
		}
	}
	d.equal = d.total == 0
	eff := [2]tensor.DType{effective(base.DType, bits[0]), effective(tuned.DType, bits[1])}
	if !w.keepNoise && !d.equal && eff[0] != eff[1] {
		d.noise = d.total <= 1.1*1.1*(rounding(eff[0], &exponents[0])+rounding(eff[1], &exponents[1]))
	}
	return d
}

// effective returns the element type whose precision values of type d have: BF16 where the lower halves of all of them, as float32, are zero and the bit above is used.
// (Ones and zeros don't use it: they are of any precision.)
func effective(d tensor.DType, bits uint32) tensor.DType {
	if bits<<16 == 0 && bits&0x10000 != 0 && d != tensor.F64 {
		return tensor.BF16
	}
	return d
}

// count adds the values' exponents, as binary64 has them, to those counted.
func count(exponents *[2048]int, values []float64) {
	for _, x := range values {
		exponents[math.Float64bits(x)>>52&0x7ff]++
	}
}

// rounding returns the expected square of the norm of what was lost when values with the exponents were rounded to type d: a twelfth of the squared distance of
// neighbours for each. Float32 counts as exact.
func rounding(d tensor.DType, exponents *[2048]int) float64 {
	bits, least := 0, 0 // of the fraction; exponent of the smallest normal number
	switch d {
	case tensor.F16:
		bits, least = 10, -14
	case tensor.BF16:
		bits, least = 7, -126
	default:
		return 0
	}
	sum := 0.0
	for e, n := range exponents[1:] { // 0: zeros, which lost next to nothing
		if n > 0 {
			step := math.Ldexp(1, max(e+1-1023, least)-bits)
			sum += float64(n) * step * step / 12
		}
	}
	return sum
}

// halves widens binary16: a table is several times faster than the arithmetic.
var halves = sync.OnceValue(func() *[1 << 16]float32 {
	var t [1 << 16]float32
	for i := range t {
		t[i] = tensor.F16ToFloat32(uint16(i))
	}
	return &t
})

// widen writes elements at, at+1, … of t to dst and returns their bits as float32, or-ed.
func widen(dst []float64, t tensor.Tensor, at int) (all uint32) {
	le := binary.LittleEndian
	switch data := t.Data[at*t.DType.Size():]; t.DType {
	case tensor.F16:
		table := halves()
		for i := range dst {
			v := table[le.Uint16(data[2*i:])]
			all |= math.Float32bits(v)
			dst[i] = float64(v)
		}
	case tensor.BF16:
		for i := range dst {
			h := le.Uint16(data[2*i:])
			all |= uint32(h) << 16
			dst[i] = float64(tensor.BF16ToFloat32(h))
		}
	case tensor.F32:
		for i := range dst {
			bits := le.Uint32(data[4*i:])
			all |= bits
			dst[i] = float64(math.Float32frombits(bits))
		}
	case tensor.F64:
		all = 1
		for i := range dst {
			dst[i] = math.Float64frombits(le.Uint64(data[8*i:]))
		}
	}
	return all
}
