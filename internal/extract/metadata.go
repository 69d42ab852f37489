package extract

import (
	"encoding/json"
	"path/filepath"
	"strconv"
	"strings"

	"lycoris/internal/adapter"
)

// specs are what metadata say of a family: kohya's name, the architecture and the size of pictures.
var specs = map[string]struct{ version, v2, architecture, implementation, resolution string }{
	"sd1":  {"sd_v1", "False", "stable-diffusion-v1", "diffusers", "512x512"},
	"sd2":  {"sd_v2", "True", "stable-diffusion-v2-512", "diffusers", "512x512"},
	"sdxl": {"sdxl_base_v1-0", "False", "stable-diffusion-xl-v1-base", "https://github.com/Stability-AI/generative-models", "1024x1024"},
}

// Metadata returns what the adapter says of itself, by sd-scripts' and modelspec's keys: family, form, names of what it was made of. Nothing in it depends on the time.
func Metadata(r *Report, base, tuned *Model, o Options, output string) map[string]string {
	spec := specs[base.Family]
	prediction := tuned.Prediction
	if prediction == "" {
		prediction = base.Prediction
	}
	if prediction == "v_prediction" {
		switch base.Family {
		case "sd1":
			spec.version = "sd_v1_v"
		case "sd2":
			spec.version, spec.architecture, spec.resolution = "sd_v2_v", "stable-diffusion-v2-768-v", "768x768"
		}
	}
	algorithm := o.Algorithm
	if algorithm == "locon" {
		algorithm = "lora"
	}
	args := map[string]string{}
	module, dim := "networks.lora", r.rank(false)
	if conv := r.rank(true); algorithm != "lora" || conv != "" || r.hasNorms() {
		module, args["algo"] = "lycoris.kohya", algorithm
		if conv != "" {
			args["conv_dim"], args["conv_alpha"] = conv, conv
		}
	}
	if dim == "" {
		dim = "0"
	}
	alpha := dim
	if algorithm == "diag-oft" {
		alpha = "0" // the constraint
	}
	name := adapter.CleanName(strings.TrimSuffix(filepath.Base(output), filepath.Ext(output)))
	history := map[string]any{"tool": "extract", "algo": algorithm, "base": filepath.Base(base.Path), "tuned": filepath.Base(tuned.Path),
		"modules": r.Total.Count[Fitted], "error": strconv.FormatFloat(r.Total.Relative(), 'g', 6, 64)}
	out := map[string]string{
		"ss_v2": spec.v2, "ss_base_model_version": spec.version, "ss_network_module": module, "ss_network_dim": dim, "ss_network_alpha": alpha,
		"ss_network_args": asJSON(args), "ss_output_name": name, "ss_sd_model_name": adapter.CleanName(filepath.Base(base.Path)),
		"ss_training_comment":      "extracted from " + adapter.CleanName(filepath.Base(tuned.Path)),
		"modelspec.sai_model_spec": "1.0.1",
		"modelspec.architecture":   spec.architecture + "/lora",
		"modelspec.implementation": spec.implementation,
		"modelspec.title":          name,
		"modelspec.resolution":     spec.resolution,
		"lycoris.history":          asJSON([]any{history}),
	}
	switch prediction {
	case "epsilon":
		out["modelspec.prediction_type"] = "epsilon"
	case "v_prediction":
		out["modelspec.prediction_type"] = "v"
	}
	return out
}

// rank returns the rank of all fitted modules whose kernel is (windows) or isn't larger than a pixel: a number, "Dynamic" where they differ, "" where there are none.
func (r *Report) rank(windows bool) string {
	rank := ""
	for _, m := range r.Modules {
		if m.Status != Fitted || m.window != windows || m.norm {
			continue
		}
		switch own := strconv.Itoa(m.Rank); rank {
		case "", own:
			rank = own
		default:
			return "Dynamic"
		}
	}
	return rank
}

func (r *Report) hasNorms() bool {
	for _, m := range r.Modules {
		if m.Status == Fitted && m.norm {
			return true
		}
	}
	return false
}

// asJSON writes maps and lists of texts and numbers, which can't fail.
func asJSON(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(text)
}
