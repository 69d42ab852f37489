package diffusion

import (
	"fmt"
	"math"
)

// ScalingFactorSD1 brings the VAE's output near unit variance: latents = rawLatents·factor. The same for SD1 and SD2.
const ScalingFactorSD1 = 0.18215

// Bounds of the log-variance that the VAE's encoder answers (diffusers' DiagonalGaussianDistribution).
const (
	minLogVar = -30
	maxLogVar = 20
)

// SampleLatents draws latents [P,C] from the VAE encoder's moments [P,2C], P pixels of C means and C log-variances:
//
//	latents = (mean + exp(clamp(logvar)/2)·noise)·scale
//
// noise [P,C] is standard normal; nil gives the distribution's mean.
func SampleLatents(latents, moments, noise []float32, channels int, scale float64) {
	if len(moments) != 2*len(latents) || len(latents)%channels != 0 || noise != nil && len(noise) != len(latents) {
		panic(fmt.Sprintf("diffusion: SampleLatents: %d latents of %d channels, %d moments, %d noise", len(latents), channels, len(moments), len(noise)))
	}
	for i := range latents {
		p, c := i/channels, i%channels
		x := moments[2*p*channels+c]
		if noise != nil {
			logVar := min(max(moments[(2*p+1)*channels+c], minLogVar), maxLogVar)
			x += float32(math.Exp(0.5*float64(logVar))) * noise[i]
		}
		latents[i] = x * float32(scale)
	}
}
