package diffusion

import (
	"math"
	"testing"
)

// Values of diffusers' get_timestep_embedding(t, dim, flip_sin_to_cos=True, downscale_freq_shift=0) on a CPU.
//
// Torch's float32 exponential is not always rounded correctly, ours is. That moves 3 of the 160 frequencies at dim 320 (2, 15 and 42) by one unit
// in the last place, and their sines by up to 6e-5 at t = 999; all others agree within 1e-6.
func TestTimestepEmbedding(t *testing.T) {
	for _, c := range []struct {
		dim      int
		timestep float64
		i        int
		cos, sin float32
	}{
		{32, 1, 0, 0.54030234, 0.84147096},
		{32, 1, 1, 0.84600908, 0.53316844},
		{32, 1, 5, 0.99841928, 0.05620449},
		{32, 1, 15, 1.0, 0.00017783},
		{32, 500, 0, -0.88384926, -0.4677718},
		{32, 500, 1, -0.0018882, -0.99999821},
		{32, 500, 5, -0.9876582, 0.15662472},
		{32, 500, 15, 0.99604976, 0.08879686},
		{32, 999, 0, 0.99964982, -0.02646075},
		{32, 999, 1, -0.84400272, 0.53633887},
		{32, 999, 5, 0.93204612, -0.36233974},
		{32, 999, 15, 0.98426169, 0.17671716},
		{320, 1, 1, 0.5865038, 0.80994648},
		{320, 1, 40, 0.99500418, 0.09983341},
		{320, 1, 100, 0.99999499, 0.00316227},
		{320, 1, 159, 1.0, 0.00010593},
		{320, 500, 1, 0.70275909, 0.71142793},
		{320, 500, 40, 0.96496505, -0.26237854},
		{320, 500, 100, -0.01034186, 0.99994653},
		{320, 500, 159, 0.9985978, 0.05293792},
		{320, 999, 1, 0.80267751, 0.59641331},
		{320, 999, 40, 0.80745506, -0.5899291},
		{320, 999, 100, -0.99984652, -0.01752081},
		{320, 999, 159, 0.99440634, 0.10562206},
	} {
		dst := make([]float32, c.dim)
		TimestepEmbedding(dst, c.timestep, c.dim)
		cos, sin := dst[c.i], dst[c.dim/2+c.i]
		if math.Abs(float64(cos-c.cos)) > 1e-6 || math.Abs(float64(sin-c.sin)) > 1e-6 {
			t.Errorf("dim %d, t %v, frequency %d: %v, %v, want %v, %v", c.dim, c.timestep, c.i, cos, sin, c.cos, c.sin)
		}
	}
}

// Against float64, every value is as near as the rounding of frequency and argument allows: t·f·2⁻²³ beside the last rounding.
func TestTimestepEmbeddingExact(t *testing.T) {
	for _, dim := range []int{2, 32, 320} {
		for _, timestep := range []float64{0, 1, 37, 500, 981, 999} {
			dst := make([]float32, dim)
			TimestepEmbedding(dst, timestep, dim)
			for i := range dim / 2 {
				// The exponent is near -9 at most: its own rounding is a relative error of 2⁻²⁰ at worst in the frequency.
				arg := timestep * math.Pow(10000, -float64(i)/float64(dim/2))
				tol := 1e-7 + arg*(1.0/(1<<20)+1.0/(1<<23))
				sin, cos := math.Sincos(arg)
				if math.Abs(float64(dst[i])-cos) > tol || math.Abs(float64(dst[dim/2+i])-sin) > tol {
					t.Errorf("dim %d, t %v, frequency %d: %v, %v, want %v, %v within %v", dim, timestep, i, dst[i], dst[dim/2+i], cos, sin, tol)
				}
			}
		}
	}
}
