package inspect

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"lycoris/internal/arch"
	"lycoris/internal/fault"
	"lycoris/internal/loose"
	"lycoris/internal/tensor"
)

// Model is what the headers of a base model tell.
type Model struct {
	Family     string   `json:"family"` // sd1, sd2, sdxl, sdxl-refiner; empty: none that this version knows
	What       string   `json:"what"`   // in words
	Layout     string   `json:"layout"` // single file, UNet alone, folder
	Prediction string   `json:"prediction"`
	Stated     bool     `json:"stated"` // the model says its prediction type; else it is the family's usual one
	Parts      []Part   `json:"parts"`
	Markers    []string `json:"markers,omitempty"` // tensors that only tell something, like v_pred
	Missing    []string `json:"missing,omitempty"` // tensors of the family that aren't there
	Unknown    []string `json:"unknown,omitempty"` // tensors that belong to no part
}

// Part is a component with its weights.
type Part struct {
	Name    string         `json:"name"`
	Tensors int            `json:"tensors"`
	Bytes   int64          `json:"bytes"`
	DTypes  map[string]int `json:"dtypes"`
}

// parts begin the names of a single file's components.
var partPrefixes = []struct{ prefix, part string }{
	{"model.diffusion_model.", "unet"}, {"first_stage_model.", "vae"}, {"conditioner.embedders.1.", "text_encoder_2"}, {"conditioner.embedders.0.", "text_encoder"},
	{"cond_stage_model.", "text_encoder"}, {"model_ema.", "ema"}, {"input_blocks.", "unet"}, {"middle_block.", "unet"}, {"output_blocks.", "unet"}, {"time_embed", "unet"},
	{"label_emb.", "unet"}, {"out.", "unet"}, {"down_blocks.", "unet"}, {"mid_block.", "unet"}, {"up_blocks.", "unet"}, {"conv_", "unet"}, {"add_embedding.", "unet"},
}

// markers are tensors that tell the kind of training, schedules, and what older versions of libraries left.
var markers = []string{"v_pred", "ztsnr", "edm_mean", "edm_std", "edm_vpred.sigma_max", "logvar", "denoiser.sigmas", "global_step", "betas", "alphas_cumprod", "alphas_cumprod_prev"}

// modelFile looks at a single file.
func modelFile(f *tensor.File, o Options) (*Model, error) {
	m := &Model{Layout: "single file", Prediction: "epsilon"}
	parts := map[string]*Part{}
	for _, name := range f.Names() {
		part := "other"
		for _, p := range partPrefixes {
			if strings.HasPrefix(name, p.prefix) {
				part = p.part
				break
			}
		}
		if slices.Contains(markers, name) {
			m.Markers = append(m.Markers, name)
			part = "markers"
		} else if part == "other" && !strings.HasPrefix(name, "sqrt_") && !strings.HasPrefix(name, "log_one_minus") && !strings.HasPrefix(name, "posterior_") {
			m.Unknown = append(m.Unknown, name)
		}
		info, _ := f.Info(name)
		if parts[part] == nil {
			parts[part] = &Part{Name: part, DTypes: map[string]int{}}
		}
		parts[part].Tensors++
		parts[part].Bytes += info.Size
		parts[part].DTypes[info.DType.String()]++
	}
	for _, name := range []string{"unet", "text_encoder", "text_encoder_2", "vae", "ema", "other"} {
		if p := parts[name]; p != nil {
			m.Parts = append(m.Parts, *p)
		}
	}
	if parts["unet"] != nil && parts["text_encoder"] == nil && parts["vae"] == nil {
		m.Layout = "UNet alone"
	}
	if len(m.Unknown) == len(f.Names()) {
		return nil, fault.BadInput(f.Path(), "is a safetensors file of an unknown kind (%d tensors, the first is %q)", len(f.Names()), f.Names()[0]).
			Advise("pass an adapter or a Stable Diffusion model")
	}
	m.family(f)
	m.prediction(f)
	m.missing(f, parts)
	return m, nil
}

// family tells the family by the marks of the reference formats, the larger families' first.
func (m *Model) family(f *tensor.File) {
	dim := func(name string, axis int) int {
		for _, prefix := range []string{"model.diffusion_model.", ""} {
			if info, ok := f.Info(prefix + name); ok && axis < len(info.Shape) {
				return info.Shape[axis]
			}
		}
		return 0
	}
	first := func(names ...string) int {
		for _, n := range names {
			if d := dim(n, 1); d > 0 {
				return d
			}
		}
		return 0
	}
	cross := first("input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight", "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight", "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight",
		"middle_block.1.transformer_blocks.0.attn2.to_k.weight", "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight",
		"down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight", "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight")
	added := first("label_emb.0.0.weight", "add_embedding.linear_1.weight")
	open := slices.ContainsFunc(f.Names(), func(n string) bool { return strings.HasPrefix(n, "cond_stage_model.model.") })
	second := slices.ContainsFunc(f.Names(), func(n string) bool { return strings.HasPrefix(n, "conditioner.embedders.1.") })
	switch {
	case second, added == 2816:
		m.Family = loose.SDXL
	case added == 2560:
		m.Family, m.What = "sdxl-refiner", "the refiner of Stable Diffusion XL"
		return
	case open, cross == 1024:
		m.Family = loose.SD2
	case cross > 0:
		m.Family = loose.SD1
	default:
		m.What = "a part of a model"
		return
	}
	m.What = loose.Describe(m.Family)
	switch first("input_blocks.0.0.weight", "conv_in.weight") {
	case 9:
		m.What += ", inpainting"
	case 8:
		m.What += ", instruct-pix2pix"
	case 5:
		m.What += ", depth to image"
	}
}

// prediction reads the prediction type from metadata or marker tensors; shapes can't tell it.
func (m *Model) prediction(f *tensor.File) {
	switch p := strings.ToLower(f.Metadata()["modelspec.prediction_type"]); {
	case p == "v" || p == "v_prediction":
		m.Prediction, m.Stated = "v_prediction", true
	case p != "":
		m.Prediction, m.Stated = strings.Replace(p, "eps", "epsilon", 1), true
		if strings.HasPrefix(p, "epsilon") {
			m.Prediction = "epsilon"
		}
	case f.Has("v_pred"):
		m.Prediction, m.Stated = "v_prediction", true
	case f.Has("edm_mean"), f.Has("edm_vpred.sigma_max"):
		m.Prediction, m.Stated = "edm", true
	}
}

// missing compares names with the full-size family's, part by part; parts that aren't there at all are no finding. A smaller model of the family has fewer layers than
// the table: then nothing is said.
func (m *Model) missing(f *tensor.File, parts map[string]*Part) {
	expect := func(part, prefix string, modules []arch.Module) {
		if parts[part] == nil {
			return
		}
		var lacks []string
		total := 0
		for _, p := range arch.Params(modules) {
			if total++; !f.Has(prefix+p.LDM) && !f.Has(p.LDM) && !f.Has(p.Name) {
				lacks = append(lacks, prefix+p.LDM)
			}
		}
		if len(lacks) < total/4 { // else it is another size
			m.Missing = append(m.Missing, lacks...)
		}
	}
	switch m.Family {
	case loose.SD1:
		expect("unet", "model.diffusion_model.", arch.UNetModules(arch.SD15UNet()))
	case loose.SD2:
		expect("unet", "model.diffusion_model.", arch.UNetModules(arch.SD2UNet()))
	case loose.SDXL:
		expect("unet", "model.diffusion_model.", arch.UNetModules(arch.SDXLUNet()))
	default:
		return
	}
	expect("vae", "first_stage_model.", arch.VAEModules(arch.SDVAE()))
}

// modelFolder looks at a diffusers folder.
func (r *Report) modelFolder(dir string, o Options) error {
	var index map[string]any
	if err := readJSON(filepath.Join(dir, "model_index.json"), &index); err != nil {
		return err
	}
	m := &Model{Layout: "folder", Prediction: "epsilon", What: fmt.Sprint(index["_class_name"])}
	for _, name := range []string{"unet", "text_encoder", "text_encoder_2", "vae"} {
		p := Part{Name: name, DTypes: map[string]int{}}
		files, _ := filepath.Glob(filepath.Join(dir, name, "*.safetensors")) // a pattern of our own: never bad
		for _, path := range files {
			f, err := tensor.OpenFile(path)
			if err != nil {
				return err
			}
			for _, n := range f.Names() {
				info, _ := f.Info(n)
				p.Tensors, p.Bytes = p.Tensors+1, p.Bytes+info.Size
				p.DTypes[info.DType.String()]++
				if o.Keys {
					r.Keys = append(r.Keys, Key{name + "/" + n, info.DType.String(), append([]int{}, info.Shape...)})
				}
			}
			f.Close()
		}
		if len(files) > 0 {
			m.Parts = append(m.Parts, p)
		}
	}
	if len(m.Parts) == 0 {
		return fault.BadInput(dir, "holds no weights in .safetensors files").Advise("look for the .safetensors form of the model")
	}
	var unet struct {
		Cross any `json:"cross_attention_dim"`
		Added any `json:"addition_embed_type"`
	}
	if err := readJSON(filepath.Join(dir, "unet", "config.json"), &unet); err != nil {
		return err
	}
	switch cross, _ := unet.Cross.(float64); {
	case unet.Added != nil:
		m.Family = loose.SDXL
	case cross == 1024:
		m.Family = loose.SD2
	default:
		m.Family = loose.SD1
	}
	m.What = loose.Describe(m.Family)
	var scheduler struct {
		Prediction string `json:"prediction_type"`
	}
	if err := readJSON(filepath.Join(dir, "scheduler", "scheduler_config.json"), &scheduler); err == nil && scheduler.Prediction != "" {
		m.Prediction, m.Stated = scheduler.Prediction, true
	}
	r.Kind, r.Model = "model", m
	return nil
}

// readJSON reads a small JSON file.
func readJSON(path string, into any) error {
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fault.BadInput(path, "is missing").Advise("the folder is incomplete: download it again")
	case err != nil:
		return fault.BadInput(path, "can't be read: %w", err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fault.BadInput(path, "is not a JSON object: %v", err)
	}
	return nil
}
