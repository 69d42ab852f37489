package diffusion

import "math"

// TimestepEmbedding writes the sinusoidal embedding of t to dst [dim]: [cos(t·f₀..), sin(t·f₀..)] with fᵢ = 10000^(-i/(dim/2)). dim is even.
// Attention Is All You Need, section 3.5, with cosines first and no frequency shift, as Stable Diffusion has it. Every intermediate is
// float32 as in diffusers: at t near 1000 the rounding of t·fᵢ alone moves a sine by 3e-5.
func TimestepEmbedding(dst []float32, t float64, dim int) {
	checkLengths("TimestepEmbedding", len(dst), dim)
	half := dim / 2
	logPeriod := float32(-math.Log(10000))
	for i := range half {
		exponent := float32(logPeriod*float32(i)) / float32(half)
		frequency := float32(math.Exp(float64(exponent)))
		sin, cos := math.Sincos(float64(float32(t) * frequency))
		dst[i], dst[half+i] = float32(cos), float32(sin)
	}
}
