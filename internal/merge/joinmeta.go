package merge

import (
	"cmp"
	"encoding/json"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"lycoris/internal/adapter"
	"lycoris/internal/loose"
	"lycoris/internal/tensor"
)

// countKeys hold counts by folder, which are added up: {"folder": {"tag": 3}}.
var countKeys = []string{"ss_tag_frequency", "ss_dataset_dirs", "ss_reg_dataset_dirs"}

const (
	largeHeader = 1 << 20 // bytes of metadata above which some programs read a file slowly
	dynamic     = "Dynamic"
)

// metadata returns the new adapter's metadata: of the adapters', as asked for, and what it is itself; nil for none.
func (j *joiner) metadata() (map[string]string, error) {
	o := j.o
	if o.Metadata == MetadataNone {
		return nil, nil
	}
	meta := maps.Clone(j.report.Adapters[0].src.Metadata())
	if meta == nil {
		meta = map[string]string{}
	}
	if o.Metadata == MetadataMerge {
		j.agree(meta)
	}
	for _, stale := range []string{"sshs_model_hash", "sshs_legacy_hash", "modelspec.hash_sha256", "modelspec.date", "lora_adapter_metadata", "lycoris.dylora_scale"} {
		delete(meta, stale)
	}
	j.network(meta)
	meta["ss_output_name"] = adapter.CleanName(stem(o.Out))
	if meta["modelspec.sai_model_spec"] != "" {
		var from []string
		for _, a := range j.report.Adapters {
			from = append(from, titleOf(a.src.Metadata(), a.Source.Path))
		}
		meta["modelspec.title"], meta["modelspec.merged_from"] = stem(o.Out), strings.Join(from, ", ")
		if o.Date != "" {
			meta["modelspec.date"] = o.Date
		}
	}
	if err := j.history(meta); err != nil {
		return nil, err
	}
	size := 0
	for k, v := range meta {
		size += len(k) + len(v)
	}
	if size > largeHeader {
		j.report.warn("the metadata have %s: --metadata first keeps those of the first adapter alone", tensor.FormatBytes(int64(size)))
	}
	return meta, nil
}

// agree keeps of the first adapter's metadata what all say, and adds up what counts where all have it.
func (j *joiner) agree(meta map[string]string) {
	rest := j.report.Adapters[1:]
	for key, v := range meta {
		for _, a := range rest {
			if a.src.Metadata()[key] != v && !slices.Contains(countKeys, key) {
				delete(meta, key)
			}
		}
	}
	for _, key := range countKeys {
		sum, complete := map[string]map[string]float64{}, true
		for _, a := range j.report.Adapters {
			var counts map[string]map[string]float64
			if json.Unmarshal([]byte(a.src.Metadata()[key]), &counts) != nil {
				complete = false
				break
			}
			for folder, tags := range counts {
				if sum[folder] == nil {
					sum[folder] = map[string]float64{}
				}
				for tag, n := range tags {
					if tag == "n_repeats" && key != countKeys[0] { // a setting, not a count
						sum[folder][tag] = max(sum[folder][tag], n)
					} else {
						sum[folder][tag] += n
					}
				}
			}
		}
		delete(meta, key)
		if text, err := json.Marshal(sum); complete && err == nil {
			meta[key] = string(text)
		}
	}
}

// network sets family, ranks, alphas and the algorithm's name.
func (j *joiner) network(meta map[string]string) {
	version := map[string]string{loose.SD1: "sd_v1", loose.SD2: "sd_v2", loose.SDXL: "sdxl_base_v1-0"}[j.report.Family]
	if meta["ss_base_model_version"] == "" {
		meta["ss_base_model_version"] = version
	}
	meta["ss_v2"] = map[bool]string{true: "True", false: "False"}[j.report.Family == loose.SD2]
	agree := func(so, far string) string {
		if so == "" || so == far {
			return far
		}
		return dynamic
	}
	var dims, alphas [2]string // of layers without and with a window
	plain, algorithms := true, map[string]int{}
	for _, l := range j.report.Layers {
		if l.Did == DidNone {
			continue
		}
		algorithms[l.Algorithm]++
		plain = plain && l.Algorithm == "lora" && !l.window && l.Rank > 0
		if l.Rank == 0 {
			continue
		}
		i := 0
		if l.window {
			i = 1
		}
		dims[i], alphas[i] = agree(dims[i], strconv.Itoa(l.Rank)), agree(alphas[i], strconv.FormatFloat(float64(float32(l.alpha)), 'g', -1, 32))
	}
	args := map[string]string{}
	if dims[1] != "" {
		args["conv_dim"], args["conv_alpha"] = dims[1], alphas[1]
	}
	if dims[0] == "" {
		dims[0], alphas[0] = dims[1], alphas[1]
	}
	delete(meta, "ss_network_dim")
	delete(meta, "ss_network_alpha")
	if dims[0] != "" {
		meta["ss_network_dim"], meta["ss_network_alpha"] = dims[0], alphas[0]
	}
	meta["ss_network_module"] = "networks.lora"
	if !plain {
		most := "lora"
		for _, name := range slices.Sorted(maps.Keys(algorithms)) {
			if algorithms[name] > algorithms[most] {
				most = name
			}
		}
		meta["ss_network_module"], args["algo"] = "lycoris.kohya", most
	}
	text, _ := json.Marshal(args) // a map of strings always marshals
	meta["ss_network_args"] = string(text)
}

// history says which adapters were joined and how. File names only: no paths.
func (j *joiner) history(meta map[string]string) error {
	o := j.o
	weigh := Plan{options: Options{UNet: o.UNet, Text: o.Text}}
	var history, inputs []any
	json.Unmarshal([]byte(meta[historyKey]), &history) // absent or of another form: it begins here
	for _, a := range j.report.Adapters {
		hash, err := tensor.HashFile(adapter.TensorsFile(a.Source.Path))
		if err != nil {
			return err
		}
		in := map[string]any{"file": filepath.Base(filepath.Clean(a.Source.Path)), "sha256": hash, "weight": a.Source.Weight, "modules": a.Modules, "algorithms": a.Algorithms,
			"unet": weigh.partWeight(a.Source, "unet"), "te": weigh.partWeight(a.Source, "text_encoder")}
		if b := cmp.Or(a.Source.Blocks, o.Blocks); b != nil {
			in["blocks"] = b.String()
		}
		inputs = append(inputs, in)
	}
	total, _, _ := j.report.Error()
	entry := map[string]any{"command": "merge", "version": o.Version, "inputs": inputs, "method": o.Method, "error": total}
	if o.Model != "" {
		entry["model"], entry["as"] = filepath.Base(filepath.Clean(o.Model)), o.As
	}
	if o.Dim > 0 {
		entry["dim"] = o.Dim
	}
	text, err := json.Marshal(append(history, entry))
	if err != nil {
		return err
	}
	meta[historyKey] = string(text)
	return nil
}
