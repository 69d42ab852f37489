package adapter

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"lycoris/internal/arch"
	"lycoris/internal/fault"
	"lycoris/internal/tensor"
)

// KeySet is what the package is told about an algorithm.
type KeySet struct {
	Algorithm string
	Keys      []string // suffixes of its tensors
	// Is reports whether a module is of this algorithm, from the shapes of its tensors by suffix (nil: absent). Sets are tried in order.
	Is func(shape func(suffix string) []int) bool
}

// File is an open adapter file.
type File struct {
	Path     string
	Modules  []*Module         // text encoder first, then the UNet, each in walk order
	Metadata map[string]string // nil if there is none
	Extra    []string          // tensors that belong to no module and are left alone: embeddings of a bundle
	NoAlpha  int               // modules without alpha: their scale is 1
	Unknown  []string          // tensors that fit no layer, of a file opened by OpenFor that allows them
	file     *tensor.File
	peft     *peftConfig // nil but for peft's folders
}

// Module is the tensors of one layer.
type Module struct {
	Target    *Target
	Algorithm string            // of the key set that fits
	keys      map[string]string // suffix to the tensor's name in the file
	alpha     float64           // from metadata or peft's configuration, where hasAlpha
	hasAlpha  bool
	whole     float64 // what lokr_w1 is multiplied by; 0 = 1
	file      *tensor.File
}

// Open opens an adapter for a model with the table and checks, from its header alone, that every tensor belongs to a layer, is complete and
// is of one of the algorithms. A file for another family is refused with a sentence that says which. A folder that peft wrote is an adapter too.
func Open(path string, table *Table, sets []KeySet) (*File, error) {
	return open(path, table, sets, func(f *File) error {
		return f.refuse("belong to no layer of the model", f.Unknown, len(f.file.Names())).Advise("use the base it was made for, or another adapter")
	})
}

// open is Open for any table; strangers is asked what to do about tensors that fit no layer.
func open(path string, table *Table, sets []KeySet, strangers func(*File) error) (*File, error) {
	peft, err := readPeft(path)
	if err != nil {
		return nil, err
	}
	tf, err := tensor.OpenFile(TensorsFile(path))
	if err != nil {
		return nil, err
	}
	f := &File{Path: path, Metadata: tf.Metadata(), file: tf, peft: peft}
	if err := f.read(table, sets, strangers); err != nil {
		tf.Close()
		return nil, err
	}
	return f, nil
}

func (f *File) read(table *Table, sets []KeySet, strangers func(*File) error) error {
	if what := otherFamily(f.file, table.Cross); what != "" && table.family == "" {
		return fault.BadInput(f.Path, "is %s, the model is SD1", what).Advise("use the base it was made for, or another adapter")
	}
	modules, unknown := map[*Target]*Module{}, []string(nil)
	for _, key := range f.file.Names() {
		if strings.HasPrefix(key, "bundle_emb.") {
			f.Extra = append(f.Extra, key)
			continue
		}
		target, suffix, ok := table.Split(key)
		if !ok {
			unknown = append(unknown, key)
			continue
		}
		m := modules[target]
		if m == nil {
			m = &Module{Target: target, keys: map[string]string{}, file: f.file}
			modules[target] = m
		}
		if twice, ok := m.keys[suffix]; ok {
			return fault.BadInput(f.Path, "%q and %q name the same tensor", twice, key)
		}
		m.keys[suffix] = key
	}
	f.Unknown = unknown
	if len(unknown) > 0 && len(modules) == 0 && table.family == "" {
		return f.notAdapter(unknown)
	}
	if len(unknown) > 0 {
		if err := strangers(f); err != nil {
			return err
		}
	}
	if len(modules) == 0 && len(f.Unknown) > 0 {
		return f.refuse("belong to no layer of the model", f.Unknown, len(f.file.Names())).Advise("use the base it was made for, or another adapter")
	}
	if len(modules) == 0 {
		return fault.BadInput(f.Path, "holds no modules").Advise("pass an adapter: a LoRA .safetensors file")
	}
	f.Modules = slices.SortedFunc(maps.Values(modules), func(a, b *Module) int { return a.Target.order - b.Target.order })
	if err := f.classify(sets); err != nil {
		return err
	}
	if err := f.checkPairs(); err != nil {
		return err
	}
	f.alphas()
	return nil
}

// notAdapter refuses a file of which no tensor fits.
func (f *File) notAdapter(names []string) error {
	if !slices.ContainsFunc(names, func(n string) bool { return suffixAlgorithm(n) != "" }) {
		return fault.BadInput(f.Path, "is not an adapter: none of its %d tensors is a factor of one (%q, …)", len(names), names[0]).
			Advise("pass an adapter: a LoRA .safetensors file; a base model goes to --model")
	}
	return f.refuse("belong to no layer of the model", names, len(names)).Advise("use the base it was made for, or another adapter")
}

// refuse names the first five of the offending keys and counts them.
func (f *File) refuse(what string, keys []string, of int) *fault.Error {
	list, rest := keys, ""
	if len(list) > 5 {
		list, rest = list[:5], ", …"
	}
	quoted := make([]string, len(list))
	for i, k := range list {
		quoted[i] = fmt.Sprintf("%q", k)
	}
	return fault.BadInput(f.Path, "%d of %d tensors %s: %s%s", len(keys), of, what, strings.Join(quoted, ", "), rest)
}

// classify finds each module's algorithm and refuses suffixes that aren't its.
func (f *File) classify(sets []KeySet) error {
	var strange []string
	others := map[string]int{} // modules of algorithms that aren't in sets
	for _, m := range f.Modules {
		i := slices.IndexFunc(sets, func(s KeySet) bool { return s.Is(m.Shape) })
		if i < 0 {
			name := ""
			for suffix := range m.keys {
				name = max(name, suffixAlgorithm("."+suffix))
			}
			if name == "" {
				strange = append(strange, slices.Sorted(maps.Values(m.keys))...)
			} else {
				others[name]++
			}
			continue
		}
		m.Algorithm = sets[i].Algorithm
		for _, suffix := range m.Suffixes() {
			if !slices.Contains(sets[i].Keys, suffix) {
				strange = append(strange, m.keys[suffix])
			}
		}
	}
	var known []string
	for _, s := range sets {
		known = append(known, s.Algorithm)
	}
	for _, name := range slices.Sorted(maps.Keys(others)) {
		return fault.BadInput(f.Path, "%d of %d modules are %s, which this version doesn't read", others[name], len(f.Modules), name).
			Advise("it reads %s", strings.Join(known, ", "))
	}
	if len(strange) > 0 {
		return f.refuse("have a meaning that this version doesn't know", strange, len(f.file.Names())).Advise("it reads %s", strings.Join(known, ", "))
	}
	return nil
}

// pairs are suffixes of which neither stands without the other.
var pairs = [][2]string{{"lora_down.weight", "lora_up.weight"}, {"hada_w1_a", "hada_w1_b"}, {"hada_w2_a", "hada_w2_b"}, {"hada_w1_a", "hada_w2_a"},
	{"hada_t1", "hada_t2"}, {"lokr_w1_a", "lokr_w1_b"}, {"lokr_w2_a", "lokr_w2_b"}, {"a1.weight", "a2.weight"}, {"b1.weight", "b2.weight"}}

// incomplete is what to do about a file whose tensors don't make whole layers.
const incomplete = "the file is incomplete or mixed up: make it or download it again"

// checkPairs refuses modules with half a pair, and low-rank pairs whose ranks differ.
func (f *File) checkPairs() error {
	var halves []string
	for _, m := range f.Modules {
		if m.Has("lora_mid.weight") && !m.Has("lora_down.weight") && !m.Has("lora_up.weight") {
			halves = append(halves, m.keys["lora_mid.weight"])
		}
		for _, p := range pairs {
			if m.Has(p[0]) && !m.Has(p[1]) {
				halves = append(halves, m.keys[p[0]])
			}
			if m.Has(p[1]) && !m.Has(p[0]) {
				halves = append(halves, m.keys[p[1]])
			}
		}
	}
	if len(halves) > 0 {
		return f.refuse("have no partner (lora_up without lora_down or the like)", halves, len(f.file.Names())).Advise("%s", incomplete)
	}
	for _, m := range f.Modules {
		if !m.Has("lora_down.weight") {
			continue
		}
		down, up := m.Shape("lora_down.weight"), m.Shape("lora_up.weight")
		if len(down) < 2 || len(up) < 2 || down[0] != up[1] || down[0] == 0 {
			return fault.BadInput(f.Path, "%q: lora_down has shape %v and lora_up %v: the ranks don't match", m.Target.Name, down, up).Advise("%s", incomplete)
		}
	}
	return nil
}

// alphas counts the modules without alpha, after taking it from peft's configuration or diffusers' metadata where these have it.
func (f *File) alphas() {
	if f.peft != nil {
		for _, m := range f.Modules {
			f.peft.apply(m)
		}
		return
	}
	var meta map[string]any
	json.Unmarshal([]byte(f.Metadata["lora_adapter_metadata"]), &meta) // absent or of another form: no alphas from there
	for _, m := range f.Modules {
		if m.Has("alpha") || !m.Has("lora_down.weight") {
			continue
		}
		part := string(m.Target.Component) + "."
		a, ok := meta[part+"lora_alpha"].(float64)
		if pattern, isMap := meta[part+"alpha_pattern"].(map[string]any); isMap {
			for _, path := range []string{strings.TrimPrefix(m.Target.Module.Path, "text_model."), m.Target.Module.Path} { // transformers 5 has no text_model level
				if v, is := pattern[path].(float64); is {
					a, ok = v, true
				}
			}
		}
		if m.alpha, m.hasAlpha = a, ok; !ok {
			f.NoAlpha++
		}
	}
}

// Count returns how many modules belong to component c.
func (f *File) Count(c arch.Component) int {
	n := 0
	for _, m := range f.Modules {
		if m.Target.Component == c {
			n++
		}
	}
	return n
}

// Read returns a tensor of Extra.
func (f *File) Read(name string) (tensor.Tensor, error) { return f.file.Read(name) }

// Close closes the file.
func (f *File) Close() error { return f.file.Close() }

// Suffixes returns the module's suffixes in order of the alphabet.
func (m *Module) Suffixes() []string { return slices.Sorted(maps.Keys(m.keys)) }

// Has reports whether the module has a tensor with the suffix.
func (m *Module) Has(suffix string) bool { _, ok := m.keys[suffix]; return ok }

// Shape returns the shape of a tensor, empty for a single number; nil if there is none.
func (m *Module) Shape(suffix string) []int {
	info, ok := m.file.Info(m.keys[suffix])
	if ok && info.Shape == nil {
		return []int{}
	}
	return info.Shape
}

// Tensors reads the module's tensors by suffix. NaN and infinite values are refused. An alpha that only the metadata or peft's configuration know is
// among them.
func (m *Module) Tensors() (map[string]tensor.Tensor, error) {
	all := make(map[string]tensor.Tensor, len(m.keys))
	for suffix, key := range m.keys {
		t, err := m.file.Read(key)
		if err != nil {
			return nil, err
		}
		if n, first := t.NonFinite(); n > 0 {
			if suffix == "alpha" && m.Has("lokr_w1") && m.Has("lokr_w2") {
				continue // means nothing beside two whole factors, and lycoris-lora writes a dim of 100000 as float16
			}
			return nil, fault.BadInput(m.file.Path(), "tensor %q holds %d NaN or infinite values, the first at index %d", key, n, first).
				Advise("the adapter is broken: its training diverged")
		}
		switch {
		case suffix == "lokr_w1" && m.whole != 0:
			t = scaled(t, m.whole)
		case suffix == "dora_scale" && strings.Contains(key, ".lora_magnitude_vector"):
			t = magnitudes(t, m.Target.Module.Shape)
		}
		all[suffix] = t
	}
	if m.hasAlpha {
		all["alpha"] = tensor.FromFloat32(tensor.F32, nil, []float32{float32(m.alpha)})
	}
	return all, nil
}
