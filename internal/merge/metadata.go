package merge

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"

	"lycoris/internal/adapter"
	"lycoris/internal/modelfile"
	"lycoris/internal/tensor"
)

// historyKey holds what was done to a model: a JSON list, one entry per tool.
const historyKey = "lycoris.history"

// metadata returns the metadata of a file: the base's, with the new title, what it was merged from and the history. Hashes of the old content are dropped; a prediction type
// is kept or read from the marker, never guessed.
func (p *Plan) metadata(f *fileJob) map[string]string {
	meta := f.file.Raw().CloneMetadata()
	for _, stale := range []string{"modelspec.hash_sha256", "sshs_model_hash", "sshs_legacy_hash", "modelspec.date"} {
		delete(meta, stale)
	}
	p.addHistory(meta)
	if p.model.Folder {
		return meta
	}
	from := []string{titleOf(meta, p.options.Model)}
	for _, a := range p.Adapters {
		from = append(from, titleOf(a.File.Metadata, a.Source.Path))
	}
	if meta["modelspec.sai_model_spec"] == "" {
		meta["modelspec.sai_model_spec"] = "1.0.1"
	}
	meta["modelspec.title"] = stem(p.options.Out)
	meta["modelspec.merged_from"] = strings.Join(from, ", ")
	if meta["modelspec.prediction_type"] == "" && slices.ContainsFunc(f.slots, func(s tensor.Slot) bool { return s.Name == "v_pred" }) {
		meta["modelspec.prediction_type"] = "v"
	}
	if p.options.Date != "" {
		meta["modelspec.date"] = p.options.Date
	}
	return meta
}

func titleOf(meta map[string]string, path string) string {
	if t := meta["modelspec.title"]; t != "" {
		return t
	}
	return stem(path)
}

func stem(path string) string {
	name := filepath.Base(filepath.Clean(path))
	return strings.TrimSuffix(name, filepath.Ext(name))
}

// addHistory appends this merge to the history. File names only: no paths.
func (p *Plan) addHistory(meta map[string]string) {
	var history []any
	json.Unmarshal([]byte(meta[historyKey]), &history) // another form: it is begun anew
	inputs := []any{map[string]any{"file": filepath.Base(filepath.Clean(p.options.Model)), "family": p.Family}}
	for _, a := range p.Adapters {
		in := map[string]any{"file": filepath.Base(filepath.Clean(a.Source.Path)), "weight": a.Source.Weight, "algorithms": a.Algorithms, "modules": a.Modules,
			"unet": p.partWeight(a.Source, modelfile.UNet), "te": p.partWeight(a.Source, modelfile.TextEncoder)}
		if hash, err := tensor.HashFile(adapter.TensorsFile(a.Source.Path)); err == nil {
			in["sha256"] = hash
		}
		if b := a.Source.Blocks; b != nil {
			in["blocks"] = b.String()
		} else if p.options.Blocks != nil {
			in["blocks"] = p.options.Blocks.String()
		}
		inputs = append(inputs, in)
	}
	entry := map[string]any{"command": "merge", "version": p.options.Version, "inputs": inputs, "as": p.options.As, "ema": p.options.EMA}
	if p.options.DType != tensor.Invalid {
		entry["dtype"] = p.options.DType.String()
	}
	text, err := json.Marshal(append(history, entry))
	if err == nil {
		meta[historyKey] = string(text)
	}
}
