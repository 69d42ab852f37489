package nn

import "lycoris/internal/graph"

// Layer is one Linear or Conv2d of a model with its frozen weight.
type Layer struct {
	Path   string            // with the component in front: "unet.conv_in"
	W      *graph.Weight     // [O,I] or [O,I,kh,kw]
	Bias   *graph.Node       // [O], may be nil
	Conv   graph.ConvOptions // for kernels
	IsConv bool              // the module is a convolution, 1×1 included
	Result *graph.Node       // of adapters below in a stack: what Base gives in place of the frozen layer's; nil without
}

// Extra is what a layer adds to its result besides its bias. Both may be nil.
type Extra struct {
	PerItem *graph.Node // [N,O]; convolutions only
	Add     *graph.Node // like the result
}

// Adapter stands in for the forward of one layer.
type Adapter interface {
	// Forward emits the adapted layer: what l.Base would, changed. It must add extra, itself or through Base.
	Forward(b *Builder, l *Layer, x *graph.Node, extra Extra) *graph.Node
}

// NormAdapter is an [Adapter] of a GroupNorm or LayerNorm: in place of a forward it changes gain and bias [C].
type NormAdapter interface {
	Norm(b *Builder, gain, bias *graph.Node) (*graph.Node, *graph.Node)
}

// Base emits the frozen layer: x·Wᵀ or the convolution, + bias + extra.
func (l *Layer) Base(g *graph.Graph, x *graph.Node, extra Extra) *graph.Node {
	if l.Result != nil {
		return l.Result // extra is part of it
	}
	if l.IsConv {
		return g.Conv2d(x, l.W, l.Bias, extra.PerItem, extra.Add, l.Conv)
	}
	return g.Linear(x, l.W, l.Bias, extra.Add)
}
