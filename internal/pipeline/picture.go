package pipeline

import (
	"context"
	"fmt"

	"lycoris/internal/arch"
	"lycoris/internal/graph"
	"lycoris/internal/nn"
	"lycoris/internal/vae"
)

// Encode returns the VAE moments [h/f,w/f,2·LatentChannels] of a picture [h,w,3] in [-1,1]; h and w are multiples of the factor f.
func (m *Model) Encode(ctx context.Context, pixels []float32, h, w int) ([]float32, error) {
	p, err := m.vaeProgram("encode", h, w)
	if err != nil {
		return nil, err
	}
	return p.Run(ctx, map[string][]float32{"in": pixels})
}

// Decode returns the picture [h,w,3] of latents [h/f,w/f,LatentChannels], nominally in [-1,1].
func (m *Model) Decode(ctx context.Context, latents []float32, h, w int) ([]float32, error) {
	p, err := m.vaeProgram("decode", h, w)
	if err != nil {
		return nil, err
	}
	codes := make([]float32, len(latents))
	for i, v := range latents {
		codes[i] = v / float32(m.VAEConfig().ScalingFactor)
	}
	return p.Run(ctx, map[string][]float32{"in": codes})
}

// VAEConfig returns the VAE's configuration.
func (m *Model) VAEConfig() arch.VAEConfig { return m.vae.VAE }

func (m *Model) vaeProgram(kind string, h, w int) (*Program, error) {
	key := fmt.Sprint("vae ", kind, h, "x", w)
	if p := m.programs[key]; p != nil {
		return p, nil
	}
	cfg := m.VAEConfig()
	g := &graph.Graph{}
	b := nn.NewBuilder(nn.NewLeaves(g), m.VAE, string(arch.VAE), nil)
	var out *graph.Node
	if kind == "encode" {
		out = vae.Encode(b, cfg, g.Input("in", 1, h, w, cfg.InChannels))
	} else {
		f := cfg.Factor()
		out = vae.Decode(b, cfg, g.Input("in", 1, h/f, w/f, cfg.LatentChannels))
	}
	if err := m.VAE.Err(); err != nil {
		return nil, err
	}
	p := m.Plan(graph.NewPlan(g, []*graph.Node{out}, graph.PlanOptions{}), m.VAE)
	m.programs[key] = p
	return p, nil
}
