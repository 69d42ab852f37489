package adapter

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"lycoris/internal/arch"
	"lycoris/internal/fault"
	"lycoris/internal/tensor"
)

// AnyFile is an adapter file opened without a base model, for tools that work on the factors alone.
type AnyFile struct {
	Path     string
	Modules  []*AnyModule      // in order of their names
	Metadata map[string]string // nil if there is none
	Extra    []string          // tensors that belong to no module: embeddings of a bundle
	NoAlpha  int               // modules without alpha: their scale is 1
	Family   string            // "sd1", "sd2", "sdxl", or "" where neither names, widths nor metadata tell
	file     *tensor.File
}

// AnyModule is the tensors of one layer, whatever model that is in. Its Target holds what names and shapes tell: the component, a dotted path where the file has
// one, and the weight's shape where the tensors or the layer's name give it (nil: they don't).
type AnyModule struct {
	*Module
	Name string // as in the file, up to the suffix
}

// OpenAny opens an adapter for whatever model and checks, from its header alone, that its tensors are whole modules of the algorithms. Names stay as they are:
// kohya's, LyCORIS's, LDM's flat ones, or dotted paths of diffusers and peft. Adapters for models of other kinds than Stable Diffusion's are refused.
func OpenAny(path string, sets []KeySet) (*AnyFile, error) {
	peft, err := readPeft(path)
	if err != nil {
		return nil, err
	}
	tf, err := tensor.OpenFile(TensorsFile(path))
	if err != nil {
		return nil, err
	}
	a := &AnyFile{Path: path, Metadata: tf.Metadata(), file: tf}
	if err := a.read(&File{Path: path, Metadata: a.Metadata, file: tf, peft: peft}, sets); err != nil {
		tf.Close()
		return nil, err
	}
	return a, nil
}

func (a *AnyFile) read(f *File, sets []KeySet) error {
	if what := foreignFamily(f.file.Names()); what != "" {
		return fault.BadInput(f.Path, "is %s, which is not supported", what).Advise("pass an adapter for SD1, SD2 or SDXL")
	}
	modules, unknown := map[string]*Module{}, []string(nil)
	known := knownSuffixes(sets)
	for _, key := range f.file.Names() {
		if strings.HasPrefix(key, "bundle_emb.") {
			a.Extra = append(a.Extra, key)
			continue
		}
		name, suffix, ok := splitAny(key, known)
		if !ok {
			unknown = append(unknown, key)
			continue
		}
		m := modules[name]
		if m == nil {
			m = &Module{Target: &Target{Name: name, Component: componentOf(name)}, keys: map[string]string{}, file: f.file}
			modules[name] = m
		}
		if twice, ok := m.keys[suffix]; ok {
			return fault.BadInput(f.Path, "%q and %q name the same tensor", twice, key)
		}
		m.keys[suffix] = key
	}
	switch {
	case len(unknown) > 0 && len(modules) == 0:
		return f.notAdapter(unknown)
	case len(unknown) > 0:
		return f.refuse("are not tensors of an adapter", unknown, len(f.file.Names())).Advise("pass an adapter: a LoRA .safetensors file")
	case len(modules) == 0:
		return fault.BadInput(f.Path, "holds no modules").Advise("pass an adapter: a LoRA .safetensors file")
	}
	f.Modules = slices.SortedFunc(maps.Values(modules), func(x, y *Module) int { return cmp.Compare(x.Target.Name, y.Target.Name) })
	if err := f.classify(sets); err != nil {
		return err
	}
	if err := f.checkPairs(); err != nil {
		return err
	}
	a.Family = family(f.Modules, f.Metadata)
	for _, m := range f.Modules {
		m.Target.Module = arch.Module{Path: dottedPath(m.Target.Name), Shape: m.weightShape(a.Family)}
		a.Modules = append(a.Modules, &AnyModule{Module: m, Name: m.Target.Name})
	}
	f.alphas()
	a.NoAlpha = f.NoAlpha
	return nil
}

// knownSuffixes returns every suffix of the algorithms.
func knownSuffixes(sets []KeySet) map[string]bool {
	all := map[string]bool{}
	for _, s := range sets {
		for _, k := range s.Keys {
			all[k] = true
		}
	}
	return all
}

// namePrefixes begin the flat names of modules: a name with one of them has its suffix behind the first dot.
var namePrefixes = []string{"lora_", "lycoris_", "oft_"}

// splitAny takes a tensor's name apart without knowing the model: the module's name and the suffix in kohya's spelling.
func splitAny(key string, known map[string]bool) (name, suffix string, ok bool) {
	name, suffix, dotted := strings.Cut(key, ".")
	if dotted && slices.ContainsFunc(namePrefixes, func(p string) bool { return strings.HasPrefix(name, p) }) {
		for _, s := range dottedSuffixes {
			if "."+suffix == s.ends {
				return name, s.suffix, true
			}
		}
		return name, suffix, true // classify says what is wrong with it
	}
	for _, s := range dottedSuffixes {
		if path, fits := strings.CutSuffix(key, s.ends); fits && path != "" {
			return path, s.suffix, true
		}
	}
	return name, suffix, dotted && name != "" && known[suffix] && suffix != "weight" // IA3's is any layer's
}

// Key returns the name in the file of the module's tensor with the suffix, or the name that one would have.
func (m *AnyModule) Key(suffix string) string {
	if key, ok := m.keys[suffix]; ok {
		return key
	}
	if strings.Contains(m.Name, ".") { // as peft and diffusers spell it
		switch suffix {
		case "lora_down.weight":
			return m.Name + ".lora_A.weight"
		case "lora_up.weight":
			return m.Name + ".lora_B.weight"
		}
	}
	return m.Name + "." + suffix
}

// Stored returns the module's tensor with the suffix as it lies in the file: its values aren't looked at.
func (m *AnyModule) Stored(suffix string) (tensor.Tensor, error) { return m.file.Read(m.keys[suffix]) }

// DType returns the element type of the module's tensor with the suffix; there must be one.
func (m *AnyModule) DType(suffix string) tensor.DType {
	info, _ := m.file.Info(m.keys[suffix])
	return info.DType
}

// Read returns a tensor of Extra.
func (a *AnyFile) Read(name string) (tensor.Tensor, error) { return a.file.Read(name) }

// Tensors returns how many tensors the file has.
func (a *AnyFile) Tensors() int { return len(a.file.Names()) }

// Size returns the file's length in bytes.
func (a *AnyFile) Size() int64 { return a.file.Size() }

// Unchanged returns an error if the file was written to since it was opened.
func (a *AnyFile) Unchanged() error { return a.file.Unchanged() }

// Close closes the file.
func (a *AnyFile) Close() error { return a.file.Close() }
