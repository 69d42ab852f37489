package diffusion

import (
	"fmt"
	"slices"
)

// A Sampler turns noise into latents in a fixed number of steps. Use it like this:
//
//	sample = noise · InitNoise()
//	for _, t := range Timesteps() {
//		ScaleInput(input, sample)
//		pred = model(input, t)
//		Step(sample, pred)
//	}
type Sampler interface {
	Timesteps() []int                   // in the order in which the model is asked
	InitNoise() float32                 // what standard normal noise is multiplied by before the first step
	ScaleInput(input, sample []float32) // what the model is shown at this step; input may be sample
	Step(sample, pred []float32)        // moves sample to the next step, in place
}

// SamplerNames lists the samplers by the names that [NewSampler] knows.
func SamplerNames() []string { return []string{"ddim", "euler"} }

// NewSampler returns the sampler of that name for steps in 1..1000.
func NewSampler(name string, s *Schedule, p Prediction, steps int) (Sampler, error) {
	if steps < 1 || steps > TrainTimesteps {
		return nil, fmt.Errorf("%d sampling steps, want 1 to %d", steps, TrainTimesteps)
	}
	switch name {
	case "ddim":
		return newDDIM(s, p, steps), nil
	case "euler":
		return newEuler(s, p, steps), nil
	}
	return nil, fmt.Errorf("unknown sampler %q, want one of %q", name, SamplerNames())
}

// Guide writes uncond + scale·(cond - uncond) to pred: classifier-free guidance (Ho and Salimans 2022, equation 6, with scale = 1+w). pred may
// be cond or uncond.
func Guide(pred, uncond, cond []float32, scale float32) {
	checkLengths("Guide", len(pred), len(uncond), len(cond))
	for i, u := range uncond {
		pred[i] = u + float32(scale*(cond[i]-u))
	}
}

// leadingTimesteps returns diffusers' "leading" spacing with offset 1: multiples of 1000/steps (integer division), descending, plus 1. The offset
// would leave the schedule at 1000 steps; there the first timestep stays at 999.
func leadingTimesteps(steps int) []int {
	ratio := TrainTimesteps / steps
	timesteps := make([]int, steps)
	for i := range timesteps {
		timesteps[i] = min(i*ratio+1, TrainTimesteps-1)
	}
	slices.Reverse(timesteps)
	return timesteps
}
