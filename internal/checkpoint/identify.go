package checkpoint

import (
	"slices"
	"strings"

	"lycoris/internal/fault"
	"lycoris/internal/tensor"
)

// trains is the second half of every refusal.
const trains = "this version trains Stable Diffusion 1.x"

// adapterMarks are parts of tensor names that only adapters have.
var adapterMarks = []string{".lora_down.", ".lora_up.", ".lora_A.", ".lora_B.", ".lora.down.", ".lora.up.", "_lora.down.", "_lora.up.",
	".hada_w1_", ".lokr_w", ".oft_blocks", ".oft_diag", ".lora_linear_layer.", ".dora_scale"}

// foreign are tensor names, or parts of them, that tell a model of another kind.
var foreign = []struct{ part, what string }{
	{"double_blocks.0.", "is a Flux model"},
	{"joint_blocks.0.", "is a Stable Diffusion 3 model"},
	{"double_layers.0.", "is an AuraFlow model"},
	{"transformer_blocks.0.attn.norm_added_", "is a diffusion transformer (Flux, SD3 or kin)"},
	{"t_embedder.mlp.", "is a diffusion transformer"},
	{"effnet_mapper.", "is a Stable Cascade model"},
	{"down_blocks.0.motion_modules.", "is an AnimateDiff motion module"},
	{"time_stack.", "is a Stable Video Diffusion model"},
	{"control_model.", "is a ControlNet"},
	{"controlnet_cond_embedding.", "is a ControlNet"},
	{"controlnet_down_blocks.", "is a ControlNet"},
	{"ip_adapter.", "is an IP-Adapter"},
	{"string_to_param.", "is a textual-inversion embedding"},
	{"emb_params", "is a textual-inversion embedding"},
}

// identify refuses a single file that isn't a whole SD1.x model, saying what it is. The order follows the reference formats: the marks of
// the larger families come before those that they share with SD1.
func identify(f *tensor.File) error {
	s := &shapes{f: f}
	refuse := func(what string) error { return fault.BadInput(f.Path(), "%s; %s", what, trains) }
	const unet, te0, te1 = "model.diffusion_model.", "conditioner.embedders.0.", "conditioner.embedders.1."
	any := func(match func(string) bool) bool { return slices.ContainsFunc(f.Names(), match) }
	prefix := func(p string) bool { return any(func(n string) bool { return strings.HasPrefix(n, p) }) }
	if len(f.Names()) == 0 {
		return fault.BadInput(f.Path(), "holds no tensors")
	}
	if any(func(n string) bool {
		return slices.ContainsFunc(adapterMarks, func(m string) bool { return strings.Contains(n, m) })
	}) {
		return fault.BadInput(f.Path(), "is an adapter (LoRA or kin), not a base model").
			Advise("--model takes the base; training goes on from an adapter with --network-weights")
	}
	label := unet + "label_emb.0.0.weight"
	switch {
	case s.has("%smodel.transformer.resblocks.9.mlp.c_proj.bias", te1), s.hasDim(label, 1, 2816):
		return refuse(sdxlKind(s, unet))
	case s.has("%smodel.transformer.resblocks.9.mlp.c_proj.bias", te0), s.hasDim(label, 1, 2560):
		return refuse("is an SDXL refiner")
	case prefix("cond_stage_model.model."):
		return refuse("is a Stable Diffusion 2.x model")
	}
	if prefix(unet) {
		switch info, _ := f.Info(unet + "input_blocks.0.0.weight"); {
		case len(info.Shape) != 4:
		case info.Shape[1] == 9:
			return refuse("is an inpainting model")
		case info.Shape[1] == 8:
			return refuse("is an instruct-pix2pix model")
		case info.Shape[1] == 5:
			return refuse("is a depth-to-image model")
		case info.Shape[1] == 7:
			return refuse("is an upscaler")
		}
		if s.hasDim(unet+"input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight", 1, 1024) && !prefix("cond_stage_model.transformer.") {
			return refuse("is a Stable Diffusion 2.x UNet")
		}
		if s.hasDim(unet+"input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight", 1, 2048) {
			return refuse("is an SDXL UNet")
		}
		if s.has("%sinput_blocks.0.0.weight", unet) {
			return incomplete(f, prefix)
		}
	}
	for _, k := range foreign {
		if any(func(n string) bool { return strings.Contains(n, k.part) }) {
			return refuse(k.what)
		}
	}
	switch {
	case s.has("add_embedding.linear_1.weight"):
		return refuse("is an SDXL UNet alone, with diffusers names")
	case s.has("down_blocks.0.resnets.0.conv1.weight") && s.has("conv_in.weight"):
		return fault.BadInput(f.Path(), "is a UNet alone, with diffusers names: the text encoder and the VAE are missing").
			Advise("pass the folder with model_index.json")
	case s.has("encoder.conv_in.weight") && s.has("decoder.conv_in.weight"), prefix("first_stage_model."):
		return fault.BadInput(f.Path(), "is a VAE alone, not a whole model").Advise("pass it as --vae beside --model")
	case s.has("text_model.embeddings.token_embedding.weight"), s.has("embeddings.token_embedding.weight"), prefix("cond_stage_model."):
		return fault.BadInput(f.Path(), "is a text encoder alone, not a whole model")
	case s.has("input_blocks.0.0.weight"), prefix("model_ema.diffusion_model"):
		return fault.BadInput(f.Path(), "is a UNet without its prefix: the text encoder and the VAE are missing")
	case len(f.Names()) <= 4:
		return fault.BadInput(f.Path(), "holds %d tensors (%q, …): an embedding or a part, not a whole model", len(f.Names()), f.Names()[0])
	}
	return fault.BadInput(f.Path(), "is a safetensors file of an unknown kind (%d tensors, the first is %q); %s", len(f.Names()), f.Names()[0], trains)
}

// incomplete refuses a file with an SD1 UNet that lacks one of the other parts.
func incomplete(f *tensor.File, prefix func(string) bool) error {
	var lacks []string
	if !prefix("cond_stage_model.") {
		lacks = append(lacks, "text encoder")
	}
	if !prefix("first_stage_model.") {
		lacks = append(lacks, "VAE")
	}
	if len(lacks) == 0 {
		return nil
	}
	return fault.BadInput(f.Path(), "holds a UNet but no %s", strings.Join(lacks, " and no ")).Advise("pass the whole checkpoint")
}

// sdxlKind tells SDXL base from its pruned kin and its inpainting form.
func sdxlKind(s *shapes, unet string) string {
	switch {
	case !s.has("%soutput_blocks.8.0.in_layers.2.weight", unet) && s.has("%sinput_blocks.0.0.weight", unet),
		s.has("%sinput_blocks.7.1.norm.weight", unet) && !s.has("%sinput_blocks.7.1.transformer_blocks.9.norm1.weight", unet):
		return "is a pruned SDXL model (SSD-1B, Vega or kin)"
	case s.hasDim(unet+"input_blocks.0.0.weight", 1, 9):
		return "is an SDXL inpainting model"
	}
	return "is an SDXL model"
}

// hasDim reports whether a tensor's axis has the size.
func (s *shapes) hasDim(name string, axis, size int) bool {
	info, ok := s.f.Info(s.prefix + name)
	return ok && axis < len(info.Shape) && info.Shape[axis] == size
}
