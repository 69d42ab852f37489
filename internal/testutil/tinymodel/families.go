package tinymodel

import (
	"fmt"
	"strings"

	"lycoris/internal/arch"
	"lycoris/internal/rng"
	"lycoris/internal/tensor"
)

// Family names a small checkpoint of one file with a family's names: sd2 with an OpenCLIP encoder whose projections are fused, sdxl with two encoders. It can't be run, only read.
type Family struct {
	Name  string // "sd2" or "sdxl"
	DType tensor.DType
	Seed  uint64
	EMA   bool // with averages of the UNet, in F32
}

// Tensors returns the checkpoint's tensors: UNet, text encoders, a tensor of a VAE, markers and one that nobody knows.
func (f Family) Tensors() []tensor.Named {
	u := arch.SD2UNet()
	u.BlockOutChannels, u.Attention, u.TransformerDepth, u.Heads = []int{8, 16}, []bool{true, true}, []int{1, 1}, []int{1, 1}
	u.LayersPerBlock, u.NormGroups, u.CrossAttentionDim, u.TimeEmbedDim = 1, 4, 12, 32
	if f.Name == "sdxl" {
		u.Attention, u.TransformerDepth, u.MidDepth, u.CrossAttentionDim, u.AddedInput = []bool{false, true}, []int{1, 2}, 2, 20, 24
	}
	var all []tensor.Named
	add := func(name string, shape ...int) {
		v := make([]float32, tensor.Elems(shape))
		rng.New(f.Seed, "family "+name, 0, 0).FillNormal(v)
		for i := range v {
			v[i] *= 0.1
		}
		all = append(all, tensor.Named{Name: name, Tensor: tensor.FromFloat32(f.DType, shape, v)})
	}
	unet := arch.Params(arch.UNetModules(u))
	for _, p := range unet {
		add("model.diffusion_model."+p.LDM, p.Shape...)
	}
	if f.Name == "sd2" {
		smallCLIP.each(add, "cond_stage_model.model.", 3)
	} else {
		c := arch.CLIPL()
		c.VocabSize, c.Width, c.Intermediate, c.Layers, c.MaxPositions = 10, 8, 16, 2, 7
		for _, p := range arch.Params(arch.CLIPModules(c)) {
			add("conditioner.embedders.0.transformer."+p.Name, p.Shape...)
		}
		smallCLIP.each(add, "conditioner.embedders.1.model.", 2)
	}
	if f.EMA {
		for _, p := range unet {
			v := make([]float32, tensor.Elems(p.Shape))
			rng.New(f.Seed, "average "+p.LDM, 0, 0).FillNormal(v)
			name := "model_ema." + strings.ReplaceAll("diffusion_model."+p.LDM, ".", "")
			all = append(all, tensor.Named{Name: name, Tensor: tensor.FromFloat32(tensor.F32, p.Shape, v)})
		}
	}
	add("first_stage_model.encoder.conv_in.weight", 4, 3, 3, 3)
	add("somebody.elses.values", 5)
	return append(all,
		tensor.Named{Name: "alphas_cumprod", Tensor: tensor.FromFloat32(tensor.F32, []int{3}, []float32{0.9, 0.5, 0.1})},
		tensor.Named{Name: "v_pred", Tensor: tensor.FromFloat32(tensor.F32, []int{0}, nil)},
		tensor.Named{Name: "cond_stage_model.transformer.text_model.embeddings.position_ids", Tensor: tensor.FromInt64([]int{1, 3}, []int64{0, 1, 2})})
}

// openCLIP are the sizes of an encoder with OpenCLIP's names.
type openCLIP struct{ width, inner, tokens, positions int }

var smallCLIP = openCLIP{width: 12, inner: 24, tokens: 10, positions: 7}

// each adds the encoder's tensors.
func (c openCLIP) each(add func(string, ...int), prefix string, layers int) {
	width := c.width
	add(prefix+"token_embedding.weight", c.tokens, width)
	add(prefix+"positional_embedding", c.positions, width)
	add(prefix+"ln_final.weight", width)
	add(prefix+"ln_final.bias", width)
	add(prefix+"text_projection", width, width)
	add(prefix + "logit_scale")
	for i := range layers {
		p := fmt.Sprint(prefix, "transformer.resblocks.", i, ".")
		add(p+"attn.in_proj_weight", 3*width, width)
		add(p+"attn.in_proj_bias", 3*width)
		add(p+"attn.out_proj.weight", width, width)
		add(p+"attn.out_proj.bias", width)
		add(p+"mlp.c_fc.weight", c.inner, width)
		add(p+"mlp.c_fc.bias", c.inner)
		add(p+"mlp.c_proj.weight", width, c.inner)
		add(p+"mlp.c_proj.bias", width)
		for _, norm := range []string{"ln_1", "ln_2"} {
			add(p+norm+".weight", width)
			add(p+norm+".bias", width)
		}
	}
}

// Write writes the checkpoint.
func (f Family) Write(path string) error {
	return tensor.WriteFile(path, f.Tensors(), map[string]string{"modelspec.title": "lycoris tiny " + f.Name})
}
