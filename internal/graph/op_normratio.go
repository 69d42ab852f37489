package graph

import "lycoris/internal/kernels"

// NormRatio returns f = mu·(d/(√squares+eps) − 1) + 1, element by element: what a block with the sum of squares squares is scaled by so that its norm
// becomes d, at strength mu. Squares below 0, which rounding can make, count as 0.
func (g *Graph) NormRatio(d, squares *Node, eps, mu float32) *Node {
	mustSame("norm ratio", d, squares)
	return g.add(normRatio{eps, mu}, d.shape, d, squares)
}

type normRatio struct{ eps, mu float32 }

func (normRatio) name() string { return "norm ratio" }

func (o normRatio) run(b kernels.Backend, out, in [][]float32) {
	b.NormRatio(out[0], in[0], in[1], o.eps, o.mu)
}

func (o normRatio) grad(g *Graph, n, dy *Node, want []bool) []*Node {
	grads := g.add(normRatioGrad(o), n.in[0].shape, dy, n.in[0], n.in[1])
	return []*Node{grads, g.output(grads, n.in[1].shape...)}
}

// normRatioGrad writes the gradients of d, mu·df/n, and of squares, -mu·df·d/(2·n²·√squares), n = √squares + eps; the second is 0 for a norm of 0.
type normRatioGrad struct{ eps, mu float32 }

func (normRatioGrad) name() string { return "norm ratio gradient" }
func (normRatioGrad) skips()       {}

func (o normRatioGrad) run(b kernels.Backend, out, in [][]float32) {
	b.NormRatioGrad(out[0], out[1], in[0], in[1], in[2], o.eps, o.mu)
}

func (normRatioGrad) grad(*Graph, *Node, *Node, []bool) []*Node { panic("graph: second derivative") }
