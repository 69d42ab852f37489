package config

import (
	"slices"
	"strings"
)

// LycorisPreset is a preset file of LyCORIS: which modules get an adapter, and what single ones set (algorithms.md 14.3 to 14.5). A nil list was not given.
type LycorisPreset struct {
	Conv            bool     // kernels larger than one pixel too
	UNet, UNetNames []string // classes, and patterns of paths
	Text, TextNames []string
	Exclude         []string // patterns of paths
	Globs           bool     // patterns are globs of whole paths; else regular expressions that fit the beginning
	ByClass, ByName []Overrides
}

// Overrides are the keys that modules of a class or pattern set, as in [Layer.Set].
type Overrides struct {
	Of  string
	Set map[string]any
}

// lycorisNames are keywords of LyCORIS's modules with the keys they are here.
var lycorisNames = map[string]string{"algo": "algo", "dim": "dim", "alpha": "alpha", "factor": "factor", "block_size": "block_size", "constraint": "constraint",
	"constrain": "constraint", "rescaled": "rescaled", "use_tucker": "tucker", "use_cp": "tucker", "use_conv_cp": "tucker", "use_scalar": "use_scalar", "rs_lora": "rs_lora",
	"decompose_both": "decompose_both", "full_matrix": "full_matrix", "unbalanced_factorization": "unbalanced", "train_on_input": "on_input", "dropout": "dropout.neuron",
	"rank_dropout": "dropout.rank", "module_dropout": "dropout.module"}

// ReadLycorisPreset reads a preset file. The error is [*Findings], or of kind fault.Input when the file can't be read.
func ReadLycorisPreset(path string) (*LycorisPreset, error) {
	data, err := readLimited(path)
	if err != nil {
		return nil, err
	}
	var f Findings
	root := source{name: path, data: data}.parseTOML(&f)
	if err := f.err(); err != nil {
		return nil, err
	}
	p := &LycorisPreset{Conv: true}
	c := &converter{f: &f}
	for _, e := range root.entries {
		list := func(to *[]string) {
			if v, ok := c.texts(&Key{Path: e.key, Type: Texts}, e.value); ok {
				*to = v.([]string)
			}
		}
		flag := func(to *bool) {
			if v, ok := c.bool(&Key{Path: e.key, Type: Bool}, e.value); ok {
				*to = v.(bool)
			}
		}
		switch e.key {
		case "enable_conv":
			flag(&p.Conv)
		case "use_fnmatch":
			flag(&p.Globs)
		case "unet_target_module":
			list(&p.UNet)
		case "unet_target_name":
			list(&p.UNetNames)
		case "text_encoder_target_module":
			list(&p.Text)
		case "text_encoder_target_name":
			list(&p.TextNames)
		case "exclude_name":
			list(&p.Exclude)
		case "module_algo_map":
			p.ByClass = c.overrides(e)
		case "name_algo_map":
			p.ByName = c.overrides(e)
		case "lora_prefix": // names in files are kohya's
		case "target_module", "target_name":
			f.add(e.origin, "%s is for models that are not a UNet with text encoders", e.key).Advise("use unet_%s and text_encoder_%s", e.key, e.key)
		default:
			advice := Nearest(e.key, []string{"enable_conv", "use_fnmatch", "unet_target_module", "unet_target_name", "text_encoder_target_module", "text_encoder_target_name",
				"exclude_name", "module_algo_map", "name_algo_map"})
			bad := f.add(e.origin, "unknown key %q of a LyCORIS preset", e.key)
			if advice != "" {
				bad.Advise("did you mean %q?", advice)
			}
		}
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	return p, nil
}

// overrides converts module_algo_map or name_algo_map, in the order of the file.
func (c *converter) overrides(e entry) []Overrides {
	if e.value.kind != mapNode {
		c.f.add(e.origin, "%s wants a table for each class or name", e.key)
		return nil
	}
	var all []Overrides
	for _, m := range e.value.entries {
		if m.value.kind != mapNode {
			c.f.add(m.origin, "%s.%s wants keys such as algo = \"lokr\"", e.key, m.key)
			continue
		}
		o := Overrides{Of: m.key, Set: map[string]any{}}
		var dora, outputs = false, true
		for _, kv := range m.value.entries {
			switch kv.key {
			case "weight_decompose", "dora_wd", "wd_on_out", "wd_on_output":
				v, ok := c.bool(&Key{Path: kv.key, Type: Bool}, kv.value)
				if ok && (kv.key == "weight_decompose" || kv.key == "dora_wd") {
					dora = v.(bool)
				} else if ok {
					outputs = v.(bool)
				}
			case "bypass_mode": // another way to compute the same
			default:
				c.override(&o, kv)
			}
		}
		if dora {
			o.Set["dora"] = map[bool]string{true: "out", false: "in"}[outputs]
		}
		all = append(all, o)
	}
	return all
}

// override converts one keyword.
func (c *converter) override(o *Overrides, kv entry) {
	name, known := lycorisNames[kv.key]
	if !known {
		var names []string
		for n := range lycorisNames {
			names = append(names, n)
		}
		slices.Sort(names)
		bad := c.f.add(kv.origin, "unknown keyword %q", kv.key)
		if near := Nearest(kv.key, names); near != "" {
			bad.Advise("did you mean %q?", near)
		}
		return
	}
	k := layerKey(name)
	if k == nil {
		k = Lookup(name)
	}
	if name == "algo" && kv.value.kind == textNode {
		kv.value = &node{kind: textNode, text: strings.ToLower(kv.value.text), origin: kv.value.origin}
	}
	if v, ok := c.value(k, kv.value); ok && v != nil {
		o.Set[name] = v
	}
}
