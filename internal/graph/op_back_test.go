package graph

import (
	"context"
	"testing"

	"lycoris/internal/testutil"
)

// LinearBack and ConvBack are the products with the weight's values as a node, Squares the sums of their squares; NormRatio makes the norms what it is told.
// So are the gradients.
func TestBackwardsProductsAndNorms(t *testing.T) {
	results := func(byNode bool) [][]float32 {
		w := newWorld()
		g := w.g
		linear, kernel := w.weight(6, 4), w.weight(5, 4, 3, 3)
		y, image, d := w.param(3, 6), w.param(1, 1, 2, 5), w.param(6)
		conv := ConvOptions{Stride: 3}
		var back, through, squares *Node
		if byNode {
			values := g.Frozen(linear, nil)
			back = g.MatMul(y, values, MatMulOptions{})
			through = g.MatMul(g.Reshape(image, 2, 5), g.Reshape(g.Frozen(kernel, nil), 5, 36), MatMulOptions{}) // windows [2,4,3,3]
			through = g.Reshape(g.Permute(g.Reshape(through, 2, 4, 3, 3), 2, 0, 3, 1), 1, 3, 6, 4)
			squares = g.SumBlocks(values, values, []int{6}, 4)
		} else {
			back = g.LinearBack(y, linear)
			through = g.ConvBack(image, kernel, []int{1, 3, 6, 4}, conv)
			squares = g.Squares(linear, 6, 4)
		}
		spread := g.SumBlocks(y, y, []int{6}, 1)
		f := g.NormRatio(d, g.Add(squares, spread), 1e-7, 0.7)
		seeds := []*Node{w.input("a", 3, 4), w.input("b", 1, 3, 6, 4), w.input("c", 6)}
		outputs := append([]*Node{back, through, f}, g.Grad([]*Node{back, through, f}, seeds, []*Node{y, image, d})...)
		p, err := NewPlan(g, outputs, PlanOptions{}).BindSeparately(w.b)
		if err != nil {
			t.Fatal(err)
		}
		for name, v := range w.in {
			p.Set(name, v)
		}
		if err := p.Run(context.Background()); err != nil {
			t.Fatal(err)
		}
		var all [][]float32
		for i := range outputs {
			all = append(all, p.Output(i))
		}
		return all
	}
	got, want := results(false), results(true)
	for i, name := range []string{"linear backwards", "convolution backwards", "norm ratio", "gradient of y", "gradient of the image", "gradient of d"} {
		testutil.NearRel(t, name, got[i], want[i], 1e-5)
	}
}

// NormRatio is what it says, for a norm of 0 and for squares that rounding made negative too.
func TestNormRatio(t *testing.T) {
	w := newWorld()
	g := w.g
	d, squares := g.Input("d", 3), g.Input("squares", 3)
	f := g.NormRatio(d, squares, 0.5, 0.7)
	outputs := append([]*Node{f}, g.Grad([]*Node{f}, []*Node{g.Input("seed", 3)}, []*Node{d, squares})...)
	p, err := NewPlan(g, outputs, PlanOptions{}).BindSeparately(w.b)
	if err != nil {
		t.Fatal(err)
	}
	p.Set("d", []float32{3, 1, 1})
	p.Set("squares", []float32{4, 0, -1e-9})
	p.Set("seed", []float32{1, 1, 1})
	if err := p.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	for i, want := range [][]float32{
		{0.7*(3/2.5-1) + 1, 0.7*(2-1) + 1, 0.7*(2-1) + 1},
		{0.7 / 2.5, 1.4, 1.4},
		{-0.7 * 3 / (2.5 * 2.5 * 2 * 2), 0, 0},
	} {
		testutil.NearRel(t, []string{"f", "gradient of d", "gradient of squares"}[i], p.Output(i), want, 1e-6)
	}
}
