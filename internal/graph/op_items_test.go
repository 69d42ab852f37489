package graph

import "testing"

// AddItems adds its row to every row of an item, and Gate changes nothing but the gradient, on one path to a squared error.
func TestAddItemsAndGate(t *testing.T) {
	for _, gated := range []bool{false, true} {
		w := newWorld()
		g := w.g
		x, s := w.param(2, 3, 4), w.param(2, 4)
		y := x
		w.in["gate"] = []float32{1, 1, 1}
		if gated {
			w.in["gate"] = []float32{0, 2, 1} // of rows: the second axis
		}
		y = g.Gate(y, g.Input("gate", 3), 4)
		y = g.AddItems(y, s)
		loss := g.SquaredError(y, w.input("target", 2, 3, 4))
		outputs := []*Node{loss, y}
		seed := w.input("seed", 2)
		w.in["seed"] = []float32{6, 6} // the error is a mean over 12: each element's gradient is its difference to the target
		for i, d := range g.Grad([]*Node{loss}, []*Node{seed}, []*Node{x, s}) {
			outputs = append(outputs, g.Accumulate(w.all[i], d))
		}
		p, err := NewPlan(g, outputs, PlanOptions{}).BindSeparately(w.b)
		if err != nil {
			t.Fatal(err)
		}
		w.run(t, p)
		rows := make([]float32, 8) // expected gradient of s
		for i, got := range p.Output(1) {
			item, row, col := i/12, i/4%3, i%4
			want := w.all[0].Value[i] + w.all[1].Value[item*4+col]
			if got != want {
				t.Errorf("element %d is %v, want %v", i, got, want)
			}
			d := got - w.in["target"][i]
			rows[item*4+col] += d
			if got, want := w.all[0].Grad[i], d*w.in["gate"][row]; abs(got-want) > 1e-6 {
				t.Errorf("gated %v: gradient %d is %v, want %v", gated, i, got, want)
			}
		}
		for i, want := range rows {
			if got := w.all[1].Grad[i]; abs(got-want) > 1e-6 {
				t.Errorf("gradient of row element %d is %v, want %v", i, got, want)
			}
		}
	}
}

func abs(x float32) float32 { return max(x, -x) }
