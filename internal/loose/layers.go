package loose

import (
	"fmt"
	"regexp"
	"strings"
	"sync"

	"lycoris/internal/adapter"
	"lycoris/internal/arch"
)

// The families whose layers [FamilyLayers] names.
const (
	SD1  = "sd1"
	SD2  = "sd2"
	SDXL = "sdxl"
)

// secondText is SDXL's second text encoder.
const secondText arch.Component = "text_encoder_2"

// Layer is a layer of a family, known by name alone: an [adapter.Table] knows the shapes of a model too.
type Layer struct {
	Component arch.Component
	Path      string // diffusers or transformers name
	LDM       string // the UNet's name in a single file; empty elsewhere
	Adaptable bool   // Linear or Conv2d
	Window    []int  // [kh,kw] of a convolution, nil of other layers; whether proj_in is one depends on the family
}

// Layers finds the layers of a family by every spelling of their names in adapter files.
type Layers struct {
	Family string
	all    []Layer
	flat   map[arch.Component]map[string]*Layer // by path with underscores, in both spellings of the UNet
	path   map[arch.Component]map[string]*Layer // by dotted path, likewise
}

var layersOf sync.Map // by family

// FamilyLayers returns the names of a family's layers: [SD1], [SD2] or [SDXL]. Smaller models of a family have some of them.
func FamilyLayers(family string) *Layers {
	if l, ok := layersOf.Load(family); ok {
		return l.(*Layers)
	}
	l := &Layers{Family: family, flat: map[arch.Component]map[string]*Layer{}, path: map[arch.Component]map[string]*Layer{}}
	unet, text, second := arch.SD15UNet(), 24, 0
	switch family {
	case SD2:
		unet = arch.SD2UNet()
	case SDXL:
		unet, second = arch.SDXLUNet(), 32
	}
	l.add(arch.UNet, arch.UNetModules(unet))
	l.add(arch.TextEncoder, clipLayers(text))
	if second > 0 {
		l.add(secondText, append(clipLayers(second), arch.Module{Path: "text_projection"}))
	}
	layersOf.Store(family, l)
	return l
}

func clipLayers(n int) []arch.Module {
	c := arch.CLIPL()
	c.Layers = n
	return arch.CLIPModules(c)
}

func (l *Layers) add(c arch.Component, modules []arch.Module) {
	l.flat[c], l.path[c] = map[string]*Layer{}, map[string]*Layer{}
	for _, m := range modules {
		layer := &Layer{Component: c, Path: m.Path, Adaptable: m.Kind == arch.Linear || m.Kind == arch.Conv2d}
		if len(m.Shape) == 4 {
			layer.Window = m.Shape[2:]
		}
		forms := []string{m.Path}
		if c == arch.UNet {
			layer.LDM = m.LDM
			forms = append(forms, m.LDM)
		} else if short, ok := strings.CutPrefix(m.Path, "text_model."); ok {
			forms = append(forms, short) // LyCORIS on transformers 5
		}
		for _, form := range forms {
			l.flat[c][flat(form)], l.path[c][form] = layer, layer
		}
		l.all = append(l.all, *layer)
	}
}

// All returns the family's layers: UNet, then text encoders.
func (l *Layers) All() []Layer { return l.all }

// flatPrefixes begin flat names.
var flatPrefixes = []struct {
	prefix     string
	components []arch.Component
}{
	{"lora_unet_", []arch.Component{arch.UNet}}, {"lora_te1_", []arch.Component{arch.TextEncoder}}, {"lora_te2_", []arch.Component{secondText}},
	{"lora_te_", []arch.Component{arch.TextEncoder}}, {"oft_unet_", []arch.Component{arch.UNet}},
	{"lycoris_", []arch.Component{arch.UNet, arch.TextEncoder}},
}

// dottedPrefixes begin names with dotted paths, the longer ones first.
var dottedPrefixes = []struct {
	prefix     string
	components []arch.Component
}{
	{"text_encoders.clip_l.transformer.", []arch.Component{arch.TextEncoder}}, {"text_encoders.clip_g.transformer.", []arch.Component{secondText}},
	{"text_encoder_2.", []arch.Component{secondText}}, {"text_encoder.", []arch.Component{arch.TextEncoder}}, {"unet.", []arch.Component{arch.UNet}},
	{"diffusion_model.", []arch.Component{arch.UNet}}, {"base_model.model.", []arch.Component{arch.UNet, arch.TextEncoder}},
	{"", []arch.Component{arch.UNet, arch.TextEncoder}},
}

// Find finds the layer of a module's name: a flat name as it stands before the first dot, or a dotted path.
func (l *Layers) Find(name string) (Layer, bool) {
	for _, p := range flatPrefixes {
		if rest, ok := strings.CutPrefix(name, p.prefix); ok {
			for _, c := range p.components {
				if layer, ok := l.flat[c][rest]; ok {
					return *layer, true
				}
			}
		}
	}
	for _, p := range dottedPrefixes {
		rest, ok := strings.CutPrefix(name, p.prefix)
		if !ok {
			continue
		}
		for _, c := range p.components {
			for _, form := range []string{rest, strings.Replace(rest, ".processor.", ".", 1), strings.Replace(rest, ".processor.", ".", 1) + ".0"} {
				if layer, ok := l.path[c][form]; ok {
					return *layer, true
				}
			}
		}
	}
	return Layer{}, false
}

// Split takes a tensor's name apart: the layer, and the suffix in kohya's spelling. ok is false when the family has no such layer.
func (l *Layers) Split(key string) (layer Layer, suffix string, ok bool) {
	name, suffix, _ := strings.Cut(key, ".")
	if layer, ok = l.Find(name); ok && suffix != "" && strings.Contains(name, "_") {
		for _, p := range flatPrefixes {
			if strings.HasPrefix(name, p.prefix) {
				return layer, suffix, true
			}
		}
	}
	for path, suffix := range adapter.DottedNames(key) {
		if layer, ok = l.Find(path); ok {
			return layer, suffix, true
		}
	}
	return Layer{}, suffix, false
}

// Naming is a way to write the names of an adapter's tensors.
type Naming string

// The namings.
const (
	Kohya     Naming = "kohya"     // lora_unet_down_blocks_0_…; SDXL's UNet by its LDM names, as kohya's own
	Wrapper   Naming = "lycoris"   // lycoris_down_blocks_0_…: LyCORIS's wrapper around one model
	Diffusers Naming = "diffusers" // unet.down_blocks.0.….lora_A.weight
	LDM       Naming = "ldm"       // lora_unet_input_blocks_1_1_…
)

// Module returns the name of a layer in a naming, without a suffix.
func (l *Layers) Module(layer Layer, n Naming) string {
	text := layer.Component != arch.UNet
	path := layer.Path
	switch {
	case n == Diffusers:
		return string(layer.Component) + "." + path
	case n == Wrapper:
		return "lycoris_" + flat(path)
	case !text && (n == LDM || l.Family == SDXL):
		path = layer.LDM
	}
	prefix := map[arch.Component]string{arch.UNet: "lora_unet_", arch.TextEncoder: "lora_te_", secondText: "lora_te2_"}[layer.Component]
	if l.Family == SDXL && layer.Component == arch.TextEncoder {
		prefix = "lora_te1_"
	}
	return prefix + flat(path)
}

// marksOfSDXL are names that only SDXL's adapters have.
var marksOfSDXL = regexp.MustCompile(`^lora_te[12]_|^text_encoder_2\.|^text_encoders\.clip_g|label_emb|add_embedding|` +
	`(attentions|input_blocks|output_blocks|middle_block)[._][0-9_.]+transformer_blocks[._][1-9]`)

// GuessFamily tells an adapter's family from its tensors' names and the width of the text states that its cross attention reads; cross is 0 where no tensor tells it.
func GuessFamily(names []string, cross int) string {
	switch {
	case cross == 2048:
		return SDXL
	case cross == 1024:
		return SD2
	case cross == 768:
		return SD1
	}
	for _, n := range names {
		if marksOfSDXL.MatchString(n) {
			return SDXL
		}
	}
	return SD1
}

// Fitting returns the layers of the first of the families that has a layer for every name, the guessed family first; else the guessed one's, with the names
// that it lacks.
func Fitting(names []string, cross int) (l *Layers, unknown []string) {
	guess := GuessFamily(names, cross)
	for i, family := range []string{guess, SD1, SDXL} {
		candidate := FamilyLayers(family)
		lacks := lacking(candidate, names)
		if len(lacks) == 0 {
			return candidate, nil
		}
		if i == 0 {
			unknown = lacks
		}
	}
	return FamilyLayers(guess), unknown
}

// lacking returns the names that belong to no layer of l.
func lacking(l *Layers, names []string) (lacks []string) {
	for _, n := range names {
		if _, _, ok := l.Split(n); !ok {
			lacks = append(lacks, n)
		}
	}
	return lacks
}

// Describe names a family for people.
func Describe(family string) string {
	switch family {
	case SD1:
		return "Stable Diffusion 1.x"
	case SD2:
		return "Stable Diffusion 2.x"
	case SDXL:
		return "Stable Diffusion XL"
	}
	return fmt.Sprintf("unknown (%s)", family)
}

func flat(path string) string { return strings.ReplaceAll(path, ".", "_") }
