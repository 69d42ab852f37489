package algos

import (
	"math"

	"lycoris/internal/fault"
	"lycoris/internal/graph"
	"lycoris/internal/nn"
	"lycoris/internal/tensor"
)

// keyDoRA is the tensor of magnitudes.
const keyDoRA = "dora_scale"

// doraEps is what lycoris-lora adds to a norm: the machine epsilon of float32.
const doraEps = 1.1920929e-07

// dora takes a weight with its change apart into direction and a trained magnitude d (DoRA: Liu et al., 2024, equation 5):
//
//	W' = (W+ΔW) ∘ f,  f = μ·(d/(‖W+ΔW‖+ε) − 1) + 1
//
// with a norm per output, over inputs and window, or per input channel, over outputs and window. As in lycoris-lora, and unlike the paper, the gradient goes
// through the norm, and the strength μ acts on f alone: ΔW is whole inside. Rows are dropped from ΔW before; module dropout leaves out all of W'−W. A nil *dora
// decomposes nothing.
type dora struct {
	target    Target
	options   Options // of the whole: strength, module dropout
	byOutput  bool
	magnitude *Factor // [O,1] or [O,1,1,1]; [1,I] or [1,I,1,1]
	loaded    bool    // the magnitude came from a file
}

// newDoRA gives m a magnitude along axis, "in" or "out"; nil for "". It takes over m's strength and module dropout, which act on the whole, and leaves m the
// form by the weight: there is no other. Call it before m's graph is built; [dora.start] gives the first values.
func (m *module) newDoRA(axis string) *dora {
	if axis == "" {
		return nil
	}
	d := &dora{target: m.target, options: m.options, byOutput: axis == "out"}
	shape := make([]int, len(m.target.Shape))
	for i := range shape {
		shape[i] = 1
	}
	if d.byOutput {
		shape[0] = m.target.Out()
	} else {
		shape[1] = m.target.In()
	}
	d.magnitude = m.factor(keyDoRA, nil, shape...)
	m.options.Strength, m.options.ModuleDropout, m.options.Form = 0, 0, FormWeight
	m.inputs = append(m.options.stepInputs(m.target), d.options.moduleInputs(m.target)...)
	return d
}

// loadDoRA is newDoRA for the magnitudes of a file, whose shape says the axis; nil where the file has none.
func (m *module) loadDoRA(tensors map[string]tensor.Tensor) (*dora, error) {
	stored, ok := tensors[keyDoRA]
	if !ok {
		return nil, nil
	}
	t, axis := m.target, ""
	s := stored.Shape
	switch flat := len(s) >= 2 && tensor.Elems(s) == s[0]*s[1]; { // 1 beyond the second axis
	case flat && s[0] == t.Out() && s[1] == 1:
		axis = "out"
	case flat && s[0] == 1 && s[1] == t.In():
		axis = "in"
	default:
		return nil, fault.BadInput("", "%q: %s has shape %v, want %v or %v", t.Name, keyDoRA, s, []int{t.Out(), 1}, []int{1, t.In()})
	}
	d := m.newDoRA(axis)
	d.magnitude.Host, d.loaded = stored.Float32(), true
	return d, nil
}

// inner is the stride of the blocks of a weight that share a magnitude (kernels.Backend.MulBlocks).
func (d *dora) inner() int {
	if d.byOutput {
		return tensor.Elems(d.target.Shape[1:])
	}
	return d.target.Window()
}

// change emits W'−W from the frozen weight's values w and the change delta, whole and with its rows masked; delta itself without decomposition.
func (d *dora) change(b *nn.Builder, w, delta *graph.Node) *graph.Node {
	if d == nil {
		return delta
	}
	return d.options.maskModule(b, d.target, b.G.Combine(d.decomposed(b, w, delta), 1, w, -1))
}

// weight emits W', for less than W and change would cost; nil where the change must be had by itself.
func (d *dora) weight(b *nn.Builder, w, delta *graph.Node) *graph.Node {
	if d == nil || d.options.ModuleDropout > 0 {
		return nil
	}
	return d.decomposed(b, w, delta)
}

func (d *dora) decomposed(b *nn.Builder, w, delta *graph.Node) *graph.Node {
	g := b.G
	m := g.Add(w, delta)
	magnitude := b.Param(d.magnitude.Param)
	squares := g.SumBlocks(m, m, magnitude.Shape(), d.inner())
	return g.MulBlocks(m, g.NormRatio(magnitude, squares, doraEps, float32(d.options.strength())), d.inner())
}

// starts reports whether the magnitude has still to get its first values from the frozen weight.
func (d *dora) starts() bool { return d != nil && !d.loaded }

// start makes the magnitudes the norms of the frozen weight: W' = W.
func (d *dora) start(weight []float32) error {
	if !d.starts() {
		return nil
	}
	n, inner := len(d.magnitude.Host), d.inner()
	sums := make([]float64, n)
	for i, v := range weight {
		sums[i/inner%n] += float64(v) * float64(v)
	}
	for i, s := range sums {
		d.magnitude.Host[i] = float32(math.Sqrt(s))
	}
	return nil
}

// tensors returns the file form.
func (d *dora) tensors() []tensor.Named {
	if d == nil {
		return nil
	}
	return []tensor.Named{{Name: keyDoRA, Tensor: tensor.FromFloat32(tensor.F32, d.magnitude.Param.Shape, d.magnitude.Host)}}
}
