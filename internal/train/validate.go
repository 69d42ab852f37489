package train

import (
	"context"
	"strconv"

	"lycoris/internal/dataset"
	"lycoris/internal/diffusion"
	"lycoris/internal/rng"
	"lycoris/internal/runs"
	"lycoris/internal/textencoder/tokenizer"
)

// validationTimesteps are sd-scripts': linspace(0,1000,6) without its ends.
var validationTimesteps = [...]int{200, 400, 600, 800}

// validate computes the loss on the held-out pictures. Latents, noise and timesteps are the same every time, and nothing is dropped, so two values
// differ by the adapter alone.
func (t *trainer) validate(ctx context.Context) error {
	if t.held == nil {
		return nil
	}
	line := runs.ValLine{Step: t.done, PerT: map[string]float64{}}
	for i, b := range t.held.plan.Epoch(0) {
		for _, step := range validationTimesteps {
			m, err := t.held.fixed(ctx, b, i, step)
			if err != nil {
				return err
			}
			losses, err := t.engine.forward(ctx, m, 0, 0, false)
			if err != nil {
				return err
			}
			line.PerT[strconv.Itoa(step)] += mean(losses)
			line.N++
		}
	}
	pictures := float64(line.N / len(validationTimesteps))
	for k, v := range line.PerT {
		line.PerT[k] = v / pictures
	}
	for _, step := range validationTimesteps { // in a fixed order: the sum is the same every time
		line.Loss += line.PerT[strconv.Itoa(step)] / float64(len(validationTimesteps))
	}
	t.in.UI.Info("validation loss", "step", t.done, "loss", strconv.FormatFloat(line.Loss, 'f', 5, 64))
	return t.metrics.Write(line)
}

// fixed is a micro batch of one held-out picture whose draws don't depend on the update.
func (f *pictures) fixed(ctx context.Context, b dataset.Batch, number, timestep int) (*micro, error) {
	factor := f.model.VAEConfig().Factor()
	m := &micro{shape: shape{1, b.Bucket.H / factor, b.Bucket.W / factor}, timesteps: []int{timestep}}
	item := b.Items[0]
	moments, err := f.momentsOf(ctx, item)
	if err != nil {
		return nil, err
	}
	cfg := f.model.VAEConfig()
	m.latents, m.noise = make([]float32, len(moments)/2), make([]float32, len(moments)/2)
	rng.New(f.seed, "validation noise", uint64(item.Ordinal), uint64(timestep)).FillNormal(m.noise)
	diffusion.SampleLatents(m.latents, moments, nil, cfg.LatentChannels, cfg.ScalingFactor)
	caption := f.plan.Set().Images[item.Image].CaptionAt(rng.New(f.seed, "validation caption", item.Ordinal, 0))
	if f.adapted {
		m.ids = tokenizer.Encode(caption, f.text.MaxTokens)
		return m, nil
	}
	m.states, err = f.statesOf(ctx, caption, true)
	return m, err
}
