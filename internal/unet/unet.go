// Package unet builds the denoising UNet of Stable Diffusion as a graph.
//
// [Build] emits the network of an arch.UNetConfig through an nn.Builder, module by module under diffusers' names, so that adapters find their
// layers. Images are [N,H,W,C], the context is [N,T,D]. Each ResNet block and each spatial transformer is one segment of checkpointing.
//
// The architecture follows Rombach et al., 2022 (latent diffusion), as diffusers' UNet2DConditionModel builds it. Read Build, then resnet.go and
// transformer.go.
package unet

import (
	"fmt"

	"lycoris/internal/arch"
	"lycoris/internal/graph"
	"lycoris/internal/kernels"
	"lycoris/internal/nn"
)

// Inputs are the nodes that the network reads.
type Inputs struct {
	Noisy   *graph.Node // noisy latents [N,H,W,4]
	Time    *graph.Node // sinusoidal features of the timesteps [N,BlockOutChannels[0]]: diffusion.TimestepEmbedding
	Context *graph.Node // text states [N,T,CrossDim]
}

// net carries what all blocks share.
type net struct {
	*nn.Builder
	cfg     arch.UNetConfig
	emb     *graph.Node // SiLU of the time embedding [N,TimeEmbedDim]
	context *graph.Node
}

// Build emits the network and returns its prediction [N,H,W,OutChannels].
func Build(b *nn.Builder, cfg arch.UNetConfig, in Inputs) *graph.Node {
	g := b.G
	width := cfg.BlockOutChannels[0]
	t := b.Linear("time_embedding.linear_1", in.Time, cfg.TimeEmbedDim, true, nn.Extra{})
	t = b.Linear("time_embedding.linear_2", g.Activate(t, kernels.SiLU), cfg.TimeEmbedDim, true, nn.Extra{})
	u := &net{Builder: b, cfg: cfg, emb: g.Activate(t, kernels.SiLU), context: in.Context}

	h := b.Conv2d("conv_in", in.Noisy, width, 3, graph.ConvOptions{Pad: graph.SamePad(1)}, nn.Extra{})
	skips := []*graph.Node{h}
	levels := len(cfg.BlockOutChannels)
	for i, out := range cfg.BlockOutChannels {
		block := fmt.Sprintf("down_blocks.%d", i)
		for j := range cfg.LayersPerBlock {
			h = u.resnet(fmt.Sprintf("%s.resnets.%d", block, j), h, out)
			if cfg.Attention[i] {
				h = u.transformer(fmt.Sprintf("%s.attentions.%d", block, j), h, cfg.Heads[i], cfg.TransformerDepth[i])
			}
			skips = append(skips, h)
		}
		if i < levels-1 {
			h = b.Conv2d(block+".downsamplers.0.conv", h, out, 3, graph.ConvOptions{Stride: 2, Pad: graph.SamePad(1)}, nn.Extra{})
			skips = append(skips, h)
		}
	}

	last := levels - 1
	h = u.resnet("mid_block.resnets.0", h, cfg.BlockOutChannels[last])
	h = u.transformer("mid_block.attentions.0", h, cfg.MidHeads, cfg.MidDepth)
	h = u.resnet("mid_block.resnets.1", h, cfg.BlockOutChannels[last])

	for i := range levels {
		level := last - i
		out := cfg.BlockOutChannels[level]
		block := fmt.Sprintf("up_blocks.%d", i)
		for j := range cfg.LayersPerBlock + 1 {
			skip := skips[len(skips)-1]
			skips = skips[:len(skips)-1]
			h = u.resnetOnSkip(fmt.Sprintf("%s.resnets.%d", block, j), h, skip, out)
			if cfg.Attention[level] {
				h = u.transformer(fmt.Sprintf("%s.attentions.%d", block, j), h, cfg.Heads[level], cfg.TransformerDepth[level])
			}
		}
		if i < levels-1 {
			h = u.upsample(block+".upsamplers.0.conv", h, skips[len(skips)-1], out)
		}
	}
	h = b.GroupNorm("conv_norm_out", h, cfg.NormGroups, float32(cfg.NormEps), true)
	return b.Conv2d("conv_out", h, cfg.OutChannels, 3, graph.ConvOptions{Pad: graph.SamePad(1)}, nn.Extra{})
}

// upsample doubles h to the size of the next skip connection and convolves it. Where that size is odd, the nearest pixels are taken as in
// torch's nearest interpolation: source = floor(i·small/large).
func (u *net) upsample(path string, h, skip *graph.Node, out int) *graph.Node {
	s, want := h.Shape(), skip.Shape()
	opt := graph.ConvOptions{Pad: graph.SamePad(1), Upsample: true}
	if want[1] != 2*s[1] || want[2] != 2*s[2] {
		opt.Upsample = false
		index := make([]int32, 0, s[0]*want[1]*want[2])
		for n := range s[0] {
			for y := range want[1] {
				for x := range want[2] {
					index = append(index, int32((n*s[1]+y*s[1]/want[1])*s[2]+x*s[2]/want[2]))
				}
			}
		}
		h = u.G.Reshape(u.G.GatherRows(h, index), s[0], want[1], want[2], s[3])
	}
	return u.Conv2d(path, h, out, 3, opt, nn.Extra{})
}
