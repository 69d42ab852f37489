package graph

import (
	"lycoris/internal/kernels"
	"lycoris/internal/tensor"
)

// Frozen returns the values of w as a node, row-major float32, + add. add may be nil. It is large: build it inside [Graph.Transient].
func (g *Graph) Frozen(w *Weight, add *Node) *Node {
	if add != nil {
		must(add.Elems() == tensor.Elems(w.Shape), "frozen %s %v: add %v", w.Name, w.Shape, add.shape)
	}
	return g.add(frozen{w}, w.Shape, add)
}

type frozen struct{ w *Weight }

func (o frozen) name() string { return "values of " + o.w.Name }
func (frozen) inPlace() []int { return []int{0} }
func (frozen) addSlot() int   { return 0 }

func (o frozen) run(b kernels.Backend, out, in [][]float32) { b.Expand(out[0], o.w.Packed, in[0]) }

func (frozen) grad(g *Graph, n, dy *Node, want []bool) []*Node {
	return []*Node{g.Reshape(dy, n.in[0].shape...)}
}

// Detach returns x as a constant: no gradient goes through it.
func (g *Graph) Detach(x *Node) *Node { return g.add(view{constant: true}, x.shape, x) }

// Gate returns x; its gradient dx[i] = dy[i]·s[(i/inner) mod len(s)]. s takes no part in the value and has no gradient.
func (g *Graph) Gate(x, s *Node, inner int) *Node {
	must(inner > 0 && x.Elems()%(inner*s.Elems()) == 0, "gate of %v by %v, inner %d", x.shape, s.shape, inner)
	return g.add(view{gate: inner}, x.shape, x, s)
}

// Vector returns the frozen array that n is the leaf of; nil for every other node and for nil.
func (n *Node) Vector() *Vector {
	if n == nil {
		return nil
	}
	if l, ok := n.op.(vectorLeaf); ok {
		return l.v
	}
	return nil
}

// Squares returns the sums of squares of n groups of w's values, element i being of group (i/inner) mod n, as in [Graph.SumBlocks]: [n]. They are computed
// once for each weight.
func (g *Graph) Squares(w *Weight, n, inner int) *Node {
	must(tensor.Elems(w.Shape)%(n*inner) == 0, "squares of %s %v in %d groups, inner %d", w.Name, w.Shape, n, inner)
	return g.add(squares{w, inner}, []int{n})
}

type squares struct {
	w     *Weight
	inner int
}

func (o squares) name() string { return "squares of " + o.w.Name }

func (o squares) run(b kernels.Backend, out, _ [][]float32) {
	n := len(out[0])
	s := o.w.squares[[2]int{n, o.inner}]
	if s == nil {
		sums := make([]float64, n)
		values := b.Unpack(o.w.Packed)
		for at := 0; at < len(values); at += o.inner {
			sum := 0.0
			for _, v := range values[at : at+o.inner] {
				sum += float64(v) * float64(v)
			}
			sums[at/o.inner%n] += sum
		}
		s = make([]float32, n)
		for i, v := range sums {
			s[i] = float32(v)
		}
		if o.w.squares == nil {
			o.w.squares = map[[2]int][]float32{}
		}
		o.w.squares[[2]int{n, o.inner}] = s
	}
	b.Upload(out[0], s)
}

func (squares) grad(*Graph, *Node, *Node, []bool) []*Node { return nil }
