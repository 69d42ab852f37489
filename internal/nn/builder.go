package nn

import (
	"lycoris/internal/graph"
)

// Leaves are the inputs and parameters of one graph, each made once however many builders ask for it.
type Leaves struct {
	g      *graph.Graph
	params map[*graph.Param]*graph.Node
	inputs map[string]*graph.Node
}

// NewLeaves returns the leaves of g.
func NewLeaves(g *graph.Graph) *Leaves {
	return &Leaves{g, map[*graph.Param]*graph.Node{}, map[string]*graph.Node{}}
}

// Param returns the leaf of p.
func (l *Leaves) Param(p *graph.Param) *graph.Node {
	if l.params[p] == nil {
		l.params[p] = l.g.Param(p)
	}
	return l.params[p]
}

// Has reports whether the graph reads p.
func (l *Leaves) Has(p *graph.Param) bool { return l.params[p] != nil }

// Input returns the input called name.
func (l *Leaves) Input(name string, shape ...int) *graph.Node {
	if l.inputs[name] == nil {
		l.inputs[name] = l.g.Input(name, shape...)
	}
	return l.inputs[name]
}

// Builder emits the modules of one component.
type Builder struct {
	*Leaves
	G         *graph.Graph
	Store     *Store
	Component string                    // "unet", "text_encoder" or "vae": in front of layer paths
	Adapters  func(path string) Adapter // nil for none; gives nil where a layer has no adapter
	vectors   map[*graph.Vector]*graph.Node
}

// NewBuilder returns a builder of component on the graph of leaves. adapters may be nil.
func NewBuilder(leaves *Leaves, store *Store, component string, adapters func(path string) Adapter) *Builder {
	return &Builder{Leaves: leaves, G: leaves.g, Store: store, Component: component, Adapters: adapters, vectors: map[*graph.Vector]*graph.Node{}}
}

// Vector returns the leaf of the frozen array called name.
func (b *Builder) Vector(name string, shape ...int) *graph.Node {
	v := b.Store.Vector(name, shape...)
	if b.vectors[v] == nil {
		b.vectors[v] = b.G.Vector(v)
	}
	return b.vectors[v]
}

// Linear emits the Linear at path with out features, x [...,I]; bias says whether it has one.
func (b *Builder) Linear(path string, x *graph.Node, out int, bias bool, extra Extra) *graph.Node {
	l := &Layer{Path: b.Component + "." + path, W: b.Store.Weight(path+".weight", out, x.Last())}
	if bias {
		l.Bias = b.Vector(path+".bias", out)
	}
	return b.layer(l, x, extra)
}

// Conv2d emits the convolution at path with out channels and a k×k kernel, x [N,H,W,C].
func (b *Builder) Conv2d(path string, x *graph.Node, out, k int, opt graph.ConvOptions, extra Extra) *graph.Node {
	l := &Layer{Path: b.Component + "." + path, W: b.Store.Weight(path+".weight", out, x.Last(), k, k), Conv: opt, IsConv: true}
	l.Bias = b.Vector(path+".bias", out)
	return b.layer(l, x, extra)
}

func (b *Builder) layer(l *Layer, x *graph.Node, extra Extra) *graph.Node {
	if b.Adapters != nil {
		if a := b.Adapters(l.Path); a != nil {
			return a.Forward(b, l, x, extra)
		}
	}
	return l.Base(b.G, x, extra)
}

// GroupNorm emits the group norm at path; with silu its result goes through SiLU.
func (b *Builder) GroupNorm(path string, x *graph.Node, groups int, eps float32, silu bool) *graph.Node {
	gain, bias := b.norm(path, x.Last())
	return b.G.GroupNorm(x, gain, bias, groups, eps, silu)
}

// LayerNorm emits the layer norm at path.
func (b *Builder) LayerNorm(path string, x *graph.Node, eps float32) *graph.Node {
	gain, bias := b.norm(path, x.Last())
	return b.G.LayerNorm(x, gain, bias, eps)
}

// norm emits gain and bias of the norm at path, changed by its adapter.
func (b *Builder) norm(path string, channels int) (gain, bias *graph.Node) {
	gain, bias = b.Vector(path+".weight", channels), b.Vector(path+".bias", channels)
	if b.Adapters != nil {
		if a, ok := b.Adapters(b.Component + "." + path).(NormAdapter); ok {
			return a.Norm(b, gain, bias)
		}
	}
	return gain, bias
}
