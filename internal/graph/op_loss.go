package graph

import "lycoris/internal/kernels"

// SquaredError returns, for each item of the first axis, the mean of (pred-target)²: [N].
func (g *Graph) SquaredError(pred, target *Node) *Node {
	mustSame("squared error", pred, target)
	return g.add(squaredError{pred.shape[0]}, []int{pred.shape[0]}, pred, target)
}

type squaredError struct{ n int }

func (squaredError) name() string { return "squared error" }

func (o squaredError) run(b kernels.Backend, out, in [][]float32) {
	b.SquaredError(out[0], in[0], in[1], o.n)
}

func (o squaredError) grad(g *Graph, n, dy *Node, want []bool) []*Node {
	must(!want[1], "squared error: the target takes no gradient")
	return []*Node{g.add(squaredErrorGrad(o), n.in[0].shape, dy, n.in[0], n.in[1]), nil}
}

type squaredErrorGrad struct{ n int }

func (squaredErrorGrad) name() string { return "squared error gradient" }

func (o squaredErrorGrad) run(b kernels.Backend, out, in [][]float32) {
	b.SquaredErrorGrad(out[0], in[0], in[1], in[2], o.n)
}

func (squaredErrorGrad) grad(*Graph, *Node, *Node, []bool) []*Node {
	panic("graph: second derivative")
}
