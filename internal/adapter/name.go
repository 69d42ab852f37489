package adapter

import (
	"strings"

	"lycoris/internal/arch"
)

// Prefix returns what the names of a component's modules begin with.
func Prefix(c arch.Component) string {
	switch c {
	case arch.UNet:
		return "lora_unet"
	case arch.TextEncoder:
		return "lora_te"
	}
	return "lora_" + string(c)
}

// Name returns the module's name in an adapter file: prefix, then the path with every dot an underscore.
func Name(c arch.Component, path string) string {
	return Prefix(c) + "_" + flat(path)
}

func flat(path string) string { return strings.ReplaceAll(path, ".", "_") }

// Target is a layer of the base that a module of a file belongs to.
type Target struct {
	Component arch.Component
	Module    arch.Module
	Name      string // as [Name] writes it
	order     int    // text encoder first, then the UNet, each in walk order
}

// Table finds the layers of a model by their names in adapter files. Flat names are never taken apart (their parts contain underscores):
// they are looked up.
type Table struct {
	byName map[string]*Target // flat names, without the prefixes' variants
	byPath map[string]*Target // component + "." + path
	all    []*Target
	Cross  int    // width of the text states, 0 if unknown; tells families apart
	family string // of a table of NewTableOf: sd1, sd2, sdxl; "" is SD1 as train knows it
}

// NewTable makes the table of a model.
func NewTable(unet, text []arch.Module) *Table {
	t := &Table{byName: map[string]*Target{}, byPath: map[string]*Target{}}
	for _, part := range []struct {
		c       arch.Component
		modules []arch.Module
	}{{arch.TextEncoder, text}, {arch.UNet, unet}} {
		for _, m := range part.modules {
			target := &Target{Component: part.c, Module: m, Name: Name(part.c, m.Path), order: len(t.all)}
			t.all = append(t.all, target)
			t.byName[target.Name] = target
			t.byPath[string(part.c)+"."+m.Path] = target
			if strings.HasSuffix(m.Path, ".attn2.to_k") {
				t.Cross = m.In()
			}
		}
	}
	return t
}

// Targets returns every module of the model in the order of adapter files: text encoder, then UNet.
func (t *Table) Targets() []*Target { return t.all }

// Lookup finds the layer of a flat module name, as files have it up to the first dot. Besides the written form it takes lora_te1_ for the only
// text encoder, text encoder names without the text_model level (LyCORIS on transformers 5), and lycoris_ and oft_unet_ (kohya's OFT) for the UNet.
func (t *Table) Lookup(name string) (*Target, bool) {
	if target, ok := t.byName[name]; ok {
		return target, true
	}
	for _, form := range []struct{ prefix, want string }{
		{"lora_te1_text_model_", "lora_te_text_model_"}, {"lora_te1_", "lora_te_text_model_"}, {"lora_te_", "lora_te_text_model_"},
		{"lycoris_", "lora_unet_"}, {"oft_unet_", "lora_unet_"},
	} {
		if rest, ok := strings.CutPrefix(name, form.prefix); ok {
			if target, ok := t.byName[form.want+rest]; ok {
				return target, true
			}
		}
	}
	return nil, false
}

// componentPrefixes begin names with dotted paths (peft, diffusers, ComfyUI); "" tries both components.
var componentPrefixes = []struct {
	prefix    string
	component arch.Component
}{
	{"unet.", arch.UNet}, {"text_encoder_2.", textEncoder2}, {"text_encoder.", arch.TextEncoder}, {"diffusion_model.", arch.UNet}, {"base_model.model.", ""}, {"", ""},
}

// LookupPath finds the layer of a dotted path, with or without its component in front.
func (t *Table) LookupPath(path string) (*Target, bool) {
	for _, p := range componentPrefixes {
		rest, ok := strings.CutPrefix(path, p.prefix)
		if !ok {
			continue
		}
		for _, c := range []arch.Component{arch.UNet, arch.TextEncoder, textEncoder2} {
			if p.component != "" && p.component != c {
				continue
			}
			for _, form := range []string{rest, "text_model." + rest} {
				if target, ok := t.byPath[string(c)+"."+form]; ok {
					return target, true
				}
			}
		}
	}
	return nil, false
}

// dottedSuffixes are the suffixes of files with dotted paths, with the ones that this program uses. Order: the first that fits.
var dottedSuffixes = []struct{ ends, suffix string }{
	{".lora_A.weight", "lora_down.weight"}, {".lora_B.weight", "lora_up.weight"},
	{".lora_A.default.weight", "lora_down.weight"}, {".lora_B.default.weight", "lora_up.weight"},
	{".lora.down.weight", "lora_down.weight"}, {".lora.up.weight", "lora_up.weight"},
	{".lora_linear_layer.down.weight", "lora_down.weight"}, {".lora_linear_layer.up.weight", "lora_up.weight"},
	{"_lora.down.weight", "lora_down.weight"}, {"_lora.up.weight", "lora_up.weight"},
	{".lora_down.weight", "lora_down.weight"}, {".lora_up.weight", "lora_up.weight"}, {".lora_mid.weight", "lora_mid.weight"},
	{".lora_magnitude_vector", "dora_scale"}, {".lora_magnitude_vector.weight", "dora_scale"}, {".lora_magnitude_vector.default.weight", "dora_scale"},
	{".hada_w1_a", "hada_w1_a"}, {".hada_w1_b", "hada_w1_b"}, {".hada_w2_a", "hada_w2_a"}, {".hada_w2_b", "hada_w2_b"}, {".hada_t1", "hada_t1"}, {".hada_t2", "hada_t2"},
	{".lokr_w1", "lokr_w1"}, {".lokr_w1_a", "lokr_w1_a"}, {".lokr_w1_b", "lokr_w1_b"}, {".lokr_w2", "lokr_w2"}, {".lokr_w2_a", "lokr_w2_a"}, {".lokr_w2_b", "lokr_w2_b"},
	{".lokr_t2", "lokr_t2"},
	{".alpha", "alpha"}, {".dora_scale", "dora_scale"},
}

// Split takes a tensor's name in a file apart: the layer, and the suffix in kohya's spelling. ok is false when the layer isn't known.
func (t *Table) Split(key string) (target *Target, suffix string, ok bool) {
	name, suffix, _ := strings.Cut(key, ".")
	if target, ok = t.Lookup(name); ok {
		return target, suffix, true
	}
	for _, s := range dottedSuffixes {
		path, fits := strings.CutSuffix(key, s.ends)
		if !fits {
			continue
		}
		if target, ok = t.LookupPath(path); ok {
			return target, s.suffix, true
		}
		// diffusers of 2023: ….attn1.processor.to_q_lora.down.weight, and to_out for to_out.0
		old := strings.Replace(path, ".processor.", ".", 1)
		for _, path := range []string{old, old + ".0"} {
			if target, ok = t.LookupPath(path); ok {
				return target, s.suffix, true
			}
		}
	}
	return nil, suffix, false
}
