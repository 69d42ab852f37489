package graph

import (
	"lycoris/internal/kernels"
	"lycoris/internal/tensor"
)

// LinearChanged returns x·(W+D)ᵀ + bias + add for x [...,I], a frozen w [O,I] or [O,I,1,1] and d like it: shape [...,O]. The product adds W + D up
// itself; only the gradient of x stores it. bias and add may be nil.
func (g *Graph) LinearChanged(x *Node, w *Weight, d, bias, add *Node) *Node {
	o, i := w.Shape[0], w.Shape[1]
	must(x.Last() == i, "linear %s %v on %v", w.Name, w.Shape, x.shape)
	must(tensor.Elems(w.Shape) == o*i && d.Elems() == o*i, "linear %s %v changed by %v", w.Name, w.Shape, d.shape)
	must(add == nil || add.Elems() == x.rows()*o, "linear %s %v: add", w.Name, w.Shape)
	return g.add(linearChanged{w}, withLast(x.shape, o), x, d, bias, add)
}

type linearChanged struct{ w *Weight }

func (o linearChanged) name() string { return "linear changed " + o.w.Name }
func (linearChanged) inPlace() []int { return []int{3} }
func (linearChanged) addSlot() int   { return 3 }
func (o linearChanged) size() any    { return linear(o).size() }

func (o linearChanged) run(b kernels.Backend, out, in [][]float32) {
	b.LinearChanged(out[0], in[0], o.w.Packed, in[1], len(in[0])/o.w.Shape[1], kernels.Epilogue{Bias: in[2], Add: in[3]})
}

// grad: dx = dy·(W+D), dD = dyᵀ·x.
func (o linearChanged) grad(g *Graph, n, dy *Node, want []bool) []*Node {
	x, change := n.in[0], n.in[1]
	d := make([]*Node, 4)
	if want[1] {
		d[1] = g.Reshape(g.MatMul(dy, x, MatMulOptions{TransA: true}), change.shape...)
	}
	if want[0] {
		sum := g.Reshape(g.Frozen(o.w, change), o.w.Shape[0], o.w.Shape[1])
		d[0] = g.Reshape(g.MatMul(dy, sum, MatMulOptions{}), x.shape...)
	}
	if want[2] {
		d[2] = g.SumBlocks(dy, nil, n.in[2].shape, 1)
	}
	if want[3] {
		d[3] = g.Reshape(dy, n.in[3].shape...)
	}
	return d
}
