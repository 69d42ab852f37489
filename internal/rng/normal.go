package rng

import "math"

// The functions of package math differ between machines in the last bit: some are in assembly, and the compiler may fuse a product and a sum where
// the machine can. Normal samples are to be the same everywhere, so they come from the two series below. A product that is to be added to something
// stands in float64(…), which forbids fusing (Go specification, "Floating-point operators"), unless it is exact, by a power of two. Square roots are
// exact to half an ulp by IEEE 754.

// NormFloat32 returns a sample of the standard normal distribution. Two uniform numbers of 53 bits give two samples (Box and Muller, 1958):
// sqrt(-2·log u)·cos 2πv, then the same with sin, u in (0,1], v in [0,1). The largest possible is 8.57.
func (s *Stream) NormFloat32() float32 {
	if s.held {
		s.held = false
		return s.spare
	}
	radius := math.Sqrt(-2 * logUnit(1-s.Float64()))
	sin, cos := sinCosTurn(s.Float64())
	s.spare, s.held = float32(radius*sin), true
	return float32(radius * cos)
}

// FillNormal fills dst with what as many calls of NormFloat32 return.
func (s *Stream) FillNormal(dst []float32) {
	for i := range dst {
		dst[i] = s.NormFloat32()
	}
}

// logUnit returns the natural logarithm of u in (0,1], within 2e-16 or two ulps: u = m·2^e with m around 1, log m = 2·artanh((m-1)/(m+1)).
func logUnit(u float64) float64 {
	m, e := math.Frexp(u) // exact
	if m < math.Sqrt2/2 {
		m, e = 2*m, e-1
	}
	t := (m - 1) / (m + 1) // at most 0.172
	z := float64(t * t)
	sum := 1.0 / 23 // the first term left out is z¹²/25 = 1.5e-20
	for k := 21.0; k >= 1; k -= 2 {
		sum = 1/k + float64(sum*z)
	}
	return float64(float64(e)*math.Ln2) + float64(2*t*sum)
}

// sinCosTurn returns the sine and cosine of 2π·v, v in [0,1), within 3e-16: Taylor's series around the nearest quarter turn.
func sinCosTurn(v float64) (sin, cos float64) {
	quarter := math.Floor(4*v + 0.5) // 4v is exact; a sum rounded up at a border changes the quarter, not the result
	x := 2 * math.Pi * (v - quarter/4)
	z := float64(x * x) // at most (π/4)²
	sin, cos = 1, 1
	for k := 19.0; k >= 3; k -= 2 { // the first terms left out are x²⁰/21! and x²⁰/20!
		sin = 1 - float64(sin*z/(k*(k-1)))
		cos = 1 - float64(cos*z/((k-1)*(k-2)))
	}
	sin *= x
	switch int(quarter) {
	case 1:
		return cos, -sin
	case 2:
		return -sin, -cos
	case 3:
		return -cos, sin
	}
	return sin, cos
}
