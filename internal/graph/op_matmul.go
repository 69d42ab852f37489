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
	Bias           *Node // [N], added to every row; may be nil
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
	return g.matmul(a, b, opt, s, shape)
}

// BatchMatMul is [Graph.MatMul] for each item of the first axis: a [B,·,·] and b [B,·,·]; an operand with two axes serves every item, and its gradient is
// summed over them as it is computed.
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
	shape := []int{s.Batch, m, n}
	if bb == 0 && !opt.TransA { // one product of all rows
		s.M, s.Batch = s.M*s.Batch, 1
	}
	return g.matmul(a, b, opt, s, shape)
}

func (g *Graph) matmul(a, b *Node, opt MatMulOptions, s kernels.MatMul, shape []int) *Node {
	must(opt.Add == nil || opt.Add.Elems() == s.Batch*s.M*s.N, "matmul to %v: wrong size to add", shape)
	must(opt.Bias == nil || opt.Bias.Elems() == s.N, "matmul to %v: wrong size of bias", shape)
	return g.add(matmul{s}, shape, a, b, opt.Add, opt.Bias)
}

type matmul struct{ s kernels.MatMul }

func (matmul) name() string   { return "matmul" }
func (matmul) inPlace() []int { return []int{2} }
func (matmul) addSlot() int   { return 2 }
func (o matmul) size() any    { return o.s }

func (o matmul) run(b kernels.Backend, out, in [][]float32) {
	b.MatMul(out[0], in[0], in[1], kernels.Epilogue{Add: in[2], Bias: in[3]}, o.s)
}

// grad: with C = α·op(A)·op(B), dop(A) = α·dC·op(B)ᵀ and dop(B) = α·op(A)ᵀ·dC; the operands are ordered so that each result comes out as it is stored.
func (o matmul) grad(g *Graph, n, dy *Node, want []bool) []*Node {
	s, a, b := o.s, n.in[0], n.in[1]
	d := make([]*Node, 4)
	product := func(x, y *Node, transX, transY bool, m, nn, k, strideX, strideY int, like *Node, shared bool) *Node {
		ms := kernels.MatMul{Batch: s.Batch, M: m, N: nn, K: k, TransA: transX, TransB: transY, StrideA: strideX, StrideB: strideY, Alpha: s.Alpha}
		ms.Sum = shared && s.Batch > 1
		return g.add(matmul{ms}, like.shape, x, y, nil, nil)
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
	if want[3] {
		d[3] = g.SumBlocks(dy, nil, n.in[3].shape, 1)
	}
	return d
}

// BlockMatMul multiplies each block of columns of x [...,N·S] by a matrix of its own: y[...,k,:] = x[...,k,:]·r[k], r [N,S,T], or ·r[k]ᵀ with trans,
// r [N,T,S]. The result is [...,N·T].
func (g *Graph) BlockMatMul(x, r *Node, trans bool) *Node {
	must(len(r.shape) == 3, "block matmul by %v", r.shape)
	s := kernels.BlockMatMul{M: x.rows(), N: r.shape[0], S: r.shape[1], T: r.shape[2], Trans: trans}
	if trans {
		s.S, s.T = s.T, s.S
	}
	must(x.Last() == s.N*s.S, "block matmul %v · %v (transposed %v)", x.shape, r.shape, trans)
	return g.add(blockMatMul{s}, withLast(x.shape, s.N*s.T), x, r, nil)
}

type blockMatMul struct{ s kernels.BlockMatMul }

func (blockMatMul) name() string   { return "block matmul" }
func (blockMatMul) inPlace() []int { return []int{2} }
func (blockMatMul) addSlot() int   { return 2 }
func (o blockMatMul) size() any    { return o.s }

func (o blockMatMul) run(b kernels.Backend, out, in [][]float32) {
	b.BlockMatMul(out[0], in[0], in[1], in[2], o.s)
}

func (o blockMatMul) grad(g *Graph, n, dy *Node, want []bool) []*Node {
	s, x, r := o.s, n.in[0], n.in[1]
	d := make([]*Node, 3)
	if want[1] {
		d[1] = g.add(blockMatMulGrad(o), r.shape, dy, x)
	}
	if want[0] {
		back := blockMatMul{kernels.BlockMatMul{M: s.M, N: s.N, S: s.T, T: s.S, Trans: !s.Trans}}
		d[0] = g.add(back, x.shape, dy, r, nil)
	}
	if want[2] {
		d[2] = g.Reshape(dy, n.in[2].shape...)
	}
	return d
}

type blockMatMulGrad struct{ s kernels.BlockMatMul }

func (blockMatMulGrad) name() string { return "block matmul gradient" }
func (o blockMatMulGrad) size() any  { return o.s }

func (o blockMatMulGrad) run(b kernels.Backend, out, in [][]float32) {
	b.BlockMatMulGrad(out[0], in[0], in[1], o.s)
}

func (blockMatMulGrad) grad(*Graph, *Node, *Node, []bool) []*Node { panic("graph: second derivative") }
