package loose

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"lycoris/internal/adapter"
	"lycoris/internal/algos"
	"lycoris/internal/arch"
	"lycoris/internal/fault"
	"lycoris/internal/tensor"
)

// Module is the tensors of one layer of an adapter.
type Module struct {
	Layer Layer
	Algo  *algos.Algorithm
	keys  map[string]string // suffix in kohya's spelling to the tensor's name
	path  string
	src   Source
	// What only the metadata or peft's configuration know.
	alpha, rank float64
	hasAlpha    bool
	peft        bool
}

// Adapter is an adapter file taken apart.
type Adapter struct {
	Path    string
	Layers  *Layers
	Modules []*Module // in walk order: UNet, then text encoders
	Extra   []string  // bundled embeddings
	Sure    bool      // names or widths tell the family; else it is the first that has such layers
}

// Parse groups the tensors of an adapter by layer and finds each one's algorithm.
func Parse(path string, src Source) (*Adapter, error) { return ParseIn(path, src, "") }

// ParseIn is [Parse] for an adapter that is known to be of a family; "" is none.
func ParseIn(path string, src Source, family string) (*Adapter, error) {
	p := &Adapter{Path: path}
	var names []string
	for _, n := range src.Names() {
		if strings.HasPrefix(n, "bundle_emb.") {
			p.Extra = append(p.Extra, n)
		} else {
			names = append(names, n)
		}
	}
	cross := crossWidth(src, names)
	layers, unknown := Fitting(names, cross)
	p.Sure = cross > 0 || layers.Family == SDXL
	if family != "" && family != layers.Family {
		layers, unknown = FamilyLayers(family), lacking(FamilyLayers(family), names)
	}
	if len(unknown) > 0 {
		return nil, Refuse(path, "belong to no layer of "+Describe(layers.Family), unknown, len(names)).Advise("the names are of no form that this version knows")
	}
	p.Layers = layers
	by := map[string]*Module{}
	for _, n := range names {
		layer, suffix, _ := layers.Split(n)
		id := string(layer.Component) + "." + layer.Path
		m := by[id]
		if m == nil {
			m = &Module{Layer: layer, keys: map[string]string{}, path: path, src: src}
			by[id] = m
		}
		if twice, ok := m.keys[suffix]; ok {
			return nil, fault.BadInput(path, "%q and %q name the same tensor", twice, n).Advise("the file is mixed up: make it or download it again")
		}
		m.keys[suffix] = n
	}
	for _, layer := range layers.All() {
		if m := by[string(layer.Component)+"."+layer.Path]; m != nil {
			p.Modules = append(p.Modules, m)
		}
	}
	if len(p.Modules) == 0 {
		return nil, fault.BadInput(path, "holds no modules").Advise("pass an adapter: a LoRA .safetensors file")
	}
	if err := p.classify(); err != nil {
		return nil, err
	}
	return p, p.scales(src)
}

// crossWidth returns the width of the text states that the adapter's cross attention reads; 0 where no tensor tells it.
func crossWidth(src Source, names []string) int {
	for _, n := range names {
		if !strings.Contains(n, "attn2") || !strings.Contains(n, "to_k") {
			continue
		}
		for _, end := range []string{"lora_down.weight", "lora_A.weight", "lora.down.weight", ".diff", "hada_w1_b"} {
			if info, _ := src.Info(n); strings.HasSuffix(n, end) && len(info.Shape) >= 2 {
				return info.Shape[1]
			}
		}
	}
	return 0
}

// Refuse names the first five of the offending tensors and counts them.
func Refuse(path, what string, names []string, of int) *fault.Error {
	list, rest := names, ""
	if len(list) > 5 {
		list, rest = list[:5], ", …"
	}
	quoted := make([]string, len(list))
	for i, n := range list {
		quoted[i] = fmt.Sprintf("%q", n)
	}
	return fault.BadInput(path, "%d of %d tensors %s: %s%s", len(names), of, what, strings.Join(quoted, ", "), rest)
}

func (p *Adapter) classify() error {
	var strange []string
	total := 0
	for _, m := range p.Modules {
		total += len(m.keys)
		i := slices.IndexFunc(algos.All, func(a *algos.Algorithm) bool { return a.Is(m.Shape) })
		if i < 0 {
			strange = append(strange, slices.Sorted(maps.Values(m.keys))...)
			continue
		}
		m.Algo = algos.All[i]
		for _, suffix := range m.Suffixes() {
			if !slices.Contains(m.Algo.Keys, suffix) {
				strange = append(strange, m.keys[suffix])
			}
		}
	}
	if len(strange) > 0 {
		return Refuse(p.Path, "have a meaning that this version doesn't know", strange, total).Advise("the file is incomplete, or of an algorithm that this version doesn't read")
	}
	return p.whole(total)
}

// incomplete is what to do about a file whose tensors don't make whole layers.
const incomplete = "the file is incomplete or mixed up: make it or download it again"

// whole refuses half pairs, and low-rank pairs whose ranks differ.
func (p *Adapter) whole(total int) error {
	var halves []string
	for _, m := range p.Modules {
		for _, pair := range adapter.Pairs() {
			for i := range 2 {
				if m.Has(pair[i]) && !m.Has(pair[1-i]) {
					halves = append(halves, m.Key(pair[i]))
				}
			}
		}
	}
	if len(halves) > 0 {
		return Refuse(p.Path, "have no partner (lora_up without lora_down or the like)", halves, total).Advise("%s", incomplete)
	}
	for _, m := range p.Modules {
		down, up := m.Shape("lora_down.weight"), m.Shape("lora_up.weight")
		if m.Has("lora_down.weight") && (len(down) < 2 || len(up) < 2 || down[0] != up[1] || down[0] == 0) {
			return fault.BadInput(p.Path, "%q has shape %v and %q %v: the ranks don't match", m.Key("lora_down.weight"), down, m.Key("lora_up.weight"), up).Advise("%s", incomplete)
		}
	}
	return nil
}

// scales takes alphas from diffusers' metadata or peft's configuration where the tensors have none.
func (p *Adapter) scales(src Source) error {
	peft, err := adapter.PeftScale(p.Path)
	if err != nil {
		return err
	}
	var meta map[string]any
	json.Unmarshal([]byte(src.Metadata()["lora_adapter_metadata"]), &meta) // absent or of another form: no alphas from there
	for _, m := range p.Modules {
		if peft != nil {
			m.alpha, m.rank = peft(m.Layer.Path)
			m.hasAlpha, m.peft = true, true
			continue
		}
		if m.Has("alpha") {
			continue
		}
		part := string(m.Layer.Component) + "."
		m.alpha, m.hasAlpha = meta[part+"lora_alpha"].(float64)
		if pattern, ok := meta[part+"alpha_pattern"].(map[string]any); ok {
			for _, path := range []string{strings.TrimPrefix(m.Layer.Path, "text_model."), m.Layer.Path} {
				if a, ok := pattern[path].(float64); ok {
					m.alpha, m.hasAlpha = a, true
				}
			}
		}
	}
	return nil
}

// Has reports whether the module has a tensor with the suffix.
func (m *Module) Has(suffix string) bool { _, ok := m.keys[suffix]; return ok }

// Suffixes returns the module's suffixes in order of the alphabet.
func (m *Module) Suffixes() []string { return slices.Sorted(maps.Keys(m.keys)) }

// Shape returns the shape of a tensor, empty for a single number; nil where there is none.
func (m *Module) Shape(suffix string) []int {
	info, ok := m.src.Info(m.keys[suffix])
	if ok && info.Shape == nil {
		return []int{}
	}
	return info.Shape
}

// read reads a tensor; NaN and infinite values are refused.
func (m *Module) read(suffix string) (tensor.Tensor, error) {
	t, err := m.src.Read(m.keys[suffix])
	if err != nil {
		return t, err
	}
	if n, first := t.NonFinite(); n > 0 && !(suffix == "alpha" && m.Has("lokr_w1") && m.Has("lokr_w2")) { // that alpha means nothing
		return t, fault.BadInput(m.path, "tensor %q holds %d NaN or infinite values, the first at index %d", m.keys[suffix], n, first).
			Advise("the adapter is broken: its training diverged")
	}
	return t, nil
}

// Tensors reads the module as algos takes it: by suffix, with the alpha that only metadata know.
func (m *Module) Tensors() (map[string]tensor.Tensor, error) {
	all := map[string]tensor.Tensor{}
	for suffix := range m.keys {
		t, err := m.read(suffix)
		if err != nil {
			return nil, err
		}
		if suffix == "alpha" && tensor.Elems(t.Shape) == 1 {
			if n, _ := t.NonFinite(); n > 0 {
				continue
			}
		}
		if suffix == "dora_scale" {
			t.Shape = m.magnitudeShape(t.Shape)
		}
		all[suffix] = t
	}
	if m.hasAlpha {
		all["alpha"] = Number(m.alpha)
	}
	if w, both := all["lokr_w1"]; both && m.peft && m.Has("lokr_w2") { // peft scales two whole factors too
		v := w.Float32()
		for i := range v {
			v[i] = float32(float64(v[i]) * m.alpha / m.rank)
		}
		all["lokr_w1"] = tensor.FromFloat32(tensor.F32, w.Shape, v)
	}
	return all, nil
}

// magnitudeShape gives peft's vector of magnitudes, one per output, the shape that dora_scale has.
func (m *Module) magnitudeShape(shape []int) []int {
	if len(shape) != 1 {
		return shape
	}
	axes := max(len(m.Shape("lora_down.weight")), 2)
	full := slices.Repeat([]int{1}, axes)
	full[0] = shape[0]
	return full
}

// Rank returns the rank of a LoRA module.
func (m *Module) Rank() int {
	if s := m.Shape("lora_down.weight"); len(s) > 0 {
		return s[0]
	}
	return 0
}

// Number returns a float32 tensor of one number.
func Number(v float64) tensor.Tensor {
	return tensor.FromFloat32(tensor.F32, nil, []float32{float32(v)})
}

// Parts counts the modules of each component.
func (p *Adapter) Parts() map[arch.Component]int {
	n := map[arch.Component]int{}
	for _, m := range p.Modules {
		n[m.Layer.Component]++
	}
	return n
}

// Key returns the name that the tensor with the suffix has in the file.
func (m *Module) Key(suffix string) string { return m.keys[suffix] }

// Alpha returns alpha and whether the module says one, from a tensor, the metadata or peft's configuration.
func (m *Module) Alpha() (float64, bool, error) {
	if m.hasAlpha {
		return m.alpha, true, nil
	}
	if !m.Has("alpha") {
		return 0, false, nil
	}
	t, err := m.src.Read(m.keys["alpha"])
	if err != nil {
		return 0, false, err
	}
	if tensor.Elems(t.Shape) != 1 {
		return 0, false, fault.BadInput(m.path, "%q has shape %v, want one number", m.keys["alpha"], t.Shape).Advise("the file is incomplete or mixed up: make it or download it again")
	}
	return float64(t.Float32()[0]), true, nil
}

// Raw reads a tensor as it stands in the file, values that aren't finite included.
func (m *Module) Raw(suffix string) (tensor.Tensor, error) { return m.src.Read(m.keys[suffix]) }

// Target returns the layer that the factors tell, with the module's name in kohya's spelling; ok is false where they don't.
func (m *Module) Target(layers *Layers) (t algos.Target, ok bool) {
	t = algos.Target{Path: string(m.Layer.Component) + "." + m.Layer.Path, Name: layers.Module(m.Layer, Kohya), Bias: m.Has("diff_b"), Shape: m.WeightShape()}
	return t, t.Shape != nil
}
