package diffusion

import "fmt"

// AddNoise writes √ᾱ(t)·latents + √(1-ᾱ(t))·noise to noisy (DDPM, equation 4). noisy may be latents or noise.
func (s *Schedule) AddNoise(noisy, latents, noise []float32, t int) {
	checkLengths("AddNoise", len(noisy), len(latents), len(noise))
	a, b := s.mix(t)
	for i, x := range latents {
		noisy[i] = float32(a*x) + float32(b*noise[i])
	}
}

// Target writes to target what the model should answer at t: noise for [Epsilon], √ᾱ·noise - √(1-ᾱ)·latents for [VPrediction]. target may be
// latents or noise.
func (s *Schedule) Target(target, latents, noise []float32, t int, p Prediction) {
	checkLengths("Target", len(target), len(latents), len(noise))
	if p == Epsilon {
		copy(target, noise)
		return
	}
	a, b := s.mix(t)
	for i, x := range latents {
		target[i] = float32(a*noise[i]) - float32(b*x)
	}
}

// Source draws integers: a stream of package rng.
type Source interface {
	IntN(n int) int // uniform in [0,n)
}

// TimestepRange is the half-open range [Min,Max) of timesteps that are trained.
type TimestepRange struct{ Min, Max int }

// FullRange is every timestep.
var FullRange = TimestepRange{0, TrainTimesteps}

// Sample draws a timestep, each of the range equally likely.
func (r TimestepRange) Sample(src Source) int { return r.Min + src.IntN(r.Max-r.Min) }

func checkLengths(op string, want int, got ...int) {
	for _, n := range got {
		if n != want {
			panic(fmt.Sprintf("diffusion: %s: output has %d elements, inputs have %v", op, want, got))
		}
	}
}
