package graph

import "lycoris/internal/kernels"

// Cayley returns the rotations (I+Q)·(I−Q)⁻¹ of the blocks a [N,S,S], Q = a − aᵀ. With limit above 0, the norm of Q over all blocks is bounded by it; see
// [kernels.Cayley].
func (g *Graph) Cayley(a *Node, limit float32) *Node {
	s := a.shape
	must(len(s) == 3 && s[1] == s[2], "rotations of %v", s)
	return g.add(cayley{kernels.Cayley{N: s[0], S: s[1], Limit: limit}}, s, a)
}

type cayley struct{ s kernels.Cayley }

func (cayley) name() string { return "rotation" }
func (o cayley) size() any  { return o.s }

func (o cayley) run(b kernels.Backend, out, in [][]float32) { b.Cayley(out[0], in[0], o.s) }

func (o cayley) grad(g *Graph, n, dy *Node, want []bool) []*Node {
	return []*Node{g.add(cayleyGrad(o), n.shape, dy, n, n.in[0])}
}

type cayleyGrad struct{ s kernels.Cayley }

func (cayleyGrad) name() string { return "rotation gradient" }
func (o cayleyGrad) size() any  { return o.s }

func (o cayleyGrad) run(b kernels.Backend, out, in [][]float32) {
	b.CayleyGrad(out[0], in[0], in[1], in[2], o.s)
}

func (cayleyGrad) grad(*Graph, *Node, *Node, []bool) []*Node { panic("graph: second derivative") }
