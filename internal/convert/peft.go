package convert

import (
	"encoding/json"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"lycoris/internal/adapter"
	"lycoris/internal/arch"
	"lycoris/internal/fault"
	"lycoris/internal/loose"
	"lycoris/internal/tensor"
)

// peftFolder writes a folder that peft's from_pretrained loads onto a model: adapter_config.json and adapter_model.safetensors. peft adapts one model at a time: an adapter of several
// components becomes a folder of such folders, named as the components.
func (o *Options) peftFolder(p *loose.Adapter, meta map[string]string, r *Report) error {
	if err := o.fitsPeft(p); err != nil {
		return err
	}
	r.LeftOut = append(r.LeftOut, p.Extra...)
	parts := slices.Sorted(maps.Keys(p.Parts()))
	if err := o.finish(meta); err != nil {
		return err
	}
	delete(meta, "lora_adapter_metadata")
	meta["format"] = "pt"
	folders := map[string]arch.Component{"": parts[0]}
	if len(parts) > 1 {
		folders = map[string]arch.Component{}
		for _, c := range parts {
			folders[string(c)] = c
		}
	}
	if p.Parts()[arch.TextEncoder] > 0 {
		r.Notes = append(r.Notes, "text_encoder: layers are named as transformers 5 names them (encoder.layers…); transformers 4 has text_model. before")
	}
	mark := filepath.Join(slices.Sorted(maps.Keys(folders))[0], "adapter_config.json")
	return tensor.WriteFolder(o.Out, 0, mark, func(temp string) error {
		for _, name := range slices.Sorted(maps.Keys(folders)) {
			if err := o.peftPart(p, folders[name], filepath.Join(temp, name), meta); err != nil {
				return err
			}
		}
		return nil
	})
}

// peftPart writes the folder of one component.
func (o *Options) peftPart(p *loose.Adapter, c arch.Component, folder string, meta map[string]string) error {
	var all []tensor.Named
	ranks, alphas, targets, magnitudes := map[string]any{}, map[string]any{}, []string{}, 0
	for _, m := range p.Modules {
		if m.Layer.Component != c {
			continue
		}
		tensors, err := m.Tensors()
		if err != nil {
			return err
		}
		path := m.Layer.Path
		if c == arch.TextEncoder { // transformers 5: CLIPTextModel has no such level, CLIPTextModelWithProjection has
			path = strings.TrimPrefix(path, "text_model.")
		}
		alpha := float64(m.Rank())
		if a, ok := tensors["alpha"]; ok {
			if tensor.Elems(a.Shape) != 1 {
				return fault.BadInput(o.In, "%q has shape %v, want one number", m.Key("alpha"), a.Shape)
			}
			alpha = float64(a.Float32()[0])
		}
		ranks[path], alphas[path], targets = m.Rank(), alpha, append(targets, path)
		name := "base_model.model." + path
		for suffix, t := range tensors {
			switch suffix {
			case "lora_down.weight":
				t.Shape = layerShape(m.Layer, t.Shape)
				all = append(all, tensor.Named{Name: name + ".lora_A.weight", Tensor: t})
			case "lora_up.weight":
				t.Shape = layerShape(m.Layer, t.Shape)
				all = append(all, tensor.Named{Name: name + ".lora_B.weight", Tensor: t})
			case "dora_scale":
				magnitudes++
				t.Shape = []int{tensor.Elems(t.Shape)}
				if m.Layer.Window != nil { // peft broadcasts it over a convolution's weight
					t.Shape = []int{1, t.Shape[0], 1, 1}
				}
				all = append(all, tensor.Named{Name: name + ".lora_magnitude_vector", Tensor: t})
			}
		}
	}
	if magnitudes > 0 && magnitudes < len(targets) {
		return fault.BadInput(o.In, "%d of %d modules of %s have DoRA's magnitudes; peft has them for all or none", magnitudes, len(targets), c).Advise("write a file instead: --out FILE.safetensors")
	}
	if err := o.castAll(all); err != nil {
		return err
	}
	r, alpha := common(ranks), common(alphas)
	config := map[string]any{"peft_type": "LORA", "r": r, "lora_alpha": alpha, "rank_pattern": except(ranks, r), "alpha_pattern": except(alphas, alpha), "target_modules": targets,
		"use_dora": magnitudes > 0, "use_rslora": false, "bias": "none", "lora_dropout": 0.0, "fan_in_fan_out": false, "init_lora_weights": true, "inference_mode": true,
		"base_model_name_or_path": nil, "task_type": nil, "modules_to_save": nil}
	text, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o777); err != nil {
		return fault.BadOutput(o.Out, "can't be written: %w", err)
	}
	if err := tensor.WriteAtomic(filepath.Join(folder, "adapter_config.json"), func(w io.Writer) error { _, err := w.Write(append(text, '\n')); return err }); err != nil {
		return err
	}
	return adapter.SaveAsIs(filepath.Join(folder, "adapter_model.safetensors"), all, meta)
}

// layerShape gives a factor the axes that its layer has: 1x1 factors stand for those of a Linear, and the reverse.
func layerShape(l loose.Layer, shape []int) []int {
	switch {
	case l.Window == nil && len(shape) == 4 && shape[2]*shape[3] == 1:
		return shape[:2]
	case l.Window != nil && len(shape) == 2:
		return []int{shape[0], shape[1], 1, 1}
	}
	return shape
}
