package diffusion

import (
	"math"
	"testing"
)

func TestSampleLatents(t *testing.T) {
	// Two pixels of two channels: means, then log-variances; two of these lie outside the clamp.
	moments := []float32{1, 2, 0, -100, -3, 4, float32(math.Log(4)), 100}
	noise := []float32{0.5, 1, -1, 1e-3}
	want := []float32{1.5 * 0.5, 2 * 0.5, -5 * 0.5, (4 + 1e-3*22026.465795) * 0.5}
	latents := make([]float32, 4)
	SampleLatents(latents, moments, noise, 2, 0.5)
	checkClose(t, "latents", latents, want, roundings)

	SampleLatents(latents, moments, nil, 2, ScalingFactorSD1)
	checkClose(t, "mean", latents, []float32{0.18215, 0.3643, -0.54645, 0.7286}, roundings)
}
