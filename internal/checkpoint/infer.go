package checkpoint

import (
	"fmt"
	"strings"

	"lycoris/internal/arch"
	"lycoris/internal/fault"
	"lycoris/internal/tensor"
)

// Sizes of a single file's parts from the shapes of its tensors. What shapes can't tell is SD1's: 8 heads in the UNet, 64 channels a head in
// the text encoder, 32 norm groups, scaling factor 0.18215.

// shapes looks at the tensors of one component.
type shapes struct {
	f      *tensor.File
	prefix string
	err    error
}

// dim returns the size of an axis of a tensor; 0, remembering what is missing, if there is none.
func (s *shapes) dim(name string, axis int) int {
	info, ok := s.f.Info(s.prefix + name)
	if !ok || axis >= len(info.Shape) {
		if s.err == nil {
			s.err = fault.BadInput(s.f.Path(), "tensor %q, which tells the model's size, is missing or misshapen", s.prefix+name)
		}
		return 0
	}
	return info.Shape[axis]
}

func (s *shapes) has(format string, args ...any) bool {
	return s.f.Has(s.prefix + fmt.Sprintf(format, args...))
}

// count returns how many of the names format%0, format%1, … there are without a gap.
func (s *shapes) count(format string, args ...any) int {
	n := 0
	for s.has(format, append(args, n)...) {
		n++
	}
	return n
}

// infer sets the config of component c from f.
func (m *Model) infer(c arch.Component, f *tensor.File) error {
	s := &shapes{f: f, prefix: arch.LDMPrefix(c)}
	var err error
	switch c {
	case arch.UNet:
		m.UNet, err = s.unet()
	case arch.TextEncoder:
		m.Text = s.text()
	case arch.VAE:
		m.VAE, err = s.vae(ldmVAE)
	}
	if s.err != nil {
		return s.err
	}
	return err
}

func (s *shapes) unet() (arch.UNetConfig, error) {
	c := arch.SD15UNet()
	c.BlockOutChannels, c.Attention, c.TransformerDepth, c.Heads = nil, nil, nil, nil
	c.InChannels, c.OutChannels = s.dim("input_blocks.0.0.weight", 1), s.dim("out.2.weight", 0)
	c.TimeEmbedDim = s.dim("time_embed.0.weight", 0)
	blocks := 0
	for k := 1; ; k++ {
		if s.has("input_blocks.%d.0.in_layers.2.weight", k) {
			blocks++
			depth := s.count(fmt.Sprintf("input_blocks.%d.1.transformer_blocks.%%d.norm1.weight", k))
			if blocks == 1 {
				c.BlockOutChannels = append(c.BlockOutChannels, s.dim(fmt.Sprintf("input_blocks.%d.0.out_layers.3.weight", k), 0))
				c.Attention = append(c.Attention, depth > 0)
				c.TransformerDepth = append(c.TransformerDepth, max(depth, 1))
			}
			continue
		}
		if len(c.BlockOutChannels) <= 1 {
			c.LayersPerBlock = blocks
		}
		if blocks == 0 || blocks != c.LayersPerBlock {
			return c, fault.BadInput(s.f.Path(), "the UNet has %d residual blocks at level %d, %d at level 0; this version needs the same number everywhere",
				blocks, max(len(c.BlockOutChannels)-1, 0), c.LayersPerBlock)
		}
		if !s.has("input_blocks.%d.0.op.weight", k) {
			break
		}
		blocks = 0
	}
	c.MidDepth = s.count("middle_block.1.transformer_blocks.%d.norm1.weight")
	c.CrossAttentionDim = s.dim("middle_block.1.transformer_blocks.0.attn2.to_k.weight", 1)
	if info, ok := s.f.Info(s.prefix + "middle_block.1.proj_in.weight"); ok {
		c.LinearProjection = len(info.Shape) == 2
	}
	for _, n := range c.BlockOutChannels {
		c.Heads = append(c.Heads, c.MidHeads)
		if err := s.divisible("UNet", n, c.NormGroups); err != nil {
			return c, err
		}
	}
	return c, nil
}

func (s *shapes) divisible(part string, channels, groups int) error {
	if s.err != nil || channels > 0 && channels%groups == 0 {
		return nil
	}
	return fault.BadInput(s.f.Path(), "the %s has %d channels, which can't be split into the %d norm groups of SD1", part, channels, groups).
		Advise("a model of other sizes says its configuration: a diffusers folder, or the metadata key %q", ConfigKey)
}

func (s *shapes) text() arch.CLIPConfig {
	if s.has("text_model.embeddings.token_embedding.weight") || !s.has("embeddings.token_embedding.weight") {
		s.prefix += "text_model." // else a file without that level
	}
	c := arch.CLIPL()
	c.VocabSize, c.Width = s.dim("embeddings.token_embedding.weight", 0), s.dim("embeddings.token_embedding.weight", 1)
	c.MaxPositions = s.dim("embeddings.position_embedding.weight", 0)
	c.Intermediate = s.dim("encoder.layers.0.mlp.fc1.weight", 0)
	c.Layers = s.count("encoder.layers.%d.mlp.fc1.weight")
	c.Heads = max(c.Width/64, 1)
	if c.Width%c.Heads != 0 && s.err == nil {
		s.err = fault.BadInput(s.f.Path(), "the text encoder has %d channels, which can't be split into heads of 64", c.Width).
			Advise("a model of other sizes says its configuration: a diffusers folder, or the metadata key %q", ConfigKey)
	}
	return c
}

// vaeNames are the names that tell a VAE's size, with places for the level and the block.
type vaeNames struct{ block, down string }

var (
	ldmVAE       = vaeNames{"encoder.down.%d.block.%d.conv2.weight", "encoder.down.%d.downsample.conv.weight"}
	diffusersVAE = vaeNames{"encoder.down_blocks.%d.resnets.%d.conv2.weight", "encoder.down_blocks.%d.downsamplers.0.conv.weight"}
)

func (s *shapes) vae(n vaeNames) (arch.VAEConfig, error) {
	c := arch.SDVAE()
	c.BlockOutChannels = nil
	c.InChannels, c.OutChannels = s.dim("encoder.conv_in.weight", 1), s.dim("decoder.conv_out.weight", 0)
	c.LatentChannels = s.dim("decoder.conv_in.weight", 1)
	c.QuantConv = s.has("quant_conv.weight")
	for level := 0; s.has(n.block, level, 0); level++ {
		c.BlockOutChannels = append(c.BlockOutChannels, s.dim(fmt.Sprintf(n.block, level, 0), 0))
		layers := s.count(strings.Replace(n.block, "%d", fmt.Sprint(level), 1))
		if level == 0 {
			c.LayersPerBlock = layers
		}
		if layers != c.LayersPerBlock {
			return c, fault.BadInput(s.f.Path(), "the VAE has %d residual blocks at level %d, %d at level 0; this version needs the same number everywhere", layers, level, c.LayersPerBlock)
		}
		if err := s.divisible("VAE", c.BlockOutChannels[level], c.NormGroups); err != nil {
			return c, err
		}
	}
	if len(c.BlockOutChannels) == 0 {
		s.dim(fmt.Sprintf(n.block, 0, 0), 0)
	}
	return c, nil
}
