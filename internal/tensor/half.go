package tensor

import "math"

// Conversions between float32 and the two 16-bit float types. Widening is exact. Narrowing rounds to nearest, ties to even (IEEE 754-2019,
// 4.3.1), keeps signed zeros, subnormals and infinities, overflows to infinity, and keeps a NaN a NaN: its top payload bits, made quiet.

// F16ToFloat32 returns the value of the IEEE binary16 code h.
func F16ToFloat32(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	exp := uint32(h>>10) & 0x1f
	frac := uint32(h & 0x3ff)
	switch exp {
	case 0: // zero and subnormals, frac·2^-24, which float32 holds exactly
		return math.Float32frombits(math.Float32bits(float32(frac)*0x1p-24) | sign)
	case 0x1f: // infinity and NaN
		return math.Float32frombits(sign | 0x7f800000 | frac<<13)
	}
	return math.Float32frombits(sign | (exp+127-15)<<23 | frac<<13)
}

// Float32ToF16 returns the IEEE binary16 code nearest to f.
func Float32ToF16(f float32) uint16 {
	bits := math.Float32bits(f)
	sign := uint16(bits>>16) & 0x8000
	mag := bits & 0x7fffffff
	switch {
	case mag > 0x7f800000: // NaN
		return sign | 0x7e00 | uint16(mag>>13)&0x3ff
	case mag >= 0x477ff000: // 65520, halfway between the largest finite value and 2^16, and everything above it
		return sign | 0x7c00
	case mag >= 0x38800000: // 2^-14 and above: normal
		mag += 0xfff + mag>>13&1 // the carry may move the exponent up: that is the right code
		return sign | uint16((mag-(127-15)<<23)>>13)
	case mag <= 0x33000000: // 2^-25, halfway between zero and the least subnormal, and everything below it
		return sign
	}
	// Subnormal: the value is full·2^(exp-150), and the code counts units of 2^-24.
	full := mag&0x7fffff | 0x800000
	shift := 126 - mag>>23 // 14 to 24
	half := uint32(1) << (shift - 1)
	return sign | uint16((full+half-1+full>>shift&1)>>shift)
}

// BF16ToFloat32 returns the value of the bfloat16 code h: the upper half of a float32.
func BF16ToFloat32(h uint16) float32 { return math.Float32frombits(uint32(h) << 16) }

// Float32ToBF16 returns the bfloat16 code nearest to f.
func Float32ToBF16(f float32) uint16 {
	bits := math.Float32bits(f)
	if bits&0x7fffffff > 0x7f800000 { // NaN
		return uint16(bits>>16) | 0x40
	}
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}
