package algos

import (
	"lycoris/internal/graph"
	"lycoris/internal/nn"
	"lycoris/internal/tensor"
)

// lowRank is a change ΔW = s·Uᵀ·V of a layer that is decomposed, and how the layer's input gets into the low-rank space.
type lowRank struct {
	scale float32
	u     *graph.Node                     // [R,O], rows masked, σ in
	v     *graph.Node                     // [R,I·kh·kw]
	image func(x *graph.Node) *graph.Node // the image of the input under V: [...,R]
}

// byFactors reports whether a layer is decomposed without its weight, for a change of rank r. Rows of U and V count like rows of the input: they go through
// the frozen weight too, and meet each other. building is the work on ΔW and its gradient in the form by the weight.
func (d *dora) byFactors(layer *nn.Layer, x *graph.Node, r int, building float64) bool {
	if layer.Result != nil || d.options.ModuleDropout > 0 || d.options.NeuronDropout > 0 {
		return false // W'−W is wanted by itself
	}
	t, n := d.target, rows(layer, x)
	size, rank := float64(tensor.Elems(t.Shape)), float64(r)
	sides := size/float64(t.Out()) + float64(t.Out())
	work := 3 * rank * ((float64(n)+rank)*sides + size)
	return d.options.byFactors(t, n, work, building+size*doraPasses)
}

// doraPasses is to the decomposition what passes is to the change of [loha].
const doraPasses = 200

// forward emits the layer with W' = (W+ΔW)∘f, and no array of the weight's size. f scales outputs, or inputs:
//
//	x·W'ᵀ = f ∘ (x·Wᵀ + x·ΔWᵀ)   or   (f∘x)·Wᵀ + (f∘x)·ΔWᵀ
func (d *dora) forward(b *nn.Builder, layer *nn.Layer, x *graph.Node, extra nn.Extra, c lowRank) *graph.Node {
	g := b.G
	var f *graph.Node
	g.Transient(func() { f = d.ratio(b, layer, c) })
	if !d.byOutput {
		g.Transient(func() { x = g.MulBlocks(x, f, 1) })
		return g.MatMul(c.image(x), c.u, graph.MatMulOptions{Alpha: c.scale, Add: layer.Base(g, x, extra)})
	}
	bare := *layer
	bare.Bias = nil
	y := g.MatMul(c.image(x), c.u, graph.MatMulOptions{Alpha: c.scale, Add: bare.Base(g, x, nn.Extra{})})
	y = g.MulBlocks(y, f, 1)
	if layer.Bias != nil {
		y = g.AddBlocks(y, layer.Bias, 1)
	}
	if extra.PerItem != nil {
		y = g.AddItems(y, extra.PerItem)
	}
	if extra.Add != nil {
		y = g.Add(y, extra.Add)
	}
	return y
}

// ratio emits f, [O] or [I], from the squares of the norms of W+ΔW in three parts:
//
//	‖W+ΔW‖² = ‖W‖² + 2·⟨W,ΔW⟩ + ‖ΔW‖²
//
// per output o, with u the column o of U: ⟨W,ΔW⟩ = s·u·(V·Wᵀ) and ‖ΔW‖² = s²·uᵀ·(V·Vᵀ)·u; per input likewise with U and V changed over.
func (d *dora) ratio(b *nn.Builder, layer *nn.Layer, c lowRank) *graph.Node {
	g, t := b.G, d.target
	r := c.u.Shape()[0]
	v, window := c.v, layer.IsConv && t.HasWindow()
	kernel := t.Shape[2:]
	if window { // channels last
		v = g.Permute(g.Reshape(v, r, t.In(), kernel[0], kernel[1]), 0, 2, 3, 1)
	}
	flat := g.Reshape(v, r, v.Elems()/r)
	n := len(d.magnitude.Host)
	side, through := c.u, (*graph.Node)(nil) // what varies along the magnitudes, the other side through W
	gram := flat
	if d.byOutput {
		if window { // the windows side by side are one image, and each gives a pixel
			image := g.Reshape(g.Permute(v, 1, 0, 2, 3), 1, kernel[0], r*kernel[1], t.In())
			through = g.Conv2d(image, layer.W, nil, nil, nil, graph.ConvOptions{Stride: kernel[1]})
		} else {
			through = g.Linear(flat, layer.W, nil, nil)
		}
	} else {
		side, gram = flat, c.u
		if window {
			image := g.ConvBack(g.Reshape(c.u, 1, 1, r, t.Out()), layer.W, []int{1, kernel[0], r * kernel[1], t.In()}, graph.ConvOptions{Stride: kernel[1]})
			through = g.Permute(g.Reshape(image, kernel[0], r, kernel[1], t.In()), 1, 0, 2, 3)
		} else {
			through = g.LinearBack(c.u, layer.W)
		}
	}
	gram = g.MatMul(gram, gram, graph.MatMulOptions{TransB: true})
	squares := g.Combine(g.Squares(layer.W, n, d.inner()), 1, g.SumBlocks(side, through, []int{n}, 1), 2*c.scale)
	squares = g.Combine(squares, 1, g.SumBlocks(side, g.MatMul(gram, side, graph.MatMulOptions{}), []int{n}, 1), c.scale*c.scale)
	return g.NormRatio(g.Reshape(b.Param(d.magnitude.Param), n), squares, doraEps, float32(d.options.strength()))
}
