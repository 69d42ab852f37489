// Package algostest is the suite that every algorithm passes without test code of its own: [Run]. [Probe] runs one adapted layer for it and for tests
// against the goldens of other libraries.
package algostest

import (
	"context"
	"testing"

	"lycoris/internal/algos"
	"lycoris/internal/graph"
	"lycoris/internal/kernels"
	"lycoris/internal/nn"
	"lycoris/internal/tensor"
)

// Probe is one layer with everything that goes in. Images are channels-last.
type Probe struct {
	Target   algos.Target
	Upsample bool
	Groups   int           // of a group norm; a norm without is a layer norm
	W        tensor.Tensor // [O,I] or [O,I,kh,kw]; [C] of a norm
	Bias     []float32     // [O], nil without
	XShape   []int         // [...,I] or [N,H,W,I]
	X        []float32
	DY       []float32 // seed of the gradient, like the result
	Add      []float32 // a residual like the result, nil without
	PerItem  []float32 // [N,O], nil without; convolutions
	Recheck  bool      // plan with recomputation of segments too
}

// Result is what a probe gave.
type Result struct {
	Y, DX []float32
	Grads map[string][]float32 // of trained factors, by key: the part of the name after the module's
}

// Run emits the layer with the adapters one above the other (none: the frozen layer), runs it on b with nothing dropped, or with the inputs that set gives,
// and returns result and gradients.
func (p Probe) Run(t testing.TB, b kernels.Backend, set func(n *algos.Network, put func(string, []float32)), adapters ...algos.Adapter) Result {
	t.Helper()
	n := algos.NewNetwork(adapters)
	if err := n.Allocate(b); err != nil {
		t.Fatal(err)
	}
	defer n.Free(b)
	g := &graph.Graph{}
	leaves := nn.NewLeaves(g)
	builder := nn.NewBuilder(leaves, nil, "unet", nil)
	x := leaves.Input("x", p.XShape...)
	var bias, y *graph.Node
	if p.Bias != nil {
		bias = leaves.Input("bias", p.Target.Out())
	}
	if p.isNorm() {
		y = p.emitNorm(builder, x, leaves.Input("gain", p.Target.Out()), bias, adapters)
	} else {
		packed, err := b.Pack(p.W)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Release(packed)
		layer := &nn.Layer{Path: p.Target.Path, W: &graph.Weight{Name: "W", Shape: p.Target.Shape, Packed: packed}, Bias: bias, IsConv: p.Target.IsConv(),
			Conv: graph.ConvOptions{Stride: p.Target.Stride, Pad: graph.SamePad(p.Target.Pad), Upsample: p.Upsample}}
		y = p.emit(builder, layer, x, adapters)
	}
	wrt, keys := []*graph.Node{x}, []string{""}
	for _, a := range adapters {
		for _, f := range a.Factors() {
			if !f.Frozen && leaves.Has(f.Param) {
				wrt = append(wrt, leaves.Param(f.Param))
				keys = append(keys, f.Param.Name[len(a.Target().Name)+1:])
			}
		}
	}
	outputs := append([]*graph.Node{y}, g.Grad([]*graph.Node{y}, []*graph.Node{leaves.Input("dy", y.Shape()...)}, wrt)...)
	var there []*graph.Node
	for _, o := range outputs {
		if o != nil {
			there = append(there, o)
		}
	}
	prog, err := graph.NewPlan(g, there, graph.PlanOptions{Recompute: p.Recheck}).BindSeparately(b)
	if err != nil {
		t.Fatal(err)
	}
	put := prog.Set
	n.KeepAll(put)
	if set != nil {
		set(n, put)
	}
	if p.isNorm() {
		put("gain", p.W.Float32())
	}
	for name, v := range map[string][]float32{"x": p.X, "dy": p.DY, "bias": p.Bias, "add": p.Add, "per item": p.PerItem} {
		if v != nil {
			put(name, v)
		}
	}
	if err := prog.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	r := Result{Grads: map[string][]float32{}}
	i := 0
	for j, o := range outputs {
		if o == nil {
			continue
		}
		v := prog.Output(i)
		i++
		switch j {
		case 0:
			r.Y = v
		case 1:
			r.DX = v
		default:
			r.Grads[keys[j-1]] = v
		}
	}
	return r
}

// emit builds the layer, inside a segment where recomputation is on.
func (p Probe) emit(b *nn.Builder, layer *nn.Layer, x *graph.Node, adapters []algos.Adapter) (y *graph.Node) {
	var extra nn.Extra
	if p.Add != nil {
		shape := append(append([]int{}, p.outShape()[:len(p.XShape)-1]...), p.Target.Out())
		extra.Add = b.Input("add", shape...)
	}
	if p.PerItem != nil {
		extra.PerItem = b.Input("per item", p.XShape[0], p.Target.Out())
	}
	b.G.Segment(func() {
		if len(adapters) == 0 {
			y = layer.Base(b.G, x, extra)
		}
		for _, a := range adapters {
			above := *layer
			above.Result = y
			y = a.Forward(b, &above, x, extra)
		}
	})
	return y
}

func (p Probe) isNorm() bool { return len(p.Target.Shape) == 1 }

// normEps is torch's.
const normEps = 1e-5

// emitNorm builds the norm, inside a segment where recomputation is on.
func (p Probe) emitNorm(b *nn.Builder, x, gain, bias *graph.Node, adapters []algos.Adapter) (y *graph.Node) {
	b.G.Segment(func() {
		for _, a := range adapters {
			gain, bias = a.(nn.NormAdapter).Norm(b, gain, bias)
		}
		if p.Groups > 0 {
			y = b.G.GroupNorm(x, gain, bias, p.Groups, normEps, false)
		} else {
			y = b.G.LayerNorm(x, gain, bias, normEps)
		}
	})
	return y
}

// outShape returns the shape of the result.
func (p Probe) outShape() []int {
	if p.isNorm() {
		return p.XShape
	}
	if !p.Target.IsConv() {
		return append(append([]int{}, p.XShape[:len(p.XShape)-1]...), p.Target.Out())
	}
	h, w, stride := p.XShape[1], p.XShape[2], max(p.Target.Stride, 1)
	if p.Upsample {
		h, w = 2*h, 2*w
	}
	k := p.Target.Shape[2:]
	return []int{p.XShape[0], (h+2*p.Target.Pad-k[0])/stride + 1, (w+2*p.Target.Pad-k[1])/stride + 1, p.Target.Out()}
}

// Clone returns an adapter with a's values by way of its file form.
func Clone(t testing.TB, a algos.Adapter, o algos.Options) algos.Adapter {
	t.Helper()
	file := map[string]tensor.Tensor{}
	for _, f := range a.Tensors() {
		file[f.Name] = f.Tensor
	}
	c, err := a.Algorithm().Load(a.Target(), file, o)
	if err != nil {
		t.Fatalf("load what was saved: %v", err)
	}
	return c
}
