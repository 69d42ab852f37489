package inspect

import (
	"math"

	"lycoris/internal/algos"
	"lycoris/internal/kernels"
	"lycoris/internal/loose"
	"lycoris/internal/tensor"
)

// Norms are sizes of an adapter's factors and changes. Frobenius norms throughout.
type Norms struct {
	Parts     map[string]PartNorm `json:"parts"`
	Modules   []ModuleNorm        `json:"modules"`
	NonFinite int                 `json:"non_finite"` // NaN and infinite values
	NeedBase  int                 `json:"need_base"`  // modules whose change depends on the base's weight and isn't computed
}

// PartNorm sums up the modules of a component.
type PartNorm struct {
	Modules int     `json:"modules"`
	Change  float64 `json:"change"` // √Σ‖ΔW‖²
	Largest float64 `json:"largest"`
	Module  string  `json:"module"` // the one of the largest
}

// ModuleNorm is one module.
type ModuleNorm struct {
	Name      string             `json:"name"`
	Part      string             `json:"part"`
	Algorithm string             `json:"algorithm"`
	Factors   map[string]float64 `json:"factors"`
	Change    *float64           `json:"change"`  // ‖ΔW‖ at strength 1; null where it isn't computed
	MaxAbs    *float64           `json:"max_abs"` // of ΔW
	NonFinite int                `json:"non_finite,omitempty"`
}

// norms reads every factor and computes every change that needs no base.
func norms(a *loose.Adapter, o Options) (*Norms, error) {
	n := &Norms{Parts: map[string]PartNorm{}}
	c := &changes{open: o.Backend}
	for _, m := range a.Modules {
		mod := ModuleNorm{Name: a.Layers.Module(m.Layer, loose.Kohya), Part: string(m.Layer.Component), Algorithm: m.Algo.Name, Factors: map[string]float64{}}
		for _, suffix := range m.Suffixes() {
			t, err := m.Raw(suffix)
			if err != nil {
				return nil, err
			}
			bad, _ := t.NonFinite()
			mod.NonFinite += bad
			if suffix != "alpha" && bad == 0 {
				mod.Factors[suffix], _ = size(t.Float32())
			}
		}
		n.NonFinite += mod.NonFinite
		switch {
		case m.NeedsWeight():
			n.NeedBase++
		case mod.NonFinite == 0:
			dw, err := c.of(a, m)
			if err != nil {
				return nil, err
			}
			norm, largest := size(dw)
			mod.Change, mod.MaxAbs = &norm, &largest
			p := n.Parts[mod.Part]
			p.Modules, p.Change = p.Modules+1, math.Hypot(p.Change, norm)
			if norm > p.Largest || p.Module == "" {
				p.Largest, p.Module = norm, mod.Name
			}
			n.Parts[mod.Part] = p
		}
		n.Modules = append(n.Modules, mod)
	}
	return n, nil
}

// size returns the norm and the largest magnitude.
func size(v []float32) (norm, largest float64) {
	var sum float64
	for _, x := range v {
		sum += float64(x) * float64(x)
		largest = max(largest, math.Abs(float64(x)))
	}
	return math.Sqrt(sum), largest
}

// changes computes the changes of modules that need no base.
type changes struct {
	open    func() (kernels.Backend, error)
	backend kernels.Backend
}

// of returns ΔW at strength 1, shaped like the weight that the factors tell.
func (c *changes) of(a *loose.Adapter, m *loose.Module) ([]float32, error) {
	if c.backend == nil {
		b, err := c.open()
		if err != nil {
			return nil, err
		}
		c.backend = b
	}
	t, ok := m.Target(a.Layers)
	if !ok {
		return nil, loose.Refuse(a.Path, "don't tell the size of their layer", []string{m.Key(m.Suffixes()[0])}, len(m.Suffixes()))
	}
	tensors, err := m.Tensors()
	if err != nil {
		return nil, err
	}
	ad, err := m.Algo.Load(t, tensors, algos.Options{})
	if err != nil {
		return nil, at(a.Path, err)
	}
	return algos.Change(c.backend, ad, tensor.FromFloat32(tensor.F32, t.Shape, make([]float32, tensor.Elems(t.Shape))))
}
