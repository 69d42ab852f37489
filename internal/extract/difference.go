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
	equal  bool      // every element
	noise  bool      // no more than the rounding of the two files
	change []float32 // tuned − base; nil where it wasn't asked for, or where all is equal
	base   []float32 // nil likewise
	total  float64   // ‖tuned − base‖², not finite where a value isn't
	frozen float64   // ‖base‖², 0 where all is equal
}

// want says what of a difference is kept.
type want struct {
	change, base bool
	keepNoise    bool
}

// chunk is how many elements are read and widened at a time: they stay in the second-level cache.
const chunk = 1 << 14

// differ is a worker's memory for blocks of two tensors.
type differ struct {
	squares func([]float32) float64 // Σ x², in float64
	raw     [2][]byte
	narrow  [2][chunk]float32
	wide    [2][chunk]float64
	delta   [chunk]float32
}

// of compares two tensors of as many elements, reading each once. Δ is the exact difference, rounded once to float32; of F64 the difference in float64 is.
// grown gives the memory for what is kept.
func (d *differ) of(base, tuned values, w want, grown func(n int) []float32) (difference, error) {
	n := tensor.Elems(base.shape)
	same, err := d.equal(base, tuned, n)
	if same || err != nil {
		return difference{equal: same}, err
	}
	var r difference
	if w.change {
		r.change = grown(n)
	}
	if w.base {
		r.base = make([]float32, n)
	}
	var bits [2]uint32        // of the values as float32, or-ed
	var exponents [2][256]int // how many values have each, by side
	// Where both files are BF16, or once neither side can have been, the precisions are known to be equal.
	unequal := func() bool {
		return !w.keepNoise && (base.dtype != tuned.dtype || base.dtype != tensor.BF16 && (bits[0]<<16 == 0 || bits[1]<<16 == 0))
	}
	doubles := base.dtype == tensor.F64 || tuned.dtype == tensor.F64
	for at := 0; at < n; at += chunk {
		k := min(chunk, n-at)
		if err := d.load(base, tuned, at, k); err != nil {
			return r, err
		}
		delta, b := d.delta[:k], d.narrow[0][:k]
		if r.change != nil {
			delta = r.change[at : at+k]
		}
		bits[0] |= widen(d.narrow[0][:k], d.raw[0], base.dtype)
		bits[1] |= widen(d.narrow[1][:k], d.raw[1], tuned.dtype)
		if doubles {
			widen(d.wide[0][:k], d.raw[0], base.dtype)
			widen(d.wide[1][:k], d.raw[1], tuned.dtype)
			for i := range delta {
				delta[i] = float32(d.wide[1][i] - d.wide[0][i])
			}
		} else {
			t := d.narrow[1][:k]
			for i := range delta {
				delta[i] = t[i] - b[i]
			}
		}
		r.total += d.squares(delta)
		r.frozen += d.squares(b)
		if r.base != nil {
			copy(r.base[at:], b)
		}
		if unequal() {
			count(&exponents[0], b)
			count(&exponents[1], d.narrow[1][:k])
		}
	}
	r.equal = r.total == 0
	eff := [2]tensor.DType{effective(base.dtype, bits[0]), effective(tuned.dtype, bits[1])}
	if !w.keepNoise && !r.equal && eff[0] != eff[1] {
		r.noise = r.total <= 1.1*1.1*(rounding(eff[0], &exponents[0])+rounding(eff[1], &exponents[1]))
	}
	return r, nil
}

// equal reports whether two tensors of one type have the same bytes.
func (d *differ) equal(base, tuned values, n int) (bool, error) {
	if base.dtype != tuned.dtype {
		return false, nil
	}
	for at := 0; at < n; at += chunk {
		if err := d.load(base, tuned, at, min(chunk, n-at)); err != nil {
			return false, err
		}
		if !bytes.Equal(d.raw[0], d.raw[1]) {
			return false, nil
		}
	}
	return true, nil
}

// load reads k elements of both, from element at on.
func (d *differ) load(base, tuned values, at, k int) error {
	for side, v := range []values{base, tuned} {
		size := k * v.dtype.Size()
		if cap(d.raw[side]) < size {
			d.raw[side] = make([]byte, chunk*8)
		}
		d.raw[side] = d.raw[side][:size]
		if err := v.read(d.raw[side], at); err != nil {
			return err
		}
	}
	return nil
}

// effective returns the element type whose precision values of type d have: BF16 where the lower halves of all of them, as float32, are zero and the bit above is used.
// (Ones and zeros don't use it: they are of any precision.)
func effective(d tensor.DType, bits uint32) tensor.DType {
	if bits<<16 == 0 && bits&0x10000 != 0 && d != tensor.F64 {
		return tensor.BF16
	}
	return d
}

// count adds the values' exponents, as binary32 has them, to those counted.
func count(exponents *[256]int, values []float32) {
	for _, x := range values {
		exponents[math.Float32bits(x)>>23&0xff]++
	}
}

// rounding returns the expected square of the norm of what was lost when values with the exponents were rounded to type d: a twelfth of the squared distance of
// neighbours for each. Float32 counts as exact.
func rounding(d tensor.DType, exponents *[256]int) float64 {
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
			step := math.Ldexp(1, max(e+1-127, least)-bits)
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

// widen writes the values of raw, of type d, to dst and returns their bits as float32, or-ed.
func widen[T float32 | float64](dst []T, raw []byte, d tensor.DType) (all uint32) {
	le := binary.LittleEndian
	switch d {
	case tensor.F16:
		table := halves()
		raw := raw[:2*len(dst)]
		for i := range dst {
			v := table[le.Uint16(raw[2*i:])]
			all |= math.Float32bits(v)
			dst[i] = T(v)
		}
	case tensor.BF16:
		for i := range dst {
			h := le.Uint16(raw[2*i:])
			all |= uint32(h) << 16
			dst[i] = T(tensor.BF16ToFloat32(h))
		}
	case tensor.F32:
		for i := range dst {
			bits := le.Uint32(raw[4*i:])
			all |= bits
			dst[i] = T(math.Float32frombits(bits))
		}
	case tensor.F64:
		all = 1
		for i := range dst {
			dst[i] = T(math.Float64frombits(le.Uint64(raw[8*i:])))
		}
	}
	return all
}
