package algos

import (
	"lycoris/internal/graph"
	"lycoris/internal/nn"
	"lycoris/internal/tensor"
)

// module is what every adapter has. An algorithm's type embeds it and adds Algorithm, Forward, Change and Tensors.
type module struct {
	target  Target
	options Options
	factors []*Factor
	inputs  []StepInput
}

func (m *module) Target() Target      { return m.target }
func (m *module) Options() Options    { return m.options }
func (m *module) Rank() int           { return m.options.Rank }
func (m *module) Factors() []*Factor  { return m.factors }
func (m *module) Inputs() []StepInput { return m.inputs }

// factor makes a factor of m with key and initial values; nil values are zeros. Factors are in the order in which they are made.
func (m *module) factor(key string, values []float32, shape ...int) *Factor {
	f := newFactor(m.target, key, values, shape...)
	m.factors = append(m.factors, f)
	return f
}

// fileForm returns the file form of factors whose key in files is their own: as they are, absent ones left out.
func (m *module) fileForm(factors ...*Factor) []tensor.Named {
	var all []tensor.Named
	for _, f := range factors {
		if f != nil {
			all = append(all, tensor.Named{Name: f.Param.Name[len(m.target.Name)+1:], Tensor: tensor.FromFloat32(tensor.F32, f.Param.Shape, f.Host)})
		}
	}
	return all
}

// changer is an adapter whose weight change can be emitted.
type changer interface {
	Target() Target
	Change(b *nn.Builder, w *graph.Node) *graph.Node
}

// weigher is a changer that can emit the changed weight W+ΔW itself, for less than W and ΔW apart; nil where it can't.
type weigher interface {
	changed(b *nn.Builder, w *graph.Node) *graph.Node
}

// throughWeight emits the layer with the weight W+ΔW: the form that every algorithm has, with one product where base(x) + op(x, ΔW) would take two. The
// weight, its change and everything they are made of are never kept for the gradient.
func (m *module) throughWeight(b *nn.Builder, l *nn.Layer, x *graph.Node, extra nn.Extra, a changer) *graph.Node {
	g := b.G
	var w, change *graph.Node
	if l.Result != nil || m.options.NeuronDropout > 0 {
		base := l.Base(g, x, extra)
		g.Transient(func() { w = a.Change(b, g.Frozen(l.W, nil)) })
		return m.options.addDelta(b, m.target, base, product(b, l, x, w, nil, nn.Extra{}))
	}
	g.Transient(func() {
		if c, ok := a.(weigher); ok {
			w = c.changed(b, g.Frozen(l.W, nil))
		}
		if w != nil {
			return
		}
		change = g.Reshape(a.Change(b, g.Frozen(l.W, nil)), l.W.Shape...)
		if !linear(l, extra) {
			w = g.Frozen(l.W, change)
		}
	})
	if w == nil {
		return g.LinearChanged(x, l.W, change, l.Bias, extra.Add)
	}
	return product(b, l, x, w, l.Bias, extra)
}

// product emits the layer's product with the weight w, which is a node: x·wᵀ or the convolution, + bias + extra.
func product(b *nn.Builder, l *nn.Layer, x, w, bias *graph.Node, extra nn.Extra) *graph.Node {
	g := b.G
	o, i := l.W.Shape[0], l.W.Shape[1]
	if !linear(l, extra) {
		kernel := l.W.Shape
		if len(kernel) == 2 {
			kernel = []int{o, i, 1, 1}
		}
		g.Transient(func() { w = g.Reshape(w, kernel...) })
		return g.ConvFree(x, w, bias, extra.PerItem, extra.Add, l.Conv)
	}
	g.Transient(func() { w = g.Reshape(w, o, i) })
	return g.MatMul(x, w, graph.MatMulOptions{TransB: true, Add: extra.Add, Bias: bias})
}

// linear reports whether the layer's product is one of matrices.
func linear(l *nn.Layer, extra nn.Extra) bool {
	return tensor.Elems(l.W.Shape) == l.W.Shape[0]*l.W.Shape[1] && l.Conv.Stride <= 1 && extra.PerItem == nil
}

// rows returns the rows of the layer's product: tokens, or output pixels.
func rows(l *nn.Layer, x *graph.Node) int {
	if !l.IsConv {
		return x.Elems() / x.Last()
	}
	s, k, stride := x.Shape(), l.W.Shape[2:], max(l.Conv.Stride, 1)
	h, w := s[1], s[2]
	if l.Conv.Upsample {
		h, w = 2*h, 2*w
	}
	p := l.Conv.Pad
	return s[0] * ((h+p[0]+p[2]-k[0])/stride + 1) * ((w+p[1]+p[3]-k[1])/stride + 1)
}
