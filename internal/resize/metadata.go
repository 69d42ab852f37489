package resize

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"strconv"

	"lycoris/internal/adapter"
	"lycoris/internal/tensor"
)

// versions are the base model versions by family, for files that don't say theirs: without one, readers take whatever has metadata for SD1.
var versions = map[string]string{"sd1": "sd_v1", "sd2": "sd_v2", "sdxl": "sdxl_base_v1-0"}

// dynamic is what stands for a number that isn't the same in all modules.
const dynamic = "Dynamic"

// metadata returns what the new file says about itself: all that the old one said but what is no longer true. nil where the file said nothing and its family, which readers
// need beside anything else, isn't known. adapter.Save adds the hashes.
func (o *Options) metadata(f *adapter.AnyFile, cut *dyLoRA, r *Report) (map[string]string, error) {
	if o.Level == adapter.None || f.Metadata == nil && f.Family == "" {
		return nil, nil
	}
	meta := maps.Clone(f.Metadata)
	if meta == nil {
		meta = map[string]string{}
	}
	if _, ok := meta["ss_base_model_version"]; !ok && f.Family != "" {
		meta["ss_base_model_version"] = versions[f.Family]
		meta["ss_v2"] = map[bool]string{true: "True", false: "False"}[f.Family == "sd2"]
	}
	for _, stale := range []string{"lora_adapter_metadata", "modelspec.hash_sha256", "sshs_model_hash", "sshs_legacy_hash", "lycoris.dylora_scale"} {
		delete(meta, stale)
	}
	r.network(meta)
	comment := o.comment(cut, r)
	if old := meta["ss_training_comment"]; old != "" && old != "None" {
		comment += "; " + old
	}
	meta["ss_training_comment"] = comment
	if _, ok := meta["modelspec.date"]; ok && o.Date != "" {
		meta["modelspec.date"] = o.Date
	}
	if o.Level == adapter.Minimal {
		return adapter.KeepMinimal(meta), nil
	}
	hash, err := tensor.HashFile(adapter.TensorsFile(o.In))
	if err != nil {
		return nil, err
	}
	meta["lycoris.history"] = o.history(meta["lycoris.history"], hash, cut, r)
	return meta, nil
}

// network sets ranks, alphas and, where the algorithm is another now, its name.
func (r *Report) network(meta map[string]string) {
	var args map[string]any
	known := json.Unmarshal([]byte(meta["ss_network_args"]), &args) == nil && args != nil
	if !known {
		args = map[string]any{}
	}
	meta["ss_network_dim"], meta["ss_network_alpha"] = r.numbers(false)
	if dim, alpha := r.numbers(true); dim != "" {
		args["conv_dim"], args["conv_alpha"] = dim, alpha
		if meta["ss_network_dim"] == "" { // kernels with a window only
			meta["ss_network_dim"], meta["ss_network_alpha"] = dim, alpha
		}
	}
	changed, plain := meta["ss_network_module"] == "", true
	algorithms := map[string]int{}
	for _, m := range r.Modules {
		changed = changed || m.Algorithm != m.From || m.Did == Cut
		plain = plain && m.Algorithm == "lora" && !m.Conv && !m.DoRA
		if m.Did != Copied {
			algorithms[m.Algorithm]++
		}
	}
	if changed {
		for _, key := range []string{"algo", "block_size", "unit", "use_tucker", "use_cp", "disable_conv_cp"} {
			delete(args, key)
		}
		meta["ss_network_module"] = "networks.lora"
		if !plain {
			meta["ss_network_module"] = "lycoris.kohya"
			most := "lora"
			for _, name := range sortedKeys(algorithms) {
				if algorithms[name] > algorithms[most] {
					most = name
				}
			}
			args["algo"] = most
		}
	}
	if len(args) == 0 && !known {
		return
	}
	text, _ := json.Marshal(args) // it came from JSON
	meta["ss_network_args"] = string(text)
}

// numbers returns rank and alpha of the modules with or without a window, where these are the same for all; "" where there are none.
func (r *Report) numbers(conv bool) (rank, alpha string) {
	for _, m := range r.Modules {
		if m.Did == Copied || m.Conv != conv {
			continue
		}
		rank, alpha = agree(rank, strconv.Itoa(m.Rank)), agree(alpha, strconv.FormatFloat(float64(float32(m.Alpha)), 'g', -1, 32))
	}
	return rank, alpha
}

func agree(so, far string) string {
	if so == "" || so == far {
		return far
	}
	return dynamic
}

// oldRank returns the rank that all modules had, or the word for several.
func (r *Report) oldRank() (rank string) {
	for _, m := range r.Modules {
		if m.Did != Copied {
			rank = agree(rank, strconv.Itoa(m.OldRank))
		}
	}
	return rank
}

// comment says what was done, in the words of sd-scripts.
func (o *Options) comment(cut *dyLoRA, r *Report) string {
	switch {
	case cut != nil:
		return fmt.Sprintf("DyLoRA of %s is cut to %d, scale: %s", r.oldRank(), cut.ranks, cut.rule)
	case o.Rule != Fixed:
		text := fmt.Sprintf("Dynamic resize with %s: %s from %s", o.Rule, strconv.FormatFloat(o.Value, 'g', -1, 64), r.oldRank())
		if o.Dim > 0 {
			text += fmt.Sprintf(", at most %d", o.Dim)
		}
		return text
	case o.ConvDim > 0:
		return fmt.Sprintf("dimension is resized from %s to %d (conv: %d)", r.oldRank(), o.Dim, o.ConvDim)
	}
	return fmt.Sprintf("dimension is resized from %s to %d", r.oldRank(), o.Dim)
}

// history adds this run to those that made the file.
func (o *Options) history(before, hash string, cut *dyLoRA, r *Report) string {
	var all []any
	json.Unmarshal([]byte(before), &all) // absent or of another form: it begins here
	parameters := map[string]any{}
	set := func(key string, v any, given bool) {
		if given {
			parameters[key] = v
		}
	}
	set("dim", o.Dim, o.Dim > 0)
	set("conv_dim", o.ConvDim, o.ConvDim > 0)
	set(string(o.Rule), o.Value, o.Rule != Fixed)
	set("keep_scale", true, o.KeepScale)
	if cut != nil {
		parameters["block"], parameters["dylora_scale"] = cut.ranks, cut.rule
	}
	all = append(all, map[string]any{
		"command": "resize", "version": o.Version, "parameters": parameters,
		"inputs":   []any{map[string]any{"name": filepath.Base(o.In), "sha256": hash}},
		"retained": map[string]any{"mean": r.Total.MeanShare, "worst": r.Total.MinShare},
	})
	text, err := json.Marshal(all)
	if err != nil {
		panic("resize: a history can't be written: " + err.Error())
	}
	return string(text)
}
