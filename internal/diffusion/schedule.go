package diffusion

import (
	"fmt"
	"math"
)

// TrainTimesteps is the number of noise levels that all Stable Diffusion models were trained on.
const TrainTimesteps = 1000

// First and last beta of Stable Diffusion's "scaled linear" schedule.
const (
	betaStart = 0.00085
	betaEnd   = 0.012
)

// Prediction says what the model was trained to answer.
type Prediction uint8

// The prediction types.
const (
	Epsilon     Prediction = iota // the noise
	VPrediction                   // the velocity √ᾱ·noise - √(1-ᾱ)·latents
)

// String returns the name that configurations and metadata use.
func (p Prediction) String() string {
	if p == VPrediction {
		return "v"
	}
	return "eps"
}

// Schedule is the noise schedule of training: for each timestep t in 0..999 the share ᾱ of the signal's variance that is left.
type Schedule struct {
	alphasCumprod   []float64 // [1000], computed in float64
	alphasCumprod32 []float32 // [1000], with the rounding of torch's float32 tensors; training and sampling use these
	zeroSNR         bool
}

// NewSchedule returns Stable Diffusion's schedule: β(i) = (√β₀ + (√β₁-√β₀)·i/999)², ᾱ(t) = Π(1-β(i)) over i ≤ t. With zeroTerminalSNR, √ᾱ is
// shifted and stretched so that the last timestep is pure noise and the first is unchanged (Lin et al. 2024, algorithm 1).
func NewSchedule(zeroTerminalSNR bool) *Schedule {
	s := &Schedule{alphasCumprod: cumulate(betas64()), zeroSNR: zeroTerminalSNR}
	if zeroTerminalSNR {
		rescaleZeroSNR(s.alphasCumprod)
		s.alphasCumprod32 = make([]float32, TrainTimesteps)
		for t, a := range s.alphasCumprod {
			s.alphasCumprod32[t] = float32(a)
		}
		return s
	}
	s.alphasCumprod32 = cumulate32(betas32())
	return s
}

// AlphaCumprod returns ᾱ(t).
func (s *Schedule) AlphaCumprod(t int) float64 { return s.alphasCumprod[checkTimestep(t)] }

// AlphaCumprod32 returns ᾱ(t) as a float32 tensor of torch holds it.
func (s *Schedule) AlphaCumprod32(t int) float32 { return s.alphasCumprod32[checkTimestep(t)] }

// ZeroTerminalSNR reports whether the last timestep carries no signal.
func (s *Schedule) ZeroTerminalSNR() bool { return s.zeroSNR }

// SNR returns the signal-to-noise ratio ᾱ/(1-ᾱ) at t.
func (s *Schedule) SNR(t int) float64 {
	a := s.AlphaCumprod(t)
	return a / (1 - a)
}

// mix returns √ᾱ(t) and √(1-ᾱ(t)) rounded as torch rounds them.
func (s *Schedule) mix(t int) (signal, noise float32) {
	a := s.AlphaCumprod32(t)
	return sqrt32(a), sqrt32(1 - a)
}

// betas64 returns β(i) in float64.
func betas64() []float64 {
	lo, hi := math.Sqrt(betaStart), math.Sqrt(betaEnd)
	betas := make([]float64, TrainTimesteps)
	for i := range betas {
		b := lo + (hi-lo)*float64(i)/(TrainTimesteps-1)
		betas[i] = b * b
	}
	return betas
}

// betas32 returns β(i) as torch.linspace(√β₀, √β₁, 1000)**2 does: the line is walked from both ends to the middle, each point rounded once
// (a fused multiply-add, here in float64, where the product is exact).
func betas32() []float32 {
	lo, hi := float32(math.Sqrt(betaStart)), float32(math.Sqrt(betaEnd))
	step := (hi - lo) / (TrainTimesteps - 1)
	betas := make([]float32, TrainTimesteps)
	for i := range betas {
		b := float32(float64(lo) + float64(step)*float64(i))
		if i >= TrainTimesteps/2 {
			b = float32(float64(hi) - float64(step)*float64(TrainTimesteps-1-i))
		}
		betas[i] = b * b
	}
	return betas
}

// cumulate returns the running products of 1-β.
func cumulate(betas []float64) []float64 {
	out := make([]float64, len(betas))
	product := 1.0
	for i, b := range betas {
		product *= 1 - b
		out[i] = product
	}
	return out
}

// cumulate32 is cumulate for float32 tensors: factors are float32, the running product is float64 (as torch.cumprod keeps it on the CPU).
func cumulate32(betas []float32) []float32 {
	out := make([]float32, len(betas))
	product := 1.0
	for i, b := range betas {
		product *= float64(1 - b)
		out[i] = float32(product)
	}
	return out
}

// rescaleZeroSNR replaces √ᾱ by (√ᾱ - √ᾱ_last)·√ᾱ_first/(√ᾱ_first - √ᾱ_last).
func rescaleZeroSNR(alphasCumprod []float64) {
	first, last := math.Sqrt(alphasCumprod[0]), math.Sqrt(alphasCumprod[len(alphasCumprod)-1])
	for t, a := range alphasCumprod {
		r := (math.Sqrt(a) - last) * (first / (first - last))
		alphasCumprod[t] = r * r
	}
}

func checkTimestep(t int) int {
	if t < 0 || t >= TrainTimesteps {
		panic(fmt.Sprintf("diffusion: timestep %d is outside 0..%d", t, TrainTimesteps-1))
	}
	return t
}

func sqrt32(x float32) float32 { return float32(math.Sqrt(float64(x))) }
