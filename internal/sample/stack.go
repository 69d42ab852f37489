package sample

import (
	"strings"

	"lycoris/internal/algos"
	"lycoris/internal/arch"
	"lycoris/internal/graph"
	"lycoris/internal/nn"
)

// stack is networks one on top of another: their changes of a layer add up.
type stack []*algos.Network

// adapter is the hook of nn.Builder.
func (s stack) adapter(path string) nn.Adapter {
	var all chain
	for _, n := range s {
		if a := n.Adapter(path); a != nil {
			all = append(all, a)
		}
	}
	switch len(all) {
	case 0:
		return nil
	case 1:
		return all[0]
	}
	return all
}

// changes reports whether a layer of the component has an adapter.
func (s stack) changes(c arch.Component) bool {
	for _, n := range s {
		for _, a := range n.Adapters {
			if strings.HasPrefix(a.Target().Path, string(c)+".") {
				return true
			}
		}
	}
	return false
}

// chain is several adapters of one layer.
type chain []nn.Adapter

// Forward emits the frozen layer once; each adapter adds its change to what the ones before it made.
func (c chain) Forward(b *nn.Builder, l *nn.Layer, x *graph.Node, extra nn.Extra) *graph.Node {
	out := c[0].Forward(b, l, x, extra)
	for _, a := range c[1:] {
		above := *l
		above.Result = out
		out = a.Forward(b, &above, x, extra)
	}
	return out
}

// Norm emits gain and bias of a norm with the changes of all.
func (c chain) Norm(b *nn.Builder, gain, bias *graph.Node) (*graph.Node, *graph.Node) {
	for _, a := range c {
		gain, bias = a.(nn.NormAdapter).Norm(b, gain, bias)
	}
	return gain, bias
}
