package algos

import (
	"lycoris/internal/graph"
	"lycoris/internal/nn"
	"lycoris/internal/tensor"
)

// What the steps of kron.apply cost beside one multiply-add of a large product, measured by BenchmarkForms.
const (
	mixCost   = 2.0 // a multiply-add across groups
	moveCost  = 8.0 // an element moved from rows to images or back
	buildCost = 60  // an element of a change made, and of its gradient taken apart
)

// narrow returns the cost of a multiply-add of a product with in and out columns.
func narrow(in, out int) float64 {
	return 1 + 16/float64(in) + 16/float64(out)
}

// work returns the cost of forward and gradient by the factors for a layer on x.
func (k *kron) work(l *nn.Layer, x *graph.Node) float64 {
	in := x.Elems() / x.Last()
	_, once := k.place(k.stages(l.IsConv && k.pixels() > 1), in, rows(l, x))
	return 3 * once
}

// weightWork returns the cost of making a weight's change and of its gradient.
func weightWork(t Target) float64 { return buildCost * float64(tensor.Elems(t.Shape)) }

// work returns the cost of forward and gradient by the factors for a layer on x; apart says that A·x takes a second product with the frozen weight.
func (l *glokr) work(layer *nn.Layer, x *graph.Node, apart bool) float64 {
	in := x.Elems() / x.Last()
	_, once := l.a.place(l.a.stages(false), in, in)
	all := 3*once + l.b.work(layer, x)
	if apart {
		all += 2 * float64(rows(layer, x)) * float64(tensor.Elems(l.target.Shape))
	}
	return all
}
