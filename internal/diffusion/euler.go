package diffusion

import "math"

// smallestAlpha stands in for ᾱ = 0 at the last timestep of a zero-terminal-SNR schedule, where sigma would be infinite (diffusers: 2⁻²⁴).
const smallestAlpha = 1.0 / (1 << 24)

// euler is Euler's method on the probability flow (Karras et al. 2022, algorithm 1 without churn), with the settings that Stable Diffusion 1
// ships: leading timesteps, offset 1, sigmas read at the timesteps, 0 at the end. Its sample is latents + sigma·noise.
type euler struct {
	prediction Prediction
	timesteps  []int
	sigmas     []float64 // one more than timesteps; the last is 0
	next       int       // index of the step to come
}

func newEuler(s *Schedule, p Prediction, steps int) *euler {
	e := &euler{prediction: p, timesteps: leadingTimesteps(steps)}
	for _, t := range e.timesteps {
		a := max(float64(s.AlphaCumprod32(t)), smallestAlpha)
		e.sigmas = append(e.sigmas, math.Sqrt((1-a)/a))
	}
	e.sigmas = append(e.sigmas, 0)
	return e
}

// Timesteps implements Sampler.
func (e *euler) Timesteps() []int { return e.timesteps }

// InitNoise implements Sampler: √(sigma²+1) of the first step.
func (e *euler) InitNoise() float32 { return float32(math.Hypot(e.sigmas[0], 1)) }

// ScaleInput implements Sampler: the model was trained on sample/√(sigma²+1), whose variance is 1.
func (e *euler) ScaleInput(input, sample []float32) {
	checkLengths("ScaleInput", len(input), len(sample))
	scale := float32(math.Hypot(e.sigmas[e.next], 1))
	for i, x := range sample {
		input[i] = x / scale
	}
}

// Step implements Sampler.
//
// The derivative of the sample by sigma is (sample - latents)/sigma. For [Epsilon] that is pred itself; for [VPrediction] latents =
// sample/(sigma²+1) - pred·sigma/√(sigma²+1), so it is sample·sigma/(sigma²+1) + pred/√(sigma²+1).
func (e *euler) Step(sample, pred []float32) {
	checkLengths("Step", len(sample), len(pred))
	sigma, dt := e.sigmas[e.next], e.sigmas[e.next+1]-e.sigmas[e.next]
	e.next++
	fromSample, fromPred := 0.0, dt
	if e.prediction == VPrediction {
		fromSample = dt * sigma / (sigma*sigma + 1)
		fromPred = dt / math.Hypot(sigma, 1)
	}
	for i, x := range sample {
		sample[i] = float32(float64(x) + fromSample*float64(x) + fromPred*float64(pred[i]))
	}
}
