package convert

import (
	"fmt"
	"slices"
	"strings"

	"lycoris/internal/arch"
	"lycoris/internal/fault"
	"lycoris/internal/modelfile"
	"lycoris/internal/tensor"
)

// ldmPrefix begins the UNet's names in a single file.
const ldmPrefix = "model.diffusion_model."

// textPrefix returns what begins a text encoder's names in a single file of a family, and whether they are OpenCLIP's.
func textPrefix(family, component string) (prefix string, open bool) {
	switch {
	case component == modelfile.TextEncoder2:
		return "conditioner.embedders.1.model.", true
	case component != modelfile.TextEncoder:
		return "", false
	case family == modelfile.SDXL:
		return "conditioner.embedders.0.transformer.", false
	case family == modelfile.SD2:
		return "cond_stage_model.model.", true
	}
	return "cond_stage_model.transformer.", false
}

func layerPrefix(n int) string { return fmt.Sprintf("text_model.encoder.layers.%d.", n) }

func openLayer(prefix string, n int) string {
	return fmt.Sprintf("%stransformer.resblocks.%d.", prefix, n)
}

// oldVAE are the names of the attention's projections in older folders of diffusers.
var oldVAE = strings.NewReplacer(".attentions.0.query.", ".attentions.0.to_q.", ".attentions.0.key.", ".attentions.0.to_k.", ".attentions.0.value.", ".attentions.0.to_v.",
	".attentions.0.proj_attn.", ".attentions.0.to_out.0.")

func newVAEName(name string) string { return oldVAE.Replace(name) }

// vaeShape returns the shape of a VAE's tensor in a single file (ldm) or a folder: the attention's projections are 1x1 convolutions there, Linear here.
func vaeShape(name string, shape []int, ldm bool) []int {
	if !strings.Contains(name, ".attentions.0.to_") || !strings.HasSuffix(name, ".weight") {
		return shape
	}
	switch {
	case ldm && len(shape) == 2:
		return []int{shape[0], shape[1], 1, 1}
	case !ldm && len(shape) == 4 && shape[2] == 1 && shape[3] == 1:
		return shape[:2]
	}
	return shape
}

// vaeOfFile tells the VAE of a single file from its names and shapes, and translates its names; nil where it has none.
func vaeOfFile(path string, f *tensor.File) (*arch.VAEConfig, arch.Names, error) {
	prefix := arch.LDMPrefix(arch.VAE)
	if !slices.ContainsFunc(f.Names(), func(n string) bool { return strings.HasPrefix(n, prefix) }) {
		return nil, arch.Names{}, nil
	}
	shape := func(name string) []int {
		info, _ := f.Info(prefix + name)
		return info.Shape
	}
	block := func(level, i int) string { return fmt.Sprintf("encoder.down.%d.block.%d.conv1.weight", level, i) }
	return vaeFrom(path, shape, block, func(p arch.Param) string { return p.LDM })
}

// vaeOfFolder does the same for a folder.
func vaeOfFolder(m *modelfile.Model) (*arch.VAEConfig, arch.Names, error) {
	shapes := map[string][]int{}
	for _, f := range m.Files() {
		for _, t := range f.Tensors {
			shapes[newVAEName(t.Name)] = t.Shape
		}
	}
	block := func(level, i int) string {
		return fmt.Sprintf("encoder.down_blocks.%d.resnets.%d.conv1.weight", level, i)
	}
	return vaeFrom(m.Path, func(n string) []int { return shapes[n] }, block, func(p arch.Param) string { return p.Name })
}

func vaeFrom(path string, shape func(string) []int, block func(level, i int) string, name func(arch.Param) string) (*arch.VAEConfig, arch.Names, error) {
	c := arch.SDVAE()
	c.BlockOutChannels, c.LayersPerBlock = nil, 0
	for len(shape(block(0, c.LayersPerBlock))) == 4 {
		c.LayersPerBlock++
	}
	for level := 0; len(shape(block(level, 0))) == 4; level++ {
		c.BlockOutChannels = append(c.BlockOutChannels, shape(block(level, 0))[0])
	}
	in, out, z := shape("encoder.conv_in.weight"), shape("decoder.conv_out.weight"), shape("decoder.conv_in.weight")
	if len(c.BlockOutChannels) == 0 || len(in) != 4 || len(out) != 4 || len(z) != 4 {
		return nil, arch.Names{}, fault.BadInput(path, "its VAE is incomplete or of a structure that this version doesn't know").Advise("it knows Stable Diffusion's, with encoder and decoder")
	}
	c.InChannels, c.OutChannels, c.LatentChannels, c.QuantConv = in[1], out[0], z[1], shape("quant_conv.weight") != nil
	modules := arch.VAEModules(c)
	for _, p := range arch.Params(modules) {
		if got := shape(name(p)); got == nil || tensor.Elems(got) != tensor.Elems(p.Shape) || got[0] != p.Shape[0] {
			return nil, arch.Names{}, fault.BadInput(path, "its VAE's tensor %q has shape %v, want %v", name(p), got, p.Shape).
				Advise("the file is incomplete, or its VAE of a structure that this version doesn't know")
		}
	}
	return &c, arch.NewNames(arch.VAE, modules), nil
}
