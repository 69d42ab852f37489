package algos

import (
	"lycoris/internal/graph"
	"lycoris/internal/nn"
	"lycoris/internal/tensor"
)

// A change W1⊗W2 is applied to an activation without ever being made. Channels M·N count as M groups of N; W2 works inside each group, W1 across groups:
//
//	y[.., a, c] = Σ_b W1[a,b] Σ_d W2[c,d]·x[.., b, d]
//
// Both sums commute, and where W2 is low-rank W1 may also come between its two halves, on groups of R channels: wherever the least work is. With a
// window, W2 (or its w2b, or its core) is a convolution of N·M images of N channels.

// kronStage is one of the products that W2 consists of.
type kronStage struct {
	in, out int
	conv    bool // with the layer's geometry
}

// stages returns W2's products in order; spatial says that the layer's geometry is more than pixel by pixel.
func (k *kron) stages(spatial bool) []kronStage {
	switch {
	case k.w2 != nil:
		return []kronStage{{k.n, k.k, spatial}}
	case k.tucker():
		return []kronStage{{k.n, k.rank, false}, {k.rank, k.rank, true}, {k.rank, k.k, false}}
	}
	return []kronStage{{k.n, k.rank, spatial}, {k.rank, k.k, false}}
}

// place returns the stage before which W1 is applied (len(stages): after the last) and what one application costs, with in and out the pixels or rows of
// input and result.
func (k *kron) place(stages []kronStage, in, out int) (at int, work float64) {
	for pos := range len(stages) + 1 {
		groups, width, rows := k.m, k.n, in
		var sum float64
		for i := range len(stages) + 1 {
			spatial := i < len(stages) && stages[i].conv || i > 0 && stages[i-1].conv // as images: few large pieces
			if i == pos {
				sum += float64(k.l*k.m*width) * float64(rows)
				if !spatial {
					sum += mixRow * float64(rows)
				}
				groups = k.l
			}
			if i == len(stages) {
				break
			}
			s := stages[i]
			if s.conv {
				sum += moveGroup * float64((in+out)*groups)
				rows = out
				sum += (convPixel + float64(s.in*s.out*k.pixels())) * float64(groups*rows)
			} else {
				sum += narrow(s.in, s.out) * float64(groups*s.in*s.out) * float64(rows)
			}
			width = s.out
		}
		if pos == 0 || sum < work {
			at, work = pos, sum
		}
	}
	return at, work
}

// apply emits (W1⊗W2)·x for x [...,M·N] or images [N,H,W,M·N], w1 from small, + add (like the result, may be nil). conv is the layer's geometry; nil
// for a change that works pixel by pixel.
func (k *kron) apply(b *nn.Builder, w1, x, add *graph.Node, conv *graph.ConvOptions) *graph.Node {
	spatial := conv != nil && (k.pixels() > 1 || *conv != graph.ConvOptions{Stride: conv.Stride} || conv.Stride > 1)
	s := x.Shape()
	rows := x.Elems() / x.Last()
	outRows := rows
	shape := append(append([]int{}, s[:len(s)-1]...), k.l*k.k)
	if spatial {
		shape = convOut(s, k.l*k.k, k.pixelsShape(), *conv)
		outRows = tensor.Elems(shape[:3])
	}
	stages := k.stages(spatial)
	at, _ := k.place(stages, rows, outRows)
	w := k.walk(b, x, add, stages, shape)
	for i := range stages {
		if i == at {
			if stages[i].conv {
				w.toImages()
			}
			w.mix(w1, false)
		}
		w.stage(k.stageWeight(b, i, spatial), conv)
	}
	if at == len(stages) {
		w.mix(w1, false)
	}
	return w.result()
}

// applyTransposed emits x·(W1⊗W2) for rows x [...,L·K] of a change that is a matrix: what (W1⊗W2)ᵀ does to them.
func (k *kron) applyTransposed(b *nn.Builder, w1, x *graph.Node) *graph.Node {
	g := b.G
	back := kron{l: k.m, m: k.l, k: k.n, n: k.k, rank: k.rank, w2: k.w2, w2a: k.w2a, w2b: k.w2b}
	stages := back.stages(false)
	rows := x.Elems() / x.Last()
	at, _ := back.place(stages, rows, rows)
	s := x.Shape()
	w := back.walk(b, x, nil, stages, append(append([]int{}, s[:len(s)-1]...), back.l*back.k))
	halves := []*Factor{k.w2a, k.w2b}
	if k.w2 != nil {
		halves = []*Factor{k.w2}
	}
	for i, f := range halves {
		if i == at {
			w.mix(w1, true)
		}
		w.stage(stageWeight{node: g.Reshape(b.Param(f.Param), stages[i].in, stages[i].out)}, nil)
	}
	if at == len(halves) {
		w.mix(w1, true)
	}
	return w.result()
}

// pixelsShape returns the window, 1×1 of a matrix.
func (k *kron) pixelsShape() []int {
	if len(k.window) == 0 {
		return []int{1, 1}
	}
	return k.window
}

// convOut returns the shape of a convolution's result.
func convOut(x []int, out int, window []int, c graph.ConvOptions) []int {
	h, w, stride := x[1], x[2], max(c.Stride, 1)
	if c.Upsample {
		h, w = 2*h, 2*w
	}
	return []int{x[0], (h+c.Pad[0]+c.Pad[2]-window[0])/stride + 1, (w+c.Pad[1]+c.Pad[3]-window[1])/stride + 1, out}
}

// stageWeight is the matrix [in,out], or transposed [out,in], or kernel [out,in,kh,kw] of a stage.
type stageWeight struct {
	node       *graph.Node
	transposed bool
	kernel     bool
}

func (k *kron) stageWeight(b *nn.Builder, i int, spatial bool) stageWeight {
	g := b.G
	kernel := func(f *Factor, out, in int) stageWeight {
		if !spatial {
			return stageWeight{node: g.Reshape(b.Param(f.Param), out, in), transposed: true}
		}
		window := k.pixelsShape()
		return stageWeight{node: g.Reshape(b.Param(f.Param), out, in, window[0], window[1]), kernel: true}
	}
	switch {
	case k.w2 != nil:
		return kernel(k.w2, k.k, k.n)
	case k.tucker():
		return []stageWeight{
			{node: b.Param(k.w2b.Param), transposed: true},
			{node: b.Param(k.t2.Param), kernel: true},
			{node: b.Param(k.w2a.Param)},
		}[i]
	case i == 0:
		return kernel(k.w2b, k.rank, k.n)
	}
	return stageWeight{node: b.Param(k.w2a.Param), transposed: true}
}

// kronWalk is an activation on its way through W1 and W2: rows of groups of channels, or images of one group each.
type kronWalk struct {
	k      *kron
	b      *nn.Builder
	h      *graph.Node
	groups int
	width  int // channels of a group
	rows   int
	images bool // h is [N,groups,H,W,width] instead of [rows,groups,width]
	left   int  // steps
	add    *graph.Node
	shape  []int // of the result
	space  []int // N, H, W at this point; for images
}

func (k *kron) walk(b *nn.Builder, x, add *graph.Node, stages []kronStage, shape []int) *kronWalk {
	s := x.Shape()
	w := &kronWalk{k: k, b: b, h: x, groups: k.m, width: k.n, rows: x.Elems() / x.Last(), left: len(stages) + 1, add: add, shape: shape}
	if len(s) == 4 {
		w.space = s[:3]
	}
	return w
}

// final returns the add operand for a product that gives the result as it is.
func (w *kronWalk) final() *graph.Node {
	if w.left > 0 || w.images {
		return nil
	}
	add := w.add
	w.add = nil
	return add
}

// toImages and toRows change the layout.
func (w *kronWalk) toImages() {
	if !w.images {
		g, n, pixels := w.b.G, w.space[0], w.space[1]*w.space[2]
		w.h = g.Permute(g.Reshape(w.h, n, pixels, w.groups, w.width), 0, 2, 1, 3)
		w.images = true
	}
}

func (w *kronWalk) toRows() {
	if w.images {
		g, n, pixels := w.b.G, w.space[0], w.space[1]*w.space[2]
		w.h = g.Permute(g.Reshape(w.h, n, w.groups, pixels, w.width), 0, 2, 1, 3)
		w.images = false
	}
}

// mix contracts the groups with w1 [L,M], or with its transpose.
func (w *kronWalk) mix(w1 *graph.Node, transposed bool) {
	g := w.b.G
	w.left--
	if w.images {
		n := w.space[0]
		h := g.Reshape(w.h, n, w.groups, w.h.Elems()/n/w.groups)
		w.h = g.BatchMatMul(w1, h, graph.MatMulOptions{TransA: transposed})
		w.groups = w.k.l
		return
	}
	if w.width == 1 {
		w.h = g.MatMul(g.Reshape(w.h, w.rows, w.groups), w1, graph.MatMulOptions{TransB: !transposed, Add: w.final()})
	} else {
		w.h = g.BatchMatMul(w1, g.Reshape(w.h, w.rows, w.groups, w.width), graph.MatMulOptions{TransA: transposed, Add: w.final()})
	}
	w.groups = w.k.l
}

// stage multiplies every group with m.
func (w *kronWalk) stage(m stageWeight, conv *graph.ConvOptions) {
	g := w.b.G
	w.left--
	if m.kernel {
		w.toImages()
		n := w.space[0]
		x := g.Reshape(w.h, n*w.groups, w.space[1], w.space[2], w.width)
		w.h = g.ConvFree(x, m.node, nil, nil, nil, *conv)
		s := w.h.Shape()
		w.space, w.width, w.rows = []int{n, s[1], s[2]}, s[3], n*s[1]*s[2]
		return
	}
	if w.images && w.left == 0 { // the last product writes the result where it belongs
		w.toRows()
	}
	out := m.node.Shape()[1]
	if m.transposed {
		out = m.node.Shape()[0]
	}
	w.h = g.MatMul(g.Reshape(w.h, w.rows*w.groups, w.width), m.node, graph.MatMulOptions{TransB: m.transposed, Add: w.final()})
	w.width = out
}

// result returns the activation as the layer gives it, with add.
func (w *kronWalk) result() *graph.Node {
	w.toRows()
	y := w.b.G.Reshape(w.h, w.shape...)
	if w.add != nil {
		y = w.b.G.Add(w.add, y)
	}
	return y
}
