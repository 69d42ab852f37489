package modelfile

import (
	"fmt"
	"slices"
	"strings"

	"lycoris/internal/arch"
	"lycoris/internal/fault"
)

// tables finds tensors by name in the files of a component.
type tables struct {
	files  []*File
	prefix string
	index  map[string]*entry // by name without the prefix
}

// entry is a tensor and the file that it lies in.
type entry struct {
	file *File
	t    *Tensor
}

func newTables(prefix string, files ...*File) *tables {
	tt := &tables{files: files, prefix: prefix, index: map[string]*entry{}}
	for _, f := range files {
		for i := range f.Tensors {
			if name, ok := strings.CutPrefix(f.Tensors[i].Name, prefix); ok {
				tt.index[name] = &entry{f, &f.Tensors[i]}
			}
		}
	}
	return tt
}

// header lets the structure be read off.
func (tt *tables) header(path string) header {
	return header{path, func(name string) []int {
		if e := tt.index[name]; e != nil {
			return append([]int{}, e.t.Shape...) // not nil for a single number
		}
		return nil
	}}
}

// bind gives the tensors of component c their parts and the modules the shapes of the file.
func (m *Model) bind(c string, modules []arch.Module, names namer, tt *tables) error {
	var missing []string
	for i := range modules {
		mod := &modules[i]
		for _, param := range paramsOf(*mod) {
			e, at := tt.find(*mod, param, names)
			if e == nil {
				missing = append(missing, mod.Path+"."+param)
				continue
			}
			if err := m.place(c, mod, param, e, at); err != nil {
				return err
			}
		}
	}
	if len(missing) > 0 {
		list, rest := missing, ""
		if len(list) > 5 {
			list, rest = list[:5], fmt.Sprintf(" and %d more", len(missing)-5)
		}
		return fault.BadInput(m.Path, "%s lacks %d of its tensors: %q%s", c, len(missing), list, rest).Advise("the file is incomplete or of a kind that this version doesn't know")
	}
	m.modules[c] = modules
	return nil
}

func paramsOf(m arch.Module) []string {
	if m.Bias {
		return []string{"weight", "bias"}
	}
	return []string{"weight"}
}

func (tt *tables) find(m arch.Module, param string, names namer) (*entry, location) {
	for _, at := range names(m, param) {
		if e := tt.index[at.name]; e != nil {
			return e, at
		}
	}
	return nil, location{}
}

// place says that a parameter of mod is the tensor e, or a part of its rows.
func (m *Model) place(c string, mod *arch.Module, param string, e *entry, at location) error {
	shape := slices.Clone(e.t.Shape)
	if len(shape) == 0 {
		return fault.BadInput(e.file.Path, "tensor %q is a single number, not the %s of a layer", e.t.Name, param)
	}
	rows := [2]int{0, shape[0]}
	if at.of > 0 {
		if shape[0]%at.of != 0 {
			return fault.BadInput(e.file.Path, "tensor %q has %d rows, which are not %d equal parts", e.t.Name, shape[0], at.of)
		}
		shape[0] /= at.of
		rows = [2]int{at.part * shape[0], (at.part + 1) * shape[0]}
	}
	if !e.t.DType.IsFloat() && !e.t.DType.IsF8() {
		return fault.BadInput(e.file.Path, "tensor %q: element type %s, a weight is F32, F16, BF16, F64 or F8", e.t.Name, e.t.DType).
			Advise("quantised models can't be changed: use the model that it was made of")
	}
	if param == "weight" {
		axes := map[arch.Kind][]int{arch.Linear: {2, 4}, arch.Conv2d: {4, 2}, arch.GroupNorm: {1}, arch.LayerNorm: {1}, arch.Embedding: {2}}[mod.Kind]
		if !slices.Contains(axes, len(shape)) {
			return fault.BadInput(e.file.Path, "tensor %q has shape %v, which is no %s's", e.t.Name, e.t.Shape, mod.Kind)
		}
		mod.Shape = shape
	} else if len(shape) != 1 || shape[0] != mod.Shape[0] {
		return fault.BadInput(e.file.Path, "tensor %q has shape %v, want [%d]", e.t.Name, e.t.Shape, mod.Shape[0])
	}
	e.t.Role = Module
	e.t.Parts = append(e.t.Parts, Part{c, mod.Path, param, rows})
	slices.SortFunc(e.t.Parts, func(a, b Part) int { return a.Rows[0] - b.Rows[0] })
	m.places[placeKey(c, mod.Path, param)] = Place{e.file, e.t.Name, rows}
	return nil
}
