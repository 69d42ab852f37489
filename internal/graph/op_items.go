package graph

import "lycoris/internal/kernels"

// AddItems adds s [N,C] to every row of x [N,...,C]: the same row of s for all rows of an item.
func (g *Graph) AddItems(x, s *Node) *Node {
	must(s.Elems() == x.shape[0]*x.Last(), "add %v to the items of %v", s.shape, x.shape)
	return g.add(addItems{x.shape[0]}, x.shape, x, s)
}

type addItems struct{ n int }

func (addItems) name() string   { return "add items" }
func (addItems) inPlace() []int { return []int{0} }

func (o addItems) run(b kernels.Backend, out, in [][]float32) {
	x, s := len(out[0])/o.n, len(in[1])/o.n
	for i := range o.n {
		b.AddBlocks(out[0][i*x:(i+1)*x], in[0][i*x:(i+1)*x], in[1][i*s:(i+1)*s], 1)
	}
}

func (addItems) grad(g *Graph, n, dy *Node, want []bool) []*Node {
	d := make([]*Node, 2)
	if want[0] {
		d[0] = dy
	}
	if want[1] {
		d[1] = g.Reshape(g.SumItems(dy), n.in[1].shape...)
	}
	return d
}
