package graph

import (
	"slices"

	"lycoris/internal/kernels"
)

// MatMulOptions are the fixed parts of a product. Alpha 0 counts as 1.
type MatMulOptions struct {
	TransA, TransB bool
	Alpha          float32
	Add            *Node // like the result; may be nil
}

func (o MatMulOptions) alpha() float32 {
	if o.Alpha == 0 {
		return 1
	}
	return o.Alpha
}

// MatMul returns alpha·op(a)·op(b) + add for matrices; a [...,K] counts as its rows. The result has a's leading axes unless a is transposed:
// then a is [K,M] (its rows are K) and the result [M,N].
func (g *Graph) MatMul(a, b *Node, opt MatMulOptions) *Node {
	m, k := a.rows(), a.Last()
	shape := slices.Clone(a.shape)
	if opt.TransA {
		m, k = k, m
		shape = []int{m, 0}
	}
	kb, n := b.rows(), b.Last()
	if opt.TransB {
		kb, n = n, kb
	}
	must(k == kb, "matmul %v · %v (transposed %v %v)", a.shape, b.shape, opt.TransA, opt.TransB)
	shape[len(shape)-1] = n
	s := kernels.MatMul{Batch: 1, M: m, N: n, K: k, TransA: opt.TransA, TransB: opt.TransB, StrideA: m * k, StrideB: k * n, Alpha: opt.alpha()}
	return g.matmul(a, b, opt.Add, s, shape)
}

// BatchMatMul is [Graph.MatMul] for each item of the first axis: a [B,·,·] and b [B,·,·]; an operand with two axes serves every item.
func (g *Graph) BatchMatMul(a, b *Node, opt MatMulOptions) *Node {
	matrix := func(n *Node) (batch, rows, cols int) {
		s := n.shape
		must(len(s) == 2 || len(s) == 3, "batched matmul on %v", s)
		if len(s) == 2 {
			return 0, s[0], s[1]
		}
		return s[0], s[1], s[2]
	}
	ba, m, k := matrix(a)
	bb, kb, n := matrix(b)
	s := kernels.MatMul{Batch: max(ba, bb), StrideA: m * k, StrideB: kb * n, TransA: opt.TransA, TransB: opt.TransB, Alpha: opt.alpha()}
	must(s.Batch > 0 && (ba == 0 || bb == 0 || ba == bb), "batched matmul %v · %v", a.shape, b.shape)
	if ba == 0 {
		s.StrideA = 0
	}
	if bb == 0 {
		s.StrideB = 0
	}
	if opt.TransA {
		m, k = k, m
	}
	if opt.TransB {
		kb, n = n, kb
	}
	must(k == kb, "batched matmul %v · %v (transposed %v %v)", a.shape, b.shape, opt.TransA, opt.TransB)
	s.M, s.N, s.K = m, n, k
	return g.matmul(a, b, opt.Add, s, []int{s.Batch, m, n})
}

func (g *Graph) matmul(a, b, add *Node, s kernels.MatMul, shape []int) *Node {
	if add != nil {
		must(add.Elems() == s.Batch*s.M*s.N, "matmul: add %v to %v", add.shape, shape)
	}
	return g.add(matmul{s}, shape, a, b, add)
}

type matmul struct{ s kernels.MatMul }

func (matmul) name() string   { return "matmul" }
func (matmul) inPlace() []int { return []int{2} }
func (matmul) addSlot() int   { return 2 }
func (o matmul) size() any    { return o.s }

func (o matmul) run(b kernels.Backend, out, in [][]float32) {
	b.MatMul(out[0], in[0], in[1], in[2], o.s)
}

// grad: with C = α·op(A)·op(B), dop(A) = α·dC·op(B)ᵀ and dop(B) = α·op(A)ᵀ·dC; the operands are ordered so that each result comes out as it is stored.
func (o matmul) grad(g *Graph, n, dy *Node, want []bool) []*Node {
	s, a, b := o.s, n.in[0], n.in[1]
	d := make([]*Node, 3)
	product := func(x, y *Node, transX, transY bool, m, nn, k, strideX, strideY int, like *Node, broadcast bool) *Node {
		ms := kernels.MatMul{Batch: s.Batch, M: m, N: nn, K: k, TransA: transX, TransB: transY, StrideA: strideX, StrideB: strideY, Alpha: s.Alpha}
		if !broadcast || s.Batch == 1 {
			return g.add(matmul{ms}, like.shape, x, y, nil)
		}
		each := g.add(matmul{ms}, []int{s.Batch, m, nn}, x, y, nil)
		return g.SumBlocks(each, nil, like.shape, 1)
	}
	dyStride := s.M * s.N
	if want[1] {
		if s.TransB {
			d[1] = product(dy, a, true, s.TransA, s.N, s.K, s.M, dyStride, s.StrideA, b, s.StrideB == 0)
		} else {
			d[1] = product(a, dy, !s.TransA, false, s.K, s.N, s.M, s.StrideA, dyStride, b, s.StrideB == 0)
		}
	}
	if want[0] {
		if s.TransA {
			d[0] = product(b, dy, s.TransB, true, s.K, s.M, s.N, s.StrideB, dyStride, a, s.StrideA == 0)
		} else {
			d[0] = product(dy, b, false, !s.TransB, s.M, s.K, s.N, dyStride, s.StrideB, a, s.StrideA == 0)
		}
	}
	if want[2] {
		d[2] = g.Reshape(dy, n.in[2].shape...)
	}
	return d
}
