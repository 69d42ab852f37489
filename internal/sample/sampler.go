package sample

import (
	"context"
	"image"
	"math"

	"lycoris/internal/algos"
	"lycoris/internal/arch"
	"lycoris/internal/diffusion"
	"lycoris/internal/fault"
	"lycoris/internal/graph"
	"lycoris/internal/nn"
	"lycoris/internal/pipeline"
	"lycoris/internal/rng"
	"lycoris/internal/textencoder/tokenizer"
	"lycoris/internal/unet"
)

// Sampler makes pictures. Its programs are kept, one per size; they read the weights of the model's UNet and, where an adapter changes the text
// encoder, those of the text encoder, which mustn't be released while the Sampler is in use.
type Sampler struct {
	model      *pipeline.Model
	text       pipeline.TextOptions
	schedule   *diffusion.Schedule
	prediction diffusion.Prediction
	adapters   stack
	denoisers  map[size]*pipeline.Program
	encoder    *pipeline.Program // the text encoder with adapters
}

// size is what a denoiser is made for: n latents of h×w.
type size struct{ n, h, w int }

// Names of the programs' inputs.
const (
	inNoisy   = "noisy"
	inTime    = "time"
	inContext = "context"
	inTokens  = "tokens"
)

// New returns the sampler of a model with the adapters of networks, whose changes add up. The networks have memory already (algos.Network.Allocate);
// their values are read at each picture, so that a network in training shows what it knows by then.
func New(m *pipeline.Model, text pipeline.TextOptions, prediction diffusion.Prediction, networks ...*algos.Network) *Sampler {
	return &Sampler{model: m, text: text, schedule: diffusion.NewSchedule(false), prediction: prediction, adapters: networks,
		denoisers: map[size]*pipeline.Program{}}
}

// Picture makes the picture of p. progress, unless nil, is called after each step. When ctx ends, its cause is returned.
func (s *Sampler) Picture(ctx context.Context, p Prompt, progress func(step, steps int)) (image.Image, error) {
	factor := s.model.VAEConfig().Factor()
	if err := p.Check(factor); err != nil {
		return nil, err
	}
	context, err := s.states(ctx, p)
	if err != nil {
		return nil, err
	}
	latents, err := s.latents(ctx, p, p.H/factor, p.W/factor, context, progress)
	if err != nil {
		return nil, err
	}
	pixels, err := s.model.Decode(ctx, latents, p.H, p.W)
	if err != nil {
		return nil, err
	}
	if !finite(pixels) {
		return nil, fault.New(fault.Failed, s.model.Base.Path, "the VAE's picture of %q holds values that aren't numbers", p.Text)
	}
	return toImage(pixels, p.H, p.W), nil
}

// guided reports whether the model is asked twice, with and without the prompt.
func (p Prompt) guided() bool { return p.CFG != 1 }

// states returns the text states of p, [2,T,D] with the negative prompt's first, or [1,T,D] where nothing is guided.
func (s *Sampler) states(ctx context.Context, p Prompt) ([]float32, error) {
	texts := []string{p.Text}
	if p.guided() {
		texts = []string{p.Negative, p.Text}
	}
	var all []float32
	for _, t := range texts {
		h, err := s.encode(ctx, t)
		if err != nil {
			return nil, err
		}
		all = append(all, h...)
	}
	return all, nil
}

// encode returns the states [T,D] of text by the text encoder with its adapters.
func (s *Sampler) encode(ctx context.Context, text string) ([]float32, error) {
	if !s.adapters.changes(arch.TextEncoder) {
		return s.model.TextStates(ctx, text, s.text, nil)
	}
	if s.encoder == nil {
		g := &graph.Graph{}
		b := nn.NewBuilder(nn.NewLeaves(g), s.model.Text, string(arch.TextEncoder), s.adapters.adapter)
		_, states := pipeline.BuildText(b, s.model.Base.Text, 1, s.text)
		if err := s.model.Text.Err(); err != nil {
			return nil, err
		}
		s.encoder = s.model.Plan(graph.NewPlan(g, []*graph.Node{states}, graph.PlanOptions{}), s.model.Text)
	}
	tokens, err := s.model.Embed(tokenizer.Encode(text, s.text.MaxTokens))
	if err != nil {
		return nil, err
	}
	return s.run(ctx, s.encoder, map[string][]float32{inTokens: tokens})
}

// latents walks from noise to latents [h,w,C].
func (s *Sampler) latents(ctx context.Context, p Prompt, h, w int, states []float32, progress func(step, steps int)) ([]float32, error) {
	walk, err := diffusion.NewSampler(p.Sampler, s.schedule, s.prediction, p.Steps)
	if err != nil {
		return nil, err
	}
	n := 1
	if p.guided() {
		n = 2
	}
	denoiser, err := s.denoiser(size{n, h, w})
	if err != nil {
		return nil, err
	}
	cfg := s.model.Base.UNet
	item, width := h*w*cfg.InChannels, cfg.BlockOutChannels[0]
	sample := make([]float32, item)
	rng.New(p.Seed, "sample", 0, 0).FillNormal(sample)
	start := walk.InitNoise()
	for i := range sample {
		sample[i] *= start
	}
	noisy, time := make([]float32, n*item), make([]float32, n*width)
	for i, t := range walk.Timesteps() {
		for k := range n {
			walk.ScaleInput(noisy[k*item:(k+1)*item], sample)
			diffusion.TimestepEmbedding(time[k*width:(k+1)*width], float64(t), width)
		}
		pred, err := s.run(ctx, denoiser, map[string][]float32{inNoisy: noisy, inTime: time, inContext: states})
		if err != nil {
			return nil, err
		}
		if n == 2 {
			diffusion.Guide(pred[:item], pred[:item], pred[item:], float32(p.CFG))
		}
		walk.Step(sample, pred[:item])
		if !finite(sample) {
			return nil, fault.New(fault.Failed, s.model.Base.Path, "the latents of %q hold values that aren't numbers after step %d", p.Text, i+1)
		}
		if progress != nil {
			progress(i+1, p.Steps)
		}
	}
	return sample, nil
}

// denoiser returns the UNet's program for z.
func (s *Sampler) denoiser(z size) (*pipeline.Program, error) {
	if p := s.denoisers[z]; p != nil {
		return p, nil
	}
	g := &graph.Graph{}
	leaves, cfg := nn.NewLeaves(g), s.model.Base.UNet
	out := unet.Build(nn.NewBuilder(leaves, s.model.UNet, string(arch.UNet), s.adapters.adapter), cfg, unet.Inputs{
		Noisy:   leaves.Input(inNoisy, z.n, z.h, z.w, cfg.InChannels),
		Time:    leaves.Input(inTime, z.n, cfg.BlockOutChannels[0]),
		Context: leaves.Input(inContext, z.n, s.text.Tokens(), cfg.CrossAttentionDim),
	})
	if err := s.model.UNet.Err(); err != nil {
		return nil, err
	}
	p := s.model.Plan(graph.NewPlan(g, []*graph.Node{out}, graph.PlanOptions{}), s.model.UNet)
	s.denoisers[z] = p
	return p, nil
}

// run runs p with nothing dropped.
func (s *Sampler) run(ctx context.Context, p *pipeline.Program, inputs map[string][]float32) ([]float32, error) {
	b, err := p.Ready()
	if err != nil {
		return nil, err
	}
	for _, n := range s.adapters {
		n.KeepAll(b.Set)
	}
	return p.Run(ctx, inputs)
}

func finite(v []float32) bool {
	for _, x := range v {
		if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
			return false
		}
	}
	return true
}

// toImage turns pixels [h,w,3] in [-1,1] into 8-bit RGB, rounding to the nearest.
func toImage(pixels []float32, h, w int) image.Image {
	img := image.NewNRGBA(image.Rect(0, 0, w, h))
	for i := range h * w {
		for c := range 3 {
			v := (float64(pixels[3*i+c]) + 1) * 127.5
			img.Pix[4*i+c] = uint8(math.Round(min(max(v, 0), 255)))
		}
		img.Pix[4*i+3] = 255
	}
	return img
}
