package sample

import (
	"context"
	"slices"
	"testing"

	"lycoris/internal/algos"
	"lycoris/internal/graph"
	"lycoris/internal/kernels/ref"
	"lycoris/internal/nn"
	"lycoris/internal/rng"
)

// Two networks that change one norm add their changes of gain and bias.
func TestStackOfNorms(t *testing.T) {
	b := ref.Open()
	target := algos.Target{Path: "unet.norm", Name: "lora_unet_norm", Shape: []int{2}, Bias: true}
	var s stack
	for i := range 2 {
		a, err := algos.Norm.New(target, algos.Options{}, rng.New(1, "test", 0, 0))
		if err != nil {
			t.Fatal(err)
		}
		for j, f := range a.Factors() {
			f.Host = []float32{float32(i + 1), float32(10 * (j + 1))}
		}
		n := algos.NewNetwork([]algos.Adapter{a})
		if err := n.Allocate(b); err != nil {
			t.Fatal(err)
		}
		defer n.Free(b)
		s = append(s, n)
	}
	g := &graph.Graph{}
	builder := nn.NewBuilder(nn.NewLeaves(g), nil, "unet", s.adapter)
	gain, bias := s.adapter("unet.norm").(nn.NormAdapter).Norm(builder, g.Input("gain", 2), g.Input("bias", 2))
	p, err := graph.NewPlan(g, []*graph.Node{gain, bias}, graph.PlanOptions{}).BindSeparately(b)
	if err != nil {
		t.Fatal(err)
	}
	p.Set("gain", []float32{1, 2})
	p.Set("bias", []float32{3, 4})
	if err := p.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got, want := p.Output(0), []float32{4, 22}; !slices.Equal(got, want) {
		t.Errorf("gain %v, want %v", got, want)
	}
	if got, want := p.Output(1), []float32{6, 44}; !slices.Equal(got, want) {
		t.Errorf("bias %v, want %v", got, want)
	}
}
