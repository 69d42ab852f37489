package tensor

import (
	"math"
	"sync"
)

// F8Values returns the values of all codes of an eight-bit floating-point type (Micikevicius and others, FP8 formats for deep learning, 2022): E4M3 has no infinities, and
// NaN at 0x7f and 0xff alone; E5M2 is as binary16 with fewer digits.
func F8Values(d DType) *[256]float32 {
	if d == F8E5M2 {
		return e5m2()
	}
	return e4m3()
}

var e5m2 = sync.OnceValue(func() *[256]float32 {
	var t [256]float32
	for i := range t {
		t[i] = F16ToFloat32(uint16(i) << 8)
	}
	return &t
})

var e4m3 = sync.OnceValue(func() *[256]float32 {
	var t [256]float32
	for i := range t {
		exponent, digits := i>>3&15, i&7
		v := math.Ldexp(float64(digits), -9)
		if exponent > 0 {
			v = math.Ldexp(float64(8+digits), exponent-10)
		}
		if i&0x7f == 0x7f {
			v = math.NaN()
		}
		t[i] = float32(math.Copysign(v, float64(1-2*(i>>7))))
	}
	return &t
})
