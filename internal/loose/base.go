package loose

import (
	"lycoris/internal/algos"
	"lycoris/internal/arch"
	"lycoris/internal/fault"
	"lycoris/internal/modelfile"
	"lycoris/internal/tensor"
)

// Base gives the layers of the model that an adapter was made for; without a model, their shapes from the factors.
type Base struct {
	model   *modelfile.Model // nil: none
	modules map[arch.Component]map[string]arch.Module
}

// OpenBase opens a model; with "" there is none.
func OpenBase(path string) (*Base, error) {
	if path == "" {
		return &Base{}, nil
	}
	m, err := modelfile.Open(path)
	if err != nil {
		return nil, err
	}
	b := &Base{model: m, modules: map[arch.Component]map[string]arch.Module{}}
	for _, name := range m.Components() {
		c := arch.Component(name)
		b.modules[c] = map[string]arch.Module{}
		for _, module := range m.Modules(name) {
			b.modules[c][module.Path] = module
		}
	}
	return b, nil
}

// Close closes the model.
func (b *Base) Close() {
	if b.model != nil {
		b.model.Close()
	}
}

// Target returns the layer of a module. Without a model its weight's shape is what the factors make.
func (b *Base) Target(path string, layers *Layers, m *Module) (algos.Target, error) {
	t, sized := m.Target(layers)
	if b.model != nil {
		module, ok := b.modules[m.Layer.Component][m.Layer.Path]
		if !ok {
			return t, fault.BadInput(path, "%q belongs to no layer of %q", t.Name, b.model.Path).Advise("use the base it was made for: --model FILE")
		}
		t.Shape, t.Bias, t.Stride, t.Pad = module.Shape, module.Bias, module.Stride, module.Pad
		return t, nil
	}
	if !sized {
		return t, fault.BadInput(path, "%q: its factors don't tell the layer's size", t.Name).Advise("name the base it was made for: --model FILE")
	}
	return t, nil
}

// Weight returns the frozen weight; zeros without a model, for algorithms whose change doesn't depend on it.
func (b *Base) Weight(m *Module, t algos.Target) (tensor.Tensor, error) {
	if b.model == nil {
		return tensor.FromFloat32(tensor.F32, t.Shape, make([]float32, tensor.Elems(t.Shape))), nil
	}
	place, ok := b.model.Find(string(m.Layer.Component), m.Layer.Path, "weight")
	if !ok {
		return tensor.Tensor{}, fault.BadInput(b.model.Path, "has no weight of %q", t.Name).Advise("use the base the adapter was made for: --model FILE")
	}
	w, err := b.model.Read(place.File, place.Name)
	if err != nil || len(w.Shape) == 0 {
		return w, err
	}
	row := len(w.Data) / max(w.Shape[0], 1) // a fused projection holds three layers, each some of its rows
	w.Data, w.Shape = w.Data[place.Rows[0]*row:place.Rows[1]*row], t.Shape
	return w, nil
}
