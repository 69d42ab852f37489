package diffusion

// ddim is the deterministic DDIM sampler (Song et al. 2021, equation 12 with σ = 0), with the settings that Stable Diffusion 1 ships:
// leading timesteps, offset 1, no clipping, and ᾱ(0) rather than 1 after the last step.
type ddim struct {
	schedule   *Schedule
	prediction Prediction
	timesteps  []int
	ratio      int // training timesteps per step
	next       int // index of the step to come
}

func newDDIM(s *Schedule, p Prediction, steps int) *ddim {
	return &ddim{schedule: s, prediction: p, timesteps: leadingTimesteps(steps), ratio: TrainTimesteps / steps}
}

// Timesteps implements Sampler.
func (d *ddim) Timesteps() []int { return d.timesteps }

// InitNoise implements Sampler.
func (d *ddim) InitNoise() float32 { return 1 }

// ScaleInput implements Sampler.
func (d *ddim) ScaleInput(input, sample []float32) { copy(input, sample) }

// Step implements Sampler.
func (d *ddim) Step(sample, pred []float32) {
	checkLengths("Step", len(sample), len(pred))
	t := d.timesteps[d.next]
	a, b := d.schedule.mix(t)
	aPrev, bPrev := d.schedule.mix(max(t-d.ratio, 0))
	d.next++
	for i, x := range sample {
		var latents, noise float32 // what pred says the clean latents and the noise are
		if d.prediction == VPrediction {
			latents = float32(a*x) - float32(b*pred[i])
			noise = float32(a*pred[i]) + float32(b*x)
		} else {
			latents = (x - float32(b*pred[i])) / a
			noise = pred[i]
		}
		sample[i] = float32(aPrev*latents) + float32(bPrev*noise)
	}
}
