package modelfile

import (
	"fmt"
	"strings"

	"lycoris/internal/arch"
	"lycoris/internal/fault"
)

const (
	ldmUNet  = "model.diffusion_model."
	hfText   = "cond_stage_model.transformer."
	openText = "cond_stage_model.model."
	xlText   = "conditioner.embedders.0.transformer."
	xlText2  = "conditioner.embedders.1.model."
)

// openSingle opens a checkpoint of one file, or a UNet alone.
func (m *Model) openSingle() error {
	f, err := m.open(m.Path, "")
	if err != nil {
		return err
	}
	if err := identify(f); err != nil {
		return err
	}
	prefix, s, names := ldmUNet, ldmScheme, ldmNames
	m.LDM = true
	switch {
	case f.has(ldmUNet + "input_blocks.0.0.weight"):
	case f.has("input_blocks.0.0.weight"):
		prefix = ""
	case f.has("conv_in.weight"):
		prefix, s, names, m.LDM = "", diffusersScheme, pathNames, false
	}
	unet := newTables(prefix, f)
	m.Family = familyOf(f, unet.header(m.Path), s)
	if err := m.bindUNet(unet, s, names); err != nil {
		return err
	}
	for _, t := range []struct {
		component, prefix string
		layers            func(header) int
		names             namer
	}{
		{TextEncoder, hfText, hfLayers, pathNames}, {TextEncoder, openText, openLayers, openCLIPNames},
		{TextEncoder, xlText, hfLayers, pathNames}, {TextEncoder2, xlText2, openLayers, openCLIPNames},
	} {
		tt := newTables(t.prefix, f)
		layers := t.layers(tt.header(m.Path))
		if layers == 0 {
			continue
		}
		if err := m.bind(t.component, textModules(layers), t.names, tt); err != nil {
			return err
		}
	}
	m.markRest(f)
	return nil
}

// hfLayers and openLayers count the layers of a text encoder in transformers' and in OpenCLIP's names.
func hfLayers(h header) int {
	return max(h.count("text_model.encoder.layers.", ".mlp.fc1.weight"), h.count("encoder.layers.", ".mlp.fc1.weight"))
}
func openLayers(h header) int { return h.count("transformer.resblocks.", ".mlp.c_fc.weight") }

// bindUNet finds the UNet's modules.
func (m *Model) bindUNet(tt *tables, s scheme, names namer) error {
	h := tt.header(m.Path)
	var err error
	if m.Structure, err = unetStructure(h, s); err != nil {
		return err
	}
	m.Channels = h.dim(1, "%s.weight", s.convIn)
	return m.bind(UNet, arch.UNetModules(m.Structure), names, tt)
}

// markRest gives the tensors without a module their roles.
func (m *Model) markRest(f *File) {
	average := map[string]Part{}
	for _, mod := range m.modules[UNet] {
		for _, param := range paramsOf(mod) {
			p := Part{UNet, mod.Path, param, [2]int{0, mod.Shape[0]}}
			average[emaName(mod.LDM+"."+param)] = p
		}
	}
	for i := range f.Tensors {
		t := &f.Tensors[i]
		if t.Role == Module {
			continue
		}
		t.Role = roleOf(t.Name)
		if p, ok := average[t.Name]; ok && t.Role == EMA {
			t.EMA = p
		}
	}
}

func (f *File) has(name string) bool { return f.file.Has(name) }

func (f *File) any(match func(string) bool) bool {
	for i := range f.Tensors {
		if match(f.Tensors[i].Name) {
			return true
		}
	}
	return false
}

func (f *File) dim(name string, axis int) int {
	if info, ok := f.file.Info(name); ok && axis < len(info.Shape) {
		return info.Shape[axis]
	}
	return 0
}

// familyOf tells the family from the text encoders, else from the UNet: its added condition, the width of the text states, the form of its projections.
func familyOf(f *File, unet header, s scheme) string {
	prefix := func(p string) bool { return f.any(func(n string) bool { return strings.HasPrefix(n, p) }) }
	switch {
	case prefix("conditioner.embedders."), unet.has("%s.weight", s.added):
		return SDXL
	case prefix(openText):
		return SD2
	case prefix("cond_stage_model."):
		return SD1
	}
	switch unet.dim(1, "%s.transformer_blocks.0.attn2.to_k.weight", s.mid) {
	case 768:
		return SD1
	case 1024:
		return SD2
	}
	if len(unet.shape(s.mid+".proj_in.weight")) == 2 {
		return SD2
	}
	return SD1
}

// adapterMarks are parts of names that only adapters have.
var adapterMarks = []string{".lora_down.", ".lora_up.", ".lora_A.", ".lora_B.", ".lora.down.", ".lora.up.", "_lora.down.", "_lora.up.", ".hada_w1_", ".lokr_w", ".oft_blocks", ".oft_diag", ".dora_scale"}

// foreign are parts of names that tell a model of another kind.
var foreign = []struct{ part, what string }{
	{"double_blocks.0.", "a Flux model"}, {"joint_blocks.0.", "a Stable Diffusion 3 model"}, {"double_layers.0.", "an AuraFlow model"},
	{"transformer_blocks.0.attn.norm_added_", "a diffusion transformer (Flux, SD3 or kin)"}, {"t_embedder.mlp.", "a diffusion transformer"}, {"effnet_mapper.", "a Stable Cascade model"},
	{"motion_modules.", "an AnimateDiff motion module"}, {"time_stack.", "a Stable Video Diffusion model"}, {"control_model.", "a ControlNet"}, {"controlnet_cond_embedding.", "a ControlNet"},
	{"controlnet_down_blocks.", "a ControlNet"}, {"ip_adapter.", "an IP-Adapter"}, {"string_to_param.", "a textual-inversion embedding"}, {"emb_params", "a textual-inversion embedding"},
}

const serves = "the tools work on Stable Diffusion 1.x, 2.x and XL"

// identify refuses a file that is no base model of a known family, saying what it is.
func identify(f *File) error {
	if len(f.Tensors) == 0 {
		return fault.BadInput(f.Path, "holds no tensors").Advise("pass a base model: a .safetensors file or a diffusers folder")
	}
	if f.any(func(n string) bool {
		for _, mark := range adapterMarks {
			if strings.Contains(n, mark) {
				return true
			}
		}
		return false
	}) {
		return fault.BadInput(f.Path, "is an adapter (LoRA or kin), not a base model").Advise("the base goes to --model, adapters to --adapter")
	}
	for _, k := range foreign {
		if f.any(func(n string) bool { return strings.Contains(n, k.part) }) {
			return fault.BadInput(f.Path, "is %s, not supported", k.what).Advise(serves)
		}
	}
	label := f.dim(ldmUNet+"label_emb.0.0.weight", 1)
	if label == 2560 || !f.any(func(n string) bool { return strings.HasPrefix(n, "conditioner.embedders.1.") }) &&
		f.any(func(n string) bool { return strings.HasPrefix(n, "conditioner.embedders.0.model.") }) {
		return fault.BadInput(f.Path, "is an SDXL refiner, not supported").Advise(serves)
	}
	if label == 2816 && (!f.has(ldmUNet+"output_blocks.8.0.in_layers.2.weight") || !f.has(ldmUNet+"input_blocks.7.1.transformer_blocks.9.norm1.weight")) {
		return fault.BadInput(f.Path, "is a pruned SDXL model (SSD-1B, Vega or kin), not supported").Advise(serves)
	}
	for _, name := range []string{ldmUNet + "input_blocks.0.0.weight", "input_blocks.0.0.weight", "conv_in.weight"} {
		if f.has(name) && !f.has("encoder.conv_in.weight") {
			return nil
		}
	}
	what := fmt.Sprintf("of an unknown kind (%d tensors, the first is %q)", len(f.Tensors), f.Tensors[0].Name)
	switch {
	case f.has("encoder.conv_in.weight") && f.has("decoder.conv_in.weight"), f.any(func(n string) bool { return strings.HasPrefix(n, "first_stage_model.") }):
		what = "a VAE alone: it has no UNet"
	case f.has("text_model.embeddings.token_embedding.weight"), f.has("embeddings.token_embedding.weight"):
		what = "a text encoder alone: it has no UNet"
	}
	return fault.BadInput(f.Path, "is %s", what).Advise("pass a base model: a .safetensors file or a diffusers folder")
}
