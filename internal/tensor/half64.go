package tensor

import "math"

// Narrowing from float64 in one rounding, to nearest, ties to even. By way of float32 it would be two: 1 + 2^-11 + 2^-40 becomes 1 as F16, where 1 + 2^-10 is
// nearest.

// Float64ToF16 returns the IEEE binary16 code nearest to f.
func Float64ToF16(f float64) uint16 {
	bits := math.Float64bits(f)
	sign := uint16(bits>>48) & 0x8000
	switch exp := bits >> 52 & 0x7ff; {
	case exp >= 1023-14 && exp <= 1023+15: // normal; a carry may move the exponent up, to infinity too: that is the right code
		mag := bits & (1<<63 - 1)
		mag += 1<<41 - 1 + mag>>42&1
		return sign | uint16(mag>>42-(1023-15)<<10)
	case exp > 1023+15:
		return Float32ToF16(float32(f)) // too large for rounding to matter, infinite or NaN
	}
	return sign | uint16(math.RoundToEven(math.Abs(f)*0x1p24)) // in units of the least subnormal
}

// Float64ToBF16 returns the bfloat16 code nearest to f.
func Float64ToBF16(f float64) uint16 {
	bits := math.Float64bits(f)
	sign := uint16(bits>>48) & 0x8000
	switch exp := bits >> 52 & 0x7ff; {
	case exp >= 1023-126 && exp <= 1023+127:
		mag := bits & (1<<63 - 1)
		mag += 1<<44 - 1 + mag>>45&1
		return sign | uint16(mag>>45-(1023-127)<<7)
	case exp > 1023+127:
		return Float32ToBF16(float32(f))
	}
	return sign | uint16(math.RoundToEven(math.Abs(f)*0x1p133))
}
