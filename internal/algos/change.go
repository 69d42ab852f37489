package algos

import (
	"context"

	"lycoris/internal/graph"
	"lycoris/internal/kernels"
	"lycoris/internal/nn"
	"lycoris/internal/tensor"
)

// Change computes the weight change ΔW of a's host values on b, shaped like the weight, with a's strength and nothing dropped. frozen is the layer's
// weight, or the gain of a norm.
func Change(b kernels.Backend, a Adapter, frozen tensor.Tensor) ([]float32, error) {
	return evaluate(b, a, frozen, a.Change)
}

// evaluate runs a part of a's graph that starts from the frozen weight and its factors, in memory of its own.
func evaluate(b kernels.Backend, a Adapter, frozen tensor.Tensor, build func(*nn.Builder, *graph.Node) *graph.Node) ([]float32, error) {
	alone := NewNetwork([]Adapter{a})
	var kept [][2][]float32 // the memory that the factors have in a network
	for _, f := range a.Factors() {
		kept = append(kept, [2][]float32{f.Param.Value, f.Param.Grad})
	}
	defer func() {
		alone.Free(b)
		for i, f := range a.Factors() {
			f.Param.Value, f.Param.Grad = kept[i][0], kept[i][1]
		}
	}()
	if err := alone.Allocate(b); err != nil {
		return nil, err
	}
	if len(frozen.Shape) == 1 { // the gain of a norm
		frozen.Shape = []int{frozen.Shape[0], 1}
	}
	packed, err := b.Pack(frozen)
	if err != nil {
		return nil, err
	}
	defer b.Release(packed)
	g := &graph.Graph{}
	builder := nn.NewBuilder(nn.NewLeaves(g), nil, "", nil)
	out := build(builder, g.Frozen(&graph.Weight{Name: a.Target().Path, Shape: frozen.Shape, Packed: packed}, nil))
	plan := graph.NewPlan(g, []*graph.Node{out}, graph.PlanOptions{})
	arena, err := b.Alloc(plan.Floats())
	if err != nil {
		return nil, err
	}
	defer b.Free(arena)
	p, err := plan.Bind(b, arena)
	if err != nil {
		return nil, err
	}
	alone.KeepAll(p.Set)
	if err := p.Run(context.Background()); err != nil {
		return nil, err
	}
	return p.Output(0), nil
}
