// Package vae builds the encoder and decoder of Stable Diffusion's variational autoencoder as graphs.
//
// [Encode] turns pictures [N,H,W,3] in [-1,1] into moments [N,H/8,W/8,8] (mean, then log variance); [Decode] turns codes [N,h,w,4] into pictures. Latents
// are codes times the scaling factor: internal/diffusion. Names are those of diffusers' AutoencoderKL.
package vae

import (
	"fmt"

	"lycoris/internal/arch"
	"lycoris/internal/graph"
	"lycoris/internal/nn"
)

type net struct {
	*nn.Builder
	cfg arch.VAEConfig
}

var same = graph.ConvOptions{Pad: graph.SamePad(1)}

// Encode emits the encoder on x [N,H,W,3]; H and W are multiples of cfg.Factor().
func Encode(b *nn.Builder, cfg arch.VAEConfig, x *graph.Node) *graph.Node {
	v := net{b, cfg}
	h := b.Conv2d("encoder.conv_in", x, cfg.BlockOutChannels[0], 3, same, nn.Extra{})
	for i, out := range cfg.BlockOutChannels {
		block := fmt.Sprintf("encoder.down_blocks.%d", i)
		for j := range cfg.LayersPerBlock {
			h = v.resnet(fmt.Sprintf("%s.resnets.%d", block, j), h, out)
		}
		if i < len(cfg.BlockOutChannels)-1 { // padded below and to the right only
			opt := graph.ConvOptions{Stride: 2, Pad: [4]int{0, 0, 1, 1}}
			h = b.Conv2d(block+".downsamplers.0.conv", h, out, 3, opt, nn.Extra{})
		}
	}
	h = v.mid("encoder.mid_block", h)
	h = b.GroupNorm("encoder.conv_norm_out", h, cfg.NormGroups, arch.VAENormEps, true)
	h = b.Conv2d("encoder.conv_out", h, 2*cfg.LatentChannels, 3, same, nn.Extra{})
	if cfg.QuantConv {
		h = b.Conv2d("quant_conv", h, 2*cfg.LatentChannels, 1, graph.ConvOptions{}, nn.Extra{})
	}
	return h
}

// Decode emits the decoder on codes z [N,h,w,LatentChannels].
func Decode(b *nn.Builder, cfg arch.VAEConfig, z *graph.Node) *graph.Node {
	v := net{b, cfg}
	levels := len(cfg.BlockOutChannels)
	if cfg.QuantConv {
		z = b.Conv2d("post_quant_conv", z, cfg.LatentChannels, 1, graph.ConvOptions{}, nn.Extra{})
	}
	h := b.Conv2d("decoder.conv_in", z, cfg.BlockOutChannels[levels-1], 3, same, nn.Extra{})
	h = v.mid("decoder.mid_block", h)
	for i := range levels {
		out := cfg.BlockOutChannels[levels-1-i]
		block := fmt.Sprintf("decoder.up_blocks.%d", i)
		for j := range cfg.LayersPerBlock + 1 {
			h = v.resnet(fmt.Sprintf("%s.resnets.%d", block, j), h, out)
		}
		if i < levels-1 {
			opt := graph.ConvOptions{Pad: graph.SamePad(1), Upsample: true}
			h = b.Conv2d(block+".upsamplers.0.conv", h, out, 3, opt, nn.Extra{})
		}
	}
	h = b.GroupNorm("decoder.conv_norm_out", h, cfg.NormGroups, arch.VAENormEps, true)
	return b.Conv2d("decoder.conv_out", h, cfg.OutChannels, 3, same, nn.Extra{})
}

// resnet emits conv2(silu(norm2(conv1(silu(norm1(x)))))) + shortcut(x).
func (v net) resnet(path string, x *graph.Node, out int) *graph.Node {
	groups := v.cfg.NormGroups
	h := v.GroupNorm(path+".norm1", x, groups, arch.VAENormEps, true)
	h = v.Conv2d(path+".conv1", h, out, 3, same, nn.Extra{})
	h = v.GroupNorm(path+".norm2", h, groups, arch.VAENormEps, true)
	if x.Last() != out {
		x = v.Conv2d(path+".conv_shortcut", x, out, 1, graph.ConvOptions{}, nn.Extra{})
	}
	return v.Conv2d(path+".conv2", h, out, 3, same, nn.Extra{Add: x})
}

// mid emits the middle: residual block, self-attention of one head over all pixels, residual block.
func (v net) mid(path string, h *graph.Node) *graph.Node {
	c := h.Last()
	h = v.resnet(path+".resnets.0", h, c)
	a := path + ".attentions.0"
	n := v.GroupNorm(a+".group_norm", h, v.cfg.NormGroups, arch.VAENormEps, false)
	q := v.Linear(a+".to_q", n, c, true, nn.Extra{})
	k := v.Linear(a+".to_k", n, c, true, nn.Extra{})
	val := v.Linear(a+".to_v", n, c, true, nn.Extra{})
	o := v.G.Attention(q, k, val, 1, false)
	h = v.Linear(a+".to_out.0", o, c, true, nn.Extra{Add: h})
	return v.resnet(path+".resnets.1", h, c)
}
