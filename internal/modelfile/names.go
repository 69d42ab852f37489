package modelfile

import (
	"strings"

	"lycoris/internal/arch"
)

// location is where a file may have a parameter: its name, and which of how many equal parts of its rows.
type location struct {
	name     string
	part, of int // of 0: all rows
}

// namer gives the locations at which a parameter of a module may be, the likeliest first; names are without the component's prefix.
type namer func(m arch.Module, param string) []location

func ldmNames(m arch.Module, param string) []location { return []location{{name: m.LDM + "." + param}} }

func pathNames(m arch.Module, param string) []location {
	name := m.Path + "." + param
	return []location{{name: name}, {name: strings.TrimPrefix(name, "text_model.")}} // transformers 5 and some old merges lack the level
}

// openCLIPLayer are the parts of a layer in OpenCLIP's names.
var openCLIPLayer = map[string]location{
	"self_attn.q_proj": {name: "attn.in_proj", part: 0, of: 3}, "self_attn.k_proj": {name: "attn.in_proj", part: 1, of: 3}, "self_attn.v_proj": {name: "attn.in_proj", part: 2, of: 3},
	"self_attn.out_proj": {name: "attn.out_proj"}, "layer_norm1": {name: "ln_1"}, "layer_norm2": {name: "ln_2"}, "mlp.fc1": {name: "mlp.c_fc"}, "mlp.fc2": {name: "mlp.c_proj"},
}

// openCLIPTop are the modules outside the layers; the position table has no ".weight".
var openCLIPTop = map[string]string{
	"text_model.embeddings.token_embedding.weight": "token_embedding.weight", "text_model.embeddings.position_embedding.weight": "positional_embedding",
	"text_model.final_layer_norm.weight": "ln_final.weight", "text_model.final_layer_norm.bias": "ln_final.bias",
}

// openCLIPNames: text_model.encoder.layers.3.mlp.fc1 is transformer.resblocks.3.mlp.c_fc (the reference formats, 2.3).
func openCLIPNames(m arch.Module, param string) []location {
	if name, ok := openCLIPTop[m.Path+"."+param]; ok {
		return []location{{name: name}}
	}
	rest, ok := strings.CutPrefix(m.Path, "text_model.encoder.layers.")
	layer, inner, _ := strings.Cut(rest, ".")
	l, known := openCLIPLayer[inner]
	if !ok || !known {
		return nil
	}
	l.name = "transformer.resblocks." + layer + "." + l.name
	if l.of > 0 {
		l.name += "_" + param
	} else {
		l.name += "." + param
	}
	return []location{l}
}

// OpenCLIPName returns OpenCLIP's name for a parameter of a text encoder, without a prefix, and which of how many equal parts of that tensor's rows it is (of 0: all). ok is false for
// what OpenCLIP has no name for.
func OpenCLIPName(path, param string) (name string, part, of int, ok bool) {
	for _, at := range openCLIPNames(arch.Module{Path: path}, param) {
		return at.name, at.part, at.of, true
	}
	return "", 0, 0, false
}

// emaName is what LDM calls the running average of the UNet's tensor with the LDM name: dots are removed.
func emaName(ldm string) string {
	return "model_ema." + strings.ReplaceAll("diffusion_model."+ldm, ".", "")
}

// markers are names, or ends of names, of tensors that hold something other than a layer's values.
var markers = []string{"betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod", "log_one_minus_alphas_cumprod",
	"sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod", "posterior_variance", "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2", "logvar",
	"denoiser.sigmas", "v_pred", "ztsnr", "edm_vpred.sigma_max", "edm_vpred.sigma_min", "edm_mean", "edm_std", "global_step", "model_ema.decay", "model_ema.num_updates", "lvlb_weights",
	".position_ids", ".logit_scale", ".text_projection", ".text_projection.weight", "position_ids", "logit_scale", "text_projection.weight", ".attn_mask"}

// roleOf says what a tensor is that belongs to no module.
func roleOf(name string) Role {
	for _, m := range markers {
		if name == m || m[0] == '.' && strings.HasSuffix(name, m) {
			return Marker
		}
	}
	switch {
	case strings.HasPrefix(name, "first_stage_model."), strings.HasPrefix(name, "vae."):
		return VAE
	case strings.HasPrefix(name, "model_ema."):
		return EMA
	}
	return Unknown
}
