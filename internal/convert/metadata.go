package convert

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"lycoris/internal/adapter"
	"lycoris/internal/checkpoint"
	"lycoris/internal/fault"
	"lycoris/internal/tensor"
)

// needed are metadata without which a file means another thing: [Options.Strip] keeps them, and what tells family and algorithm.
var needed = []string{"lora_adapter_metadata", checkpoint.ConfigKey, "modelspec.prediction_type", "format"}

// finish makes the metadata of the output: what is asked for, and this run in lycoris.history, a list of what tools did, without paths or times.
func (o *Options) finish(meta map[string]string) error {
	if o.Strip {
		kept := adapter.KeepMinimal(meta)
		for _, k := range needed {
			if v, ok := meta[k]; ok {
				kept[k] = v
			}
		}
		clear(meta)
		maps.Copy(meta, kept)
	} else if err := o.history(meta); err != nil {
		return err
	}
	maps.Copy(meta, o.Set)
	return nil
}

// checkSet refuses metadata that are computed, or longer than readers allow.
func (o *Options) checkSet() error {
	for k, v := range o.Set {
		switch {
		case k == "" || k == "__metadata__":
			return fault.BadUsage("--set-metadata", "%q is no name", k).Advise("NAME=VALUE")
		case strings.HasPrefix(k, "sshs_"), k == "modelspec.hash_sha256":
			return fault.BadUsage("--set-metadata", "%q is a hash of the file, which is computed", k)
		case len(v) > 16<<20:
			return fault.BadUsage("--set-metadata", "the value of %q has %d bytes, 16 MiB is the most", k, len(v))
		}
	}
	return nil
}

// history adds this run.
func (o *Options) history(meta map[string]string) error {
	in := map[string]any{"name": filepath.Base(o.In)}
	if _, err := os.Stat(filepath.Join(o.In, "model_index.json")); err != nil { // a model's folder is many files
		sum, err := tensor.HashFile(adapter.TensorsFile(o.In))
		if err != nil {
			return err
		}
		in["sha256"] = sum
	}
	entry := map[string]any{"command": "convert", "version": o.Version, "in": []any{in}}
	if o.To != "" {
		entry["to"] = o.To
	}
	if o.DType != tensor.Invalid {
		entry["dtype"] = o.DType.String()
	}
	if o.Dim > 0 {
		entry["dim"] = o.Dim
	}
	var list []any
	json.Unmarshal([]byte(meta["lycoris.history"]), &list) // none, or of another form: it starts here
	text, err := json.Marshal(append(list, entry))
	if err != nil {
		return fmt.Errorf("history: %w", err)
	}
	meta["lycoris.history"] = string(text)
	return nil
}
