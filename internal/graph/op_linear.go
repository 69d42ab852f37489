package graph

import (
	"slices"

	"lycoris/internal/kernels"
)

// Linear returns x·Wᵀ + bias + add for x [...,I] and a frozen w [O,I] or [O,I,1,1]: shape [...,O]. bias and add may be nil.
func (g *Graph) Linear(x *Node, w *Weight, bias, add *Node) *Node {
	o, i := w.Shape[0], w.Shape[1]
	must(x.Last() == i, "linear %s %v on %v", w.Name, w.Shape, x.shape)
	if add != nil {
		must(add.Elems() == x.rows()*o, "linear %s %v: add %v", w.Name, w.Shape, add.shape)
	}
	return g.add(linear{w}, withLast(x.shape, o), x, bias, add)
}

type linear struct{ w *Weight }

func (o linear) name() string { return "linear " + o.w.Name }
func (linear) inPlace() []int { return []int{2} }
func (linear) addSlot() int   { return 2 }
func (o linear) size() any    { return kernels.LinearSize{O: o.w.Shape[0], I: o.w.Shape[1]} }

func (o linear) run(b kernels.Backend, out, in [][]float32) {
	m := len(in[0]) / o.w.Shape[1]
	b.Linear(out[0], in[0], o.w.Packed, m, kernels.Epilogue{Bias: in[1], Add: in[2]})
}

func (o linear) grad(g *Graph, n, dy *Node, want []bool) []*Node {
	d := make([]*Node, 3)
	if want[0] {
		d[0] = g.add(linearGrad(o), n.in[0].shape, dy, nil)
	}
	if want[1] {
		d[1] = g.SumBlocks(dy, nil, n.in[1].shape, 1)
	}
	if want[2] {
		d[2] = g.Reshape(dy, n.in[2].shape...)
	}
	return d
}

// linearGrad is dy·W + add.
type linearGrad struct{ w *Weight }

func (o linearGrad) name() string { return "linear gradient " + o.w.Name }
func (linearGrad) inPlace() []int { return []int{1} }
func (linearGrad) addSlot() int   { return 1 }
func (o linearGrad) size() any    { return kernels.LinearSize{O: o.w.Shape[0], I: o.w.Shape[1]} }

func (o linearGrad) run(b kernels.Backend, out, in [][]float32) {
	b.LinearGrad(out[0], in[0], o.w.Packed, len(in[0])/o.w.Shape[0], in[1])
}

func (o linearGrad) grad(g *Graph, n, dy *Node, want []bool) []*Node {
	d := make([]*Node, 2)
	if want[0] {
		d[0] = g.add(linear(o), n.in[0].shape, dy, nil, nil)
	}
	if want[1] {
		d[1] = g.Reshape(dy, n.in[1].shape...)
	}
	return d
}

// LinearBack returns y·W for y [...,O] and a frozen w [O,I] or [O,I,1,1]: shape [...,I].
func (g *Graph) LinearBack(y *Node, w *Weight) *Node {
	must(y.Last() == w.Shape[0], "linear backwards %s %v on %v", w.Name, w.Shape, y.shape)
	return g.add(linearGrad{w}, withLast(y.shape, w.Shape[1]), y, nil)
}

// ConvOptions are the fixed parts of a convolution. Pad is top, left, bottom, right.
type ConvOptions struct {
	Stride   int // 0 counts as 1
	Pad      [4]int
	Upsample bool // the input is doubled by nearest neighbour first
}

// SamePad returns the padding p on all sides.
func SamePad(p int) [4]int { return [4]int{p, p, p, p} }

func convSize(x *Node, kernel []int, opt ConvOptions) kernels.Conv {
	must(len(x.shape) == 4 && len(kernel) == 4 && kernel[1] == x.shape[3], "convolution %v on %v", kernel, x.shape)
	c := kernels.Conv{N: x.shape[0], H: x.shape[1], W: x.shape[2], C: x.shape[3], O: kernel[0], KH: kernel[2], KW: kernel[3],
		Stride: max(opt.Stride, 1), PadT: opt.Pad[0], PadL: opt.Pad[1], Upsample: opt.Upsample}
	h, w := c.H, c.W
	if opt.Upsample {
		h, w = 2*h, 2*w
	}
	c.OH = (h+opt.Pad[0]+opt.Pad[2]-c.KH)/c.Stride + 1
	c.OW = (w+opt.Pad[1]+opt.Pad[3]-c.KW)/c.Stride + 1
	must(c.OH > 0 && c.OW > 0, "convolution %v on %v leaves nothing", kernel, x.shape)
	return c
}

func checkExtra(c kernels.Conv, perItem, add *Node) {
	must(perItem == nil || perItem.Elems() == c.N*c.O, "convolution to %v: per item %v", convShape(c), perItem)
	must(add == nil || add.Elems() == c.Rows()*c.O, "convolution to %v: add %v", convShape(c), add)
}

func convShape(c kernels.Conv) []int { return []int{c.N, c.OH, c.OW, c.O} }

// Conv2d returns the convolution of x [N,H,W,C] with a frozen w [O,C,kh,kw] + bias [O] + perItem [N,O] + add: shape [N,OH,OW,O]. The last
// three may be nil.
func (g *Graph) Conv2d(x *Node, w *Weight, bias, perItem, add *Node, opt ConvOptions) *Node {
	kernel := w.Shape
	if len(kernel) == 2 {
		kernel = append(slices.Clone(kernel), 1, 1)
	}
	if kernel[2] == 1 && kernel[3] == 1 && opt == (ConvOptions{Stride: opt.Stride}) && opt.Stride <= 1 && perItem == nil {
		return g.Linear(x, w, bias, add)
	}
	c := convSize(x, kernel, opt)
	checkExtra(c, perItem, add)
	return g.add(conv{w, c}, convShape(c), x, bias, perItem, add)
}

type conv struct {
	w *Weight
	c kernels.Conv
}

func (o conv) name() string { return "conv " + o.w.Name }
func (conv) inPlace() []int { return []int{3} }
func (conv) addSlot() int   { return 3 }
func (o conv) size() any    { return o.c }

func (o conv) run(b kernels.Backend, out, in [][]float32) {
	b.Conv2d(out[0], in[0], o.w.Packed, o.c, kernels.Epilogue{Bias: in[1], PerItem: in[2], Add: in[3]})
}

func (o conv) grad(g *Graph, n, dy *Node, want []bool) []*Node {
	d := make([]*Node, 4)
	if want[0] {
		d[0] = g.add(convGrad(o), n.in[0].shape, dy, nil)
	}
	epilogueGrad(g, n, dy, want[1:], d[1:])
	return d
}

// epilogueGrad fills the gradients of bias, perItem and add, the operands after the ones of the product.
func epilogueGrad(g *Graph, n, dy *Node, want []bool, d []*Node) {
	in := n.in[len(n.in)-3:]
	if want[0] {
		d[0] = g.SumBlocks(dy, nil, in[0].shape, 1)
	}
	if want[1] {
		d[1] = g.SumItems(dy)
	}
	if want[2] {
		d[2] = g.Reshape(dy, in[2].shape...)
	}
}

type convGrad struct {
	w *Weight
	c kernels.Conv
}

func (o convGrad) name() string { return "conv gradient " + o.w.Name }
func (convGrad) inPlace() []int { return []int{1} }
func (convGrad) addSlot() int   { return 1 }
func (o convGrad) size() any    { return o.c }

func (o convGrad) run(b kernels.Backend, out, in [][]float32) {
	b.Conv2dGrad(out[0], in[0], o.w.Packed, o.c, in[1])
}

func (o convGrad) grad(g *Graph, n, dy *Node, want []bool) []*Node {
	d := make([]*Node, 2)
	if want[0] {
		d[0] = g.add(conv(o), n.in[0].shape, dy, nil, nil, nil)
	}
	if want[1] {
		d[1] = g.Reshape(dy, n.in[1].shape...)
	}
	return d
}

// ConvBack returns what goes back through the convolution of images of shape with a frozen w from y, which is like the result of [Graph.Conv2d].
func (g *Graph) ConvBack(y *Node, w *Weight, shape []int, opt ConvOptions) *Node {
	c := convSize(&Node{shape: shape}, w.Shape, opt)
	must(slices.Equal(y.shape, convShape(c)), "convolution backwards %s %v on %v, want %v", w.Name, w.Shape, y.shape, convShape(c))
	return g.add(convGrad{w, c}, shape, y, nil)
}

// ConvFree is [Graph.Conv2d] for a kernel that is a node: w [O,C,kh,kw], row-major.
func (g *Graph) ConvFree(x, w, bias, perItem, add *Node, opt ConvOptions) *Node {
	c := convSize(x, w.shape, opt)
	checkExtra(c, perItem, add)
	return g.add(convFree{c}, convShape(c), x, w, bias, perItem, add)
}

type convFree struct{ c kernels.Conv }

func (convFree) name() string   { return "conv" }
func (convFree) inPlace() []int { return []int{4} }
func (convFree) addSlot() int   { return 4 }
func (o convFree) size() any    { return kernels.FreeConv(o.c) }

func (o convFree) run(b kernels.Backend, out, in [][]float32) {
	b.ConvFree(out[0], in[0], in[1], o.c, kernels.Epilogue{Bias: in[2], PerItem: in[3], Add: in[4]})
}

func (o convFree) grad(g *Graph, n, dy *Node, want []bool) []*Node {
	d := make([]*Node, 5)
	if want[1] {
		d[1] = g.add(convWeightGrad(o), n.in[1].shape, dy, n.in[0])
	}
	if want[0] {
		d[0] = g.add(convFreeGrad(o), n.in[0].shape, dy, n.in[1], nil)
	}
	epilogueGrad(g, n, dy, want[2:], d[2:])
	return d
}

type convFreeGrad struct{ c kernels.Conv }

func (convFreeGrad) name() string   { return "conv gradient" }
func (convFreeGrad) inPlace() []int { return []int{2} }
func (convFreeGrad) addSlot() int   { return 2 }
func (o convFreeGrad) size() any    { return kernels.FreeConv(o.c) }

func (o convFreeGrad) run(b kernels.Backend, out, in [][]float32) {
	b.ConvFreeGrad(out[0], in[0], in[1], o.c, in[2])
}

func (convFreeGrad) grad(*Graph, *Node, *Node, []bool) []*Node { panic("graph: second derivative") }

type convWeightGrad struct{ c kernels.Conv }

func (convWeightGrad) name() string { return "conv weight gradient" }
func (o convWeightGrad) size() any  { return kernels.FreeConv(o.c) }

func (o convWeightGrad) run(b kernels.Backend, out, in [][]float32) {
	b.ConvWeightGrad(out[0], in[0], in[1], o.c)
}

func (convWeightGrad) grad(*Graph, *Node, *Node, []bool) []*Node { panic("graph: second derivative") }
