package graph

import "lycoris/internal/kernels"

// GroupNorm normalises x [N,...,C] over groups of channels and all pixels of an item; with silu the result goes through SiLU. gamma and beta are [C].
func (g *Graph) GroupNorm(x, gamma, beta *Node, groups int, eps float32, silu bool) *Node {
	n, c := x.shape[0], x.Last()
	must(c%groups == 0 && gamma.Elems() == c && beta.Elems() == c, "group norm of %v with %d groups, gamma %v", x.shape, groups, gamma.shape)
	s := kernels.GroupNorm{N: n, P: x.Elems() / (n * c), C: c, Groups: groups, Eps: eps, SiLU: silu}
	y := g.add(groupNorm{s}, x.shape, x, gamma, beta)
	g.output(y, n, groups, 2)
	return y
}

type groupNorm struct{ s kernels.GroupNorm }

func (groupNorm) name() string { return "group norm" }
func (o groupNorm) size() any  { return o.s }

func (o groupNorm) run(b kernels.Backend, out, in [][]float32) {
	b.GroupNorm(out[0], out[1], in[0], in[1], in[2], o.s)
}

func (o groupNorm) grad(g *Graph, n, dy *Node, want []bool) []*Node {
	x, gamma, beta, stats := n.in[0], n.in[1], n.in[2], n.aux[0]
	d := make([]*Node, 3)
	if want[1] || want[2] {
		d[1] = g.add(groupNormParamGrad(o), gamma.shape, dy, x, stats, gamma, beta)
		d[2] = g.output(d[1], beta.shape...)
	}
	if want[0] {
		d[0] = g.add(groupNormGrad(o), x.shape, dy, x, stats, gamma, beta, nil)
	}
	return d
}

type groupNormGrad struct{ s kernels.GroupNorm }

func (groupNormGrad) name() string   { return "group norm gradient" }
func (groupNormGrad) inPlace() []int { return []int{5} }
func (groupNormGrad) addSlot() int   { return 5 }
func (o groupNormGrad) size() any    { return o.s }

func (o groupNormGrad) run(b kernels.Backend, out, in [][]float32) {
	b.GroupNormGrad(out[0], in[0], in[1], in[2], in[3], in[4], in[5], o.s)
}

func (groupNormGrad) grad(*Graph, *Node, *Node, []bool) []*Node { panic("graph: second derivative") }

type groupNormParamGrad struct{ s kernels.GroupNorm }

func (groupNormParamGrad) name() string { return "group norm parameter gradient" }
func (o groupNormParamGrad) size() any  { return o.s }

func (o groupNormParamGrad) run(b kernels.Backend, out, in [][]float32) {
	b.GroupNormParamGrad(out[0], out[1], in[0], in[1], in[2], in[3], in[4], o.s)
}

func (groupNormParamGrad) grad(*Graph, *Node, *Node, []bool) []*Node {
	panic("graph: second derivative")
}

// LayerNorm normalises the rows of x [...,D]. gamma and beta are [D].
func (g *Graph) LayerNorm(x, gamma, beta *Node, eps float32) *Node {
	must(gamma.Elems() == x.Last() && beta.Elems() == x.Last(), "layer norm of %v, gamma %v", x.shape, gamma.shape)
	s := kernels.LayerNorm{M: x.rows(), D: x.Last(), Eps: eps}
	y := g.add(layerNorm{s}, x.shape, x, gamma, beta)
	g.output(y, s.M, 2)
	return y
}

type layerNorm struct{ s kernels.LayerNorm }

func (layerNorm) name() string { return "layer norm" }
func (o layerNorm) size() any  { return o.s }

func (o layerNorm) run(b kernels.Backend, out, in [][]float32) {
	b.LayerNorm(out[0], out[1], in[0], in[1], in[2], o.s)
}

func (o layerNorm) grad(g *Graph, n, dy *Node, want []bool) []*Node {
	x, gamma, stats := n.in[0], n.in[1], n.aux[0]
	d := make([]*Node, 3)
	if want[1] || want[2] {
		d[1] = g.add(layerNormParamGrad(o), gamma.shape, dy, x, stats)
		d[2] = g.output(d[1], n.in[2].shape...)
	}
	if want[0] {
		d[0] = g.add(layerNormGrad(o), x.shape, dy, x, stats, gamma, nil)
	}
	return d
}

type layerNormGrad struct{ s kernels.LayerNorm }

func (layerNormGrad) name() string   { return "layer norm gradient" }
func (layerNormGrad) inPlace() []int { return []int{4} }
func (layerNormGrad) addSlot() int   { return 4 }
func (o layerNormGrad) size() any    { return o.s }

func (o layerNormGrad) run(b kernels.Backend, out, in [][]float32) {
	b.LayerNormGrad(out[0], in[0], in[1], in[2], in[3], in[4], o.s)
}

func (layerNormGrad) grad(*Graph, *Node, *Node, []bool) []*Node { panic("graph: second derivative") }

type layerNormParamGrad struct{ s kernels.LayerNorm }

func (layerNormParamGrad) name() string { return "layer norm parameter gradient" }
func (o layerNormParamGrad) size() any  { return o.s }

func (o layerNormParamGrad) run(b kernels.Backend, out, in [][]float32) {
	b.LayerNormParamGrad(out[0], out[1], in[0], in[1], in[2], o.s)
}

func (layerNormParamGrad) grad(*Graph, *Node, *Node, []bool) []*Node {
	panic("graph: second derivative")
}
