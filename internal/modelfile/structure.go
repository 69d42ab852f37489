package modelfile

import (
	"fmt"

	"lycoris/internal/arch"
	"lycoris/internal/fault"
)

// header looks at the tensors of one component: names are asked for without the component's prefix.
type header struct {
	path  string // for messages
	shape func(name string) []int
}

func (h header) has(format string, args ...any) bool {
	return h.shape(fmt.Sprintf(format, args...)) != nil
}

// count returns how many of the names before0after, before1after, … there are without a gap.
func (h header) count(before, after string) int {
	n := 0
	for h.has("%s%d%s", before, n, after) {
		n++
	}
	return n
}

// dim returns the size of an axis, 0 where there is none.
func (h header) dim(axis int, format string, args ...any) int {
	if s := h.shape(fmt.Sprintf(format, args...)); axis < len(s) {
		return s[axis]
	}
	return 0
}

// scheme is how a UNet's tensors are called: what tells its structure.
type scheme struct {
	convIn, convOut, time, added string
	resnet                       func(level, block, perLevel int) string // residual block of the down path, without .in_layers.2 and the like
	conv1, conv2                 string                                  // its convolutions
	attention                    func(level, block, perLevel int) string
	mid                          string // transformer of the middle
}

var ldmScheme = scheme{
	convIn: "input_blocks.0.0", convOut: "out.2", time: "time_embed.0", added: "label_emb.0.0", conv1: "in_layers.2", conv2: "out_layers.3", mid: "middle_block.1",
	resnet:    func(level, block, n int) string { return fmt.Sprintf("input_blocks.%d.0", 1+(n+1)*level+block) },
	attention: func(level, block, n int) string { return fmt.Sprintf("input_blocks.%d.1", 1+(n+1)*level+block) },
}

var diffusersScheme = scheme{
	convIn: "conv_in", convOut: "conv_out", time: "time_embedding.linear_1", added: "add_embedding.linear_1", conv1: "conv1", conv2: "conv2", mid: "mid_block.attentions.0",
	resnet:    func(level, block, _ int) string { return fmt.Sprintf("down_blocks.%d.resnets.%d", level, block) },
	attention: func(level, block, _ int) string { return fmt.Sprintf("down_blocks.%d.attentions.%d", level, block) },
}

// unetStructure tells a UNet from the names and shapes of its tensors: levels, blocks and transformers are counted, widths read.
func unetStructure(h header, s scheme) (arch.UNetConfig, error) {
	c := arch.SD15UNet()
	c.BlockOutChannels, c.Attention, c.TransformerDepth, c.Heads = nil, nil, nil, nil
	c.InChannels, c.OutChannels = h.dim(1, "%s.weight", s.convIn), h.dim(0, "%s.weight", s.convOut)
	c.TimeEmbedDim, c.AddedInput = h.dim(0, "%s.weight", s.time), h.dim(1, "%s.weight", s.added)
	for perLevel := 1; ; perLevel++ { // LDM's numbers depend on the blocks per level: the first count at which level 0 ends
		if !h.has("%s.%s.weight", s.resnet(0, perLevel, perLevel), s.conv1) {
			c.LayersPerBlock = perLevel
			break
		}
	}
	n := c.LayersPerBlock
	for level := 0; h.has("%s.%s.weight", s.resnet(level, 0, n), s.conv1); level++ {
		depth := 0
		for block := range n {
			if !h.has("%s.%s.weight", s.resnet(level, block, n), s.conv1) {
				return c, unknownUNet(h.path)
			}
			d := h.count(s.attention(level, block, n)+".transformer_blocks.", ".norm1.weight")
			if block > 0 && d != depth {
				return c, unknownUNet(h.path)
			}
			depth = d
		}
		c.BlockOutChannels = append(c.BlockOutChannels, h.dim(0, "%s.%s.weight", s.resnet(level, 0, n), s.conv2))
		c.Attention, c.TransformerDepth, c.Heads = append(c.Attention, depth > 0), append(c.TransformerDepth, max(depth, 1)), append(c.Heads, 1)
	}
	c.MidDepth = h.count(s.mid+".transformer_blocks.", ".norm1.weight")
	c.CrossAttentionDim = h.dim(1, "%s.transformer_blocks.0.attn2.to_k.weight", s.mid)
	c.LinearProjection = len(h.shape(s.mid+".proj_in.weight")) == 2
	if c.Levels() == 0 || c.MidDepth == 0 || c.InChannels == 0 || c.TimeEmbedDim == 0 {
		return c, unknownUNet(h.path)
	}
	return c, nil
}

func unknownUNet(path string) error {
	return fault.BadInput(path, "its UNet is of a structure that this version doesn't know").Advise("it knows Stable Diffusion 1.x, 2.x and XL")
}

// textModules returns the modules of a text encoder of so many layers; shapes come from the file later.
func textModules(layers int) []arch.Module {
	c := arch.CLIPL()
	c.Layers = layers
	return arch.CLIPModules(c)
}
