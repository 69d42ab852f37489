package arch

import (
	"fmt"
	"slices"
)

// UNetConfig describes a UNet2DConditionModel. Levels are numbered as its down blocks; up block i works at level len-1-i.
type UNetConfig struct {
	InChannels, OutChannels int
	BlockOutChannels        []int  // per level
	LayersPerBlock          int    // residual blocks per down block; up blocks have one more
	Attention               []bool // per level: the down block and the up block there have transformers
	TransformerDepth        []int  // per level: transformer blocks in each of its transformers
	MidDepth                int    // the same for the middle
	Heads                   []int  // attention heads per level; config.json calls it attention_head_dim
	MidHeads                int
	CrossAttentionDim       int     // width of the text states
	LinearProjection        bool    // proj_in and proj_out are Linear (SD2, SDXL), not 1x1 convolutions (SD1)
	NormGroups              int     // of every group norm
	NormEps                 float64 // of the residual blocks and conv_norm_out; transformers use TransformerNormEps
	FlipSinToCos            bool    // time sinusoids: cosines first
	FreqShift               float64 // time sinusoids: frequency i is 10000^(-i/(C/2-FreqShift))
	TimeEmbedDim            int     // width of the time embedding, 4 times the first level's
	AddedInput              int     // width of the added condition (SDXL: 2816), 0 = none
	AddedTimeDim            int     // width of each of its size sinusoids (SDXL: 256)
}

// TransformerNormEps is the epsilon of the group norm before a transformer, whatever the config says.
const TransformerNormEps = 1e-6

// SD15UNet returns the UNet of Stable Diffusion 1.x.
func SD15UNet() UNetConfig {
	return UNetConfig{
		InChannels: 4, OutChannels: 4, BlockOutChannels: []int{320, 640, 1280, 1280}, LayersPerBlock: 2,
		Attention: []bool{true, true, true, false}, TransformerDepth: []int{1, 1, 1, 1}, MidDepth: 1,
		Heads: []int{8, 8, 8, 8}, MidHeads: 8, CrossAttentionDim: 768, NormGroups: 32, NormEps: 1e-5, FlipSinToCos: true, TimeEmbedDim: 1280,
	}
}

// SD2UNet returns the UNet of Stable Diffusion 2.x.
func SD2UNet() UNetConfig {
	c := SD15UNet()
	c.Heads, c.MidHeads, c.CrossAttentionDim, c.LinearProjection = []int{5, 10, 20, 20}, 20, 1024, true
	return c
}

// SDXLUNet returns the UNet of Stable Diffusion XL base.
func SDXLUNet() UNetConfig {
	return UNetConfig{
		InChannels: 4, OutChannels: 4, BlockOutChannels: []int{320, 640, 1280}, LayersPerBlock: 2,
		Attention: []bool{false, true, true}, TransformerDepth: []int{1, 2, 10}, MidDepth: 10,
		Heads: []int{5, 10, 20}, MidHeads: 20, CrossAttentionDim: 2048, LinearProjection: true, NormGroups: 32, NormEps: 1e-5,
		FlipSinToCos: true, TimeEmbedDim: 1280, AddedInput: 2816, AddedTimeDim: 256,
	}
}

// Levels returns the number of resolutions.
func (c UNetConfig) Levels() int { return len(c.BlockOutChannels) }

// UpChannels gives the sizes of the residual blocks of up block i: block j maps in[j] channels (what comes up, then the skip
// connection) to out.
func (c UNetConfig) UpChannels(i int) (in []int, out int) {
	level := c.Levels() - 1 - i
	out = c.BlockOutChannels[level]
	before := out // channels that come from below
	if i > 0 {
		before = c.BlockOutChannels[level+1]
	}
	skip := c.BlockOutChannels[max(level-1, 0)] // of the last block: what the level above handed down
	in = make([]int, c.LayersPerBlock+1)
	for j := range in {
		in[j] = 2 * out
		if j == 0 {
			in[j] = before + out
		}
	}
	in[c.LayersPerBlock] += skip - out
	return in, out
}

// UNetModules lists the modules of the UNet in diffusers' order: conv_in, embeddings, down blocks, up blocks, middle, output.
func UNetModules(c UNetConfig) []Module {
	b := &builder{}
	b.in("", "", "UNet2DConditionModel", func() { unetModules(b, c) })
	return b.modules
}

func unetModules(b *builder, c UNetConfig) {
	first, levels := c.BlockOutChannels[0], c.Levels()
	b.conv("conv_in", "input_blocks.0.0", first, c.InChannels, 3, 1, 1)
	b.in("time_embedding", "time_embed", "TimestepEmbedding", func() {
		b.linear("linear_1", "0", c.TimeEmbedDim, first, true)
		b.linear("linear_2", "2", c.TimeEmbedDim, c.TimeEmbedDim, true)
	})
	if c.AddedInput > 0 {
		b.in("add_embedding", "label_emb.0", "TimestepEmbedding", func() {
			b.linear("linear_1", "0", c.TimeEmbedDim, c.AddedInput, true)
			b.linear("linear_2", "2", c.TimeEmbedDim, c.TimeEmbedDim, true)
		})
	}
	for i, out := range c.BlockOutChannels {
		in := c.BlockOutChannels[max(i-1, 0)]
		unetBlock(b, c, "down", i, func() {
			ldm := func(j, k int) string { return fmt.Sprintf("input_blocks.%d.%d", 1+(c.LayersPerBlock+1)*i+j, k) }
			unetAttentions(b, c, i, c.LayersPerBlock, ldm)
			for j := range c.LayersPerBlock {
				unetResnet(b, c, fmt.Sprint("resnets.", j), ldm(j, 0), in, out)
				in = out
			}
			if i < levels-1 {
				b.in("downsamplers.0", ldm(c.LayersPerBlock, 0), "Downsample2D", func() { b.conv("conv", "op", out, out, 3, 2, 1) })
			}
		})
	}
	for i := range levels {
		level := levels - 1 - i
		unetBlock(b, c, "up", i, func() {
			ldm := func(j, k int) string { return fmt.Sprintf("output_blocks.%d.%d", (c.LayersPerBlock+1)*i+j, k) }
			in, out := c.UpChannels(i)
			unetAttentions(b, c, level, c.LayersPerBlock+1, ldm)
			for j := range in {
				unetResnet(b, c, fmt.Sprint("resnets.", j), ldm(j, 0), in[j], out)
			}
			if level > 0 {
				k := 1 // the upsampler comes after the transformer, where there is one
				if c.Attention[level] {
					k = 2
				}
				b.in("upsamplers.0", ldm(c.LayersPerBlock, k), "Upsample2D", func() { b.conv("conv", "conv", out, out, 3, 1, 1) })
			}
		})
	}
	last := c.BlockOutChannels[levels-1]
	b.in("mid_block", "middle_block", "UNetMidBlock2DCrossAttn", func() {
		unetTransformer(b, c, "attentions.0", "1", last, c.MidDepth)
		unetResnet(b, c, "resnets.0", "0", last, last)
		unetResnet(b, c, "resnets.1", "2", last, last)
	})
	b.groupNorm("conv_norm_out", "out.0", first)
	b.conv("conv_out", "out.2", c.OutChannels, first, 3, 1, 1)
}

// unetBlock walks down or up block i under its class.
func unetBlock(b *builder, c UNetConfig, dir string, i int, walk func()) {
	level, class := i, "DownBlock2D"
	if dir == "up" {
		level, class = c.Levels()-1-i, "UpBlock2D"
	}
	if c.Attention[level] {
		class = "CrossAttn" + class
	}
	b.in(fmt.Sprintf("%s_blocks.%d", dir, i), "", class, walk)
}

func unetAttentions(b *builder, c UNetConfig, level, n int, ldm func(j, k int) string) {
	if !c.Attention[level] {
		return
	}
	for j := range n {
		unetTransformer(b, c, fmt.Sprint("attentions.", j), ldm(j, 1), c.BlockOutChannels[level], c.TransformerDepth[level])
	}
}

func unetResnet(b *builder, c UNetConfig, name, ldm string, in, out int) {
	b.in(name, ldm, "ResnetBlock2D", func() {
		b.groupNorm("norm1", "in_layers.0", in)
		b.conv("conv1", "in_layers.2", out, in, 3, 1, 1)
		b.linear("time_emb_proj", "emb_layers.1", out, c.TimeEmbedDim, true)
		b.groupNorm("norm2", "out_layers.0", out)
		b.conv("conv2", "out_layers.3", out, out, 3, 1, 1)
		if in != out {
			b.conv("conv_shortcut", "skip_connection", out, in, 1, 1, 0)
		}
	})
}

// unetTransformer walks a Transformer2DModel; names inside are the same in both schemes.
func unetTransformer(b *builder, c UNetConfig, name, ldm string, width, depth int) {
	b.in(name, ldm, "Transformer2DModel", func() {
		project := func(name string) {
			if c.LinearProjection {
				b.linear(name, name, width, width, true)
			} else {
				b.conv(name, name, width, width, 1, 1, 0)
			}
		}
		b.groupNorm("norm", "norm", width)
		project("proj_in")
		for k := range depth {
			block := fmt.Sprint("transformer_blocks.", k)
			b.in(block, block, "BasicTransformerBlock", func() {
				b.layerNorm("norm1", "norm1", width)
				unetAttention(b, "attn1", width, width)
				b.layerNorm("norm2", "norm2", width)
				unetAttention(b, "attn2", width, c.CrossAttentionDim)
				b.layerNorm("norm3", "norm3", width)
				b.in("ff", "ff", "FeedForward", func() {
					b.in("net.0", "net.0", "GEGLU", func() { b.linear("proj", "proj", 8*width, width, true) })
					b.linear("net.2", "net.2", width, 4*width, true)
				})
			})
		}
		project("proj_out")
	})
}

func unetAttention(b *builder, name string, width, context int) {
	b.in(name, name, "Attention", func() {
		b.linear("to_q", "to_q", width, width, false)
		b.linear("to_k", "to_k", width, context, false)
		b.linear("to_v", "to_v", width, context, false)
		b.linear("to_out.0", "to_out.0", width, width, true)
	})
}

// HasAttention reports whether any level has transformers.
func (c UNetConfig) HasAttention() bool { return slices.Contains(c.Attention, true) }
