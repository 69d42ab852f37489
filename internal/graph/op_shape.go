package graph

import (
	"slices"

	"lycoris/internal/kernels"
	"lycoris/internal/tensor"
)

// Reshape returns x under another shape with as many elements; no data moves.
func (g *Graph) Reshape(x *Node, shape ...int) *Node {
	if slices.Equal(x.shape, shape) {
		return x
	}
	must(tensor.Elems(shape) == x.Elems(), "reshape %v to %v", x.shape, shape)
	return g.add(view{}, shape, x)
}

// Items returns items [from,to) of the first axis of x; no data moves.
func (g *Graph) Items(x *Node, from, to int) *Node {
	must(0 <= from && from < to && to <= x.shape[0], "items %d to %d of %v", from, to, x.shape)
	shape := slices.Clone(x.shape)
	shape[0] = to - from
	return g.add(view{offset: from * (x.Elems() / x.shape[0])}, shape, x)
}

// view names a part of its input's buffer.
type view struct {
	offset   int
	constant bool // no gradient
	gate     int  // inner of the blocks in which the second operand multiplies the gradient; 0 = no such operand
}

func (view) name() string                                  { return "view" }
func (view) run(kernels.Backend, [][]float32, [][]float32) {}

func (o view) grad(g *Graph, n, dy *Node, want []bool) []*Node {
	if o.constant {
		return []*Node{nil}
	}
	x := n.in[0]
	if o.gate > 0 {
		return []*Node{g.Reshape(g.MulBlocks(dy, n.in[1], o.gate), x.shape...), nil}
	}
	if x.Elems() == n.Elems() {
		return []*Node{g.Reshape(dy, x.shape...)}
	}
	return []*Node{g.add(columnsGrad{columns{1, x.Elems(), o.offset, n.Elems()}}, x.shape, dy)}
}

// ConcatRows joins nodes along the first axis; the other axes are those of the first node.
func (g *Graph) ConcatRows(nodes ...*Node) *Node {
	shape := slices.Clone(nodes[0].shape)
	item := tensor.Elems(shape[1:])
	shape[0] = 0
	for _, n := range nodes {
		must(n.Elems() == n.shape[0]*item, "concat rows: %v and %v", nodes[0].shape, n.shape)
		shape[0] += n.shape[0]
	}
	if len(nodes) == 1 {
		return nodes[0]
	}
	return g.add(concatRows{}, shape, nodes...)
}

type concatRows struct{}

func (concatRows) name() string { return "concat rows" }

func (concatRows) run(b kernels.Backend, out, in [][]float32) {
	at, all := 0, len(out[0])
	for _, x := range in {
		b.CopyColumns(out[0], all, at, x, len(x), 0, 1, len(x))
		at += len(x)
	}
}

func (concatRows) grad(g *Graph, n, dy *Node, want []bool) []*Node {
	dy = g.Reshape(dy, n.shape...)
	d := make([]*Node, len(n.in))
	at := 0
	for i, x := range n.in {
		if want[i] {
			d[i] = g.Reshape(g.Items(dy, at, at+x.shape[0]), x.shape...)
		}
		at += x.shape[0]
	}
	return d
}

// Concat joins a and b along the last axis.
func (g *Graph) Concat(a, b *Node) *Node {
	must(a.rows() == b.rows(), "concat %v and %v", a.shape, b.shape)
	return g.add(concat{a.rows(), a.Last(), b.Last()}, withLast(a.shape, a.Last()+b.Last()), a, b)
}

type concat struct{ rows, a, b int }

func (concat) name() string { return "concat" }

func (o concat) run(b kernels.Backend, out, in [][]float32) {
	b.CopyColumns(out[0], o.a+o.b, 0, in[0], o.a, 0, o.rows, o.a)
	b.CopyColumns(out[0], o.a+o.b, o.a, in[1], o.b, 0, o.rows, o.b)
}

func (o concat) grad(g *Graph, n, dy *Node, want []bool) []*Node {
	d := make([]*Node, 2)
	if want[0] {
		d[0] = g.Columns(dy, 0, o.a)
	}
	if want[1] {
		d[1] = g.Columns(dy, o.a, o.b)
	}
	return d
}

// Columns returns cols columns of x from off on, along the last axis.
func (g *Graph) Columns(x *Node, off, cols int) *Node {
	must(off >= 0 && off+cols <= x.Last(), "columns %d+%d of %v", off, cols, x.shape)
	return g.add(columns{x.rows(), x.Last(), off, cols}, withLast(x.shape, cols), x)
}

type columns struct{ rows, width, off, cols int }

func (columns) name() string { return "columns" }

func (o columns) run(b kernels.Backend, out, in [][]float32) {
	b.CopyColumns(out[0], o.cols, 0, in[0], o.width, o.off, o.rows, o.cols)
}

func (o columns) grad(g *Graph, n, dy *Node, want []bool) []*Node {
	return []*Node{g.add(columnsGrad{o}, n.in[0].shape, dy)}
}

type columnsGrad struct{ of columns }

func (columnsGrad) name() string { return "columns gradient" }

func (o columnsGrad) run(b kernels.Backend, out, in [][]float32) {
	b.ScatterRows(out[0], nil, nil, o.of.width) // no rows: only zeroes
	b.CopyColumns(out[0], o.of.width, o.of.off, in[0], o.of.cols, 0, o.of.rows, o.of.cols)
}

func (columnsGrad) grad(*Graph, *Node, *Node, []bool) []*Node { panic("graph: second derivative") }

// Permute reorders the axes: axis i of the result is axis perm[i] of x.
func (g *Graph) Permute(x *Node, perm ...int) *Node {
	must(len(perm) == len(x.shape), "permute %v by %v", x.shape, perm)
	shape := make([]int, len(perm))
	for i, p := range perm {
		shape[i] = x.shape[p]
	}
	return g.add(permute{slices.Clone(x.shape), slices.Clone(perm)}, shape, x)
}

type permute struct{ shape, perm []int }

func (permute) name() string { return "permute" }

func (o permute) run(b kernels.Backend, out, in [][]float32) {
	b.Permute(out[0], in[0], o.shape, o.perm)
}

func (o permute) grad(g *Graph, n, dy *Node, want []bool) []*Node {
	back := make([]int, len(o.perm))
	for i, p := range o.perm {
		back[p] = i
	}
	return []*Node{g.Permute(g.Reshape(dy, n.shape...), back...)}
}

// GatherRows returns the rows of x [...,D] that index names: [len(index),D]. A row may be named at most once where gradients are wanted in order.
func (g *Graph) GatherRows(x *Node, index []int32) *Node {
	for _, i := range index {
		must(int(i) < x.rows() && i >= 0, "row %d of %v", i, x.shape)
	}
	return g.add(gather{slices.Clone(index), x.Last()}, []int{len(index), x.Last()}, x)
}

type gather struct {
	index []int32
	d     int
}

func (gather) name() string { return "gather" }

func (o gather) run(b kernels.Backend, out, in [][]float32) {
	b.GatherRows(out[0], in[0], o.index, o.d)
}

func (o gather) grad(g *Graph, n, dy *Node, want []bool) []*Node {
	return []*Node{g.add(scatter(o), n.in[0].shape, dy)}
}

type scatter gather

func (scatter) name() string { return "scatter" }

func (o scatter) run(b kernels.Backend, out, in [][]float32) {
	b.ScatterRows(out[0], in[0], o.index, o.d)
}

func (scatter) grad(*Graph, *Node, *Node, []bool) []*Node { panic("graph: second derivative") }

// Upsample doubles x [N,H,W,C] by nearest neighbour.
func (g *Graph) Upsample(x *Node) *Node {
	s := x.shape
	return g.add(upsample{s[0], s[1], s[2], s[3]}, []int{s[0], 2 * s[1], 2 * s[2], s[3]}, x)
}

type upsample struct{ n, h, w, c int }

func (upsample) name() string { return "upsample" }

func (o upsample) run(b kernels.Backend, out, in [][]float32) {
	b.Upsample(out[0], in[0], o.n, o.h, o.w, o.c)
}

func (o upsample) grad(g *Graph, n, dy *Node, want []bool) []*Node {
	return []*Node{g.add(upsampleGrad(o), n.in[0].shape, dy)}
}

type upsampleGrad upsample

func (upsampleGrad) name() string { return "upsample gradient" }

func (o upsampleGrad) run(b kernels.Backend, out, in [][]float32) {
	b.UpsampleGrad(out[0], in[0], o.n, o.h, o.w, o.c)
}

func (upsampleGrad) grad(*Graph, *Node, *Node, []bool) []*Node { panic("graph: second derivative") }
