package arch

import "fmt"

// VAEConfig describes an AutoencoderKL.
type VAEConfig struct {
	InChannels, OutChannels int
	LatentChannels          int   // the encoder emits twice as many: mean, then log variance
	BlockOutChannels        []int // per level
	LayersPerBlock          int   // residual blocks per encoder level; the decoder has one more
	NormGroups              int
	ScalingFactor           float64 // latents = ScalingFactor · sampled code
	QuantConv               bool    // has quant_conv and post_quant_conv
}

// VAENormEps is the epsilon of every group norm of the VAE.
const VAENormEps = 1e-6

// SDVAE returns the VAE of Stable Diffusion 1.x and 2.x.
func SDVAE() VAEConfig {
	return VAEConfig{InChannels: 3, OutChannels: 3, LatentChannels: 4, BlockOutChannels: []int{128, 256, 512, 512}, LayersPerBlock: 2,
		NormGroups: 32, ScalingFactor: 0.18215, QuantConv: true}
}

// Factor returns how many pixels of the picture one latent pixel spans on each axis: 8 for Stable Diffusion.
func (c VAEConfig) Factor() int { return 1 << (len(c.BlockOutChannels) - 1) }

// VAEModules lists the modules of the VAE in diffusers' order: encoder, decoder, quant_conv, post_quant_conv.
func VAEModules(c VAEConfig) []Module {
	b := &builder{}
	levels := len(c.BlockOutChannels)
	first, last := c.BlockOutChannels[0], c.BlockOutChannels[levels-1]
	b.in("", "", "AutoencoderKL", func() {
		b.in("encoder", "encoder", "Encoder", func() {
			b.conv("conv_in", "conv_in", first, c.InChannels, 3, 1, 1)
			for i, out := range c.BlockOutChannels {
				in := c.BlockOutChannels[max(i-1, 0)]
				b.in(fmt.Sprint("down_blocks.", i), fmt.Sprint("down.", i), "DownEncoderBlock2D", func() {
					for j := range c.LayersPerBlock {
						vaeResnet(b, fmt.Sprint("resnets.", j), fmt.Sprint("block.", j), in, out)
						in = out
					}
					if i < levels-1 {
						b.in("downsamplers.0", "downsample", "Downsample2D", func() { b.conv("conv", "conv", out, out, 3, 2, 0) })
					}
				})
			}
			vaeMid(b, last)
			b.groupNorm("conv_norm_out", "norm_out", last)
			b.conv("conv_out", "conv_out", 2*c.LatentChannels, last, 3, 1, 1)
		})
		b.in("decoder", "decoder", "Decoder", func() {
			b.conv("conv_in", "conv_in", last, c.LatentChannels, 3, 1, 1)
			in := last
			for i := range levels {
				level := levels - 1 - i // LDM numbers the decoder's levels from the picture's side
				out := c.BlockOutChannels[level]
				b.in(fmt.Sprint("up_blocks.", i), fmt.Sprint("up.", level), "UpDecoderBlock2D", func() {
					for j := range c.LayersPerBlock + 1 {
						vaeResnet(b, fmt.Sprint("resnets.", j), fmt.Sprint("block.", j), in, out)
						in = out
					}
					if level > 0 {
						b.in("upsamplers.0", "upsample", "Upsample2D", func() { b.conv("conv", "conv", out, out, 3, 1, 1) })
					}
				})
			}
			vaeMid(b, last)
			b.groupNorm("conv_norm_out", "norm_out", first)
			b.conv("conv_out", "conv_out", c.OutChannels, first, 3, 1, 1)
		})
		if c.QuantConv {
			b.conv("quant_conv", "quant_conv", 2*c.LatentChannels, 2*c.LatentChannels, 1, 1, 0)
			b.conv("post_quant_conv", "post_quant_conv", c.LatentChannels, c.LatentChannels, 1, 1, 0)
		}
	})
	return b.modules
}

func vaeResnet(b *builder, name, ldm string, in, out int) {
	b.in(name, ldm, "ResnetBlock2D", func() {
		b.groupNorm("norm1", "norm1", in)
		b.conv("conv1", "conv1", out, in, 3, 1, 1)
		b.groupNorm("norm2", "norm2", out)
		b.conv("conv2", "conv2", out, out, 3, 1, 1)
		if in != out {
			b.conv("conv_shortcut", "nin_shortcut", out, in, 1, 1, 0)
		}
	})
}

// vaeMid walks the middle: residual block, one-head attention, residual block. The attention is Linear in diffusers and 1x1
// convolutions in LDM files; its shapes here are diffusers'.
func vaeMid(b *builder, width int) {
	b.in("mid_block", "mid", "UNetMidBlock2D", func() {
		b.in("attentions.0", "attn_1", "Attention", func() {
			b.groupNorm("group_norm", "norm", width)
			b.linear("to_q", "q", width, width, true)
			b.linear("to_k", "k", width, width, true)
			b.linear("to_v", "v", width, width, true)
			b.linear("to_out.0", "proj_out", width, width, true)
		})
		vaeResnet(b, "resnets.0", "block_1", width, width)
		vaeResnet(b, "resnets.1", "block_2", width, width)
	})
}
