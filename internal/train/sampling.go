package train

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"lycoris/internal/fault"
	"lycoris/internal/runs"
	"lycoris/internal/sample"
	"lycoris/internal/tensor"
	"lycoris/internal/ui"
)

// prompts returns the pictures that sample.prompts asks for.
func (j *Job) prompts() ([]sample.Prompt, error) {
	c := j.cfg.Sample
	w, h := j.resolution()
	if !c.Size.IsAuto() {
		w, h = c.Size.W, c.Size.H
	}
	defaults := sample.Prompt{W: w, H: h, Seed: c.Seed, Steps: c.Steps, CFG: c.CFG, Sampler: c.Sampler}
	var all []sample.Prompt
	for i, line := range c.Prompts {
		p, err := sample.ParsePrompt(line, defaults)
		if err == nil {
			err = p.Check(j.model.VAEConfig().Factor())
		}
		if err != nil {
			return nil, fault.BadUsage("sample.prompts", "prompt %d: %w", i+1, err)
		}
		all = append(all, p)
	}
	return all, nil
}

// sample makes the pictures of sample.prompts with the adapter as it is now, under samples/step-….
func (t *trainer) sample(ctx context.Context) error {
	prompts, err := t.prompts()
	if err != nil || len(prompts) == 0 {
		return err
	}
	dir, err := t.opt.Run.SampleDir(t.done)
	if err != nil {
		return err
	}
	t.progress.Phase(ui.Sample, len(prompts))
	s := sample.New(t.model, t.engine.text, t.engine.prediction, t.network)
	for i, p := range prompts {
		began := time.Now()
		img, err := s.Picture(ctx, p, nil)
		if err != nil {
			return err
		}
		path := filepath.Join(dir, fmt.Sprintf("%02d-seed%d.png", i, p.Seed))
		if err := sample.Write(path, img, p.Meta()); err != nil {
			return err
		}
		hash, err := tensor.HashFile(path)
		if err != nil {
			return err
		}
		line := runs.FileLine{Kind: "sample", Step: t.done, Path: t.relative(path), Bytes: fileSize(path), SHA256: hash, Seconds: time.Since(began).Seconds()}
		if err := t.metrics.Write(line); err != nil {
			return err
		}
		t.progress.Add(1)
	}
	t.releaseUnneeded()
	t.progress.Phase(ui.Train, t.steps-t.done)
	return nil
}

// releaseUnneeded frees the parts of the model that the steps to come don't read.
func (t *trainer) releaseUnneeded() {
	switch {
	case t.data == nil:
		t.model.Release(t.model.VAE)
		if !t.engine.adaptsText {
			t.model.Release(t.model.Text)
		}
		t.model.FreeArena()
	case t.held == nil:
		release(t.model, t.data)
	default:
		release(t.model, t.data, t.held)
	}
}
