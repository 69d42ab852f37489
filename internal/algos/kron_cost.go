package algos

import (
	"lycoris/internal/graph"
	"lycoris/internal/nn"
	"lycoris/internal/tensor"
)

// What the steps of kron.apply cost, in multiply-adds of a large product (some 35 a nanosecond on a Zen 3 core with AVX2): measured op by op on the CPU
// backend, checked by BenchmarkForms. Small matrices cost by the piece rather than by the multiply-add.
const (
	mixRow    = 6000 // W1 on the groups of one row, beside its multiply-adds
	convPixel = 5000 // a convolution at one pixel of one group's image, beside its multiply-adds
	moveGroup = 500  // one group of one pixel moved from rows to images or back
	buildCost = 170  // an element of a weight's change: made twice, and its gradient taken apart
)

// narrow returns the cost of a multiply-add of a product with in and out columns.
func narrow(in, out int) float64 { return 1 + 10/float64(in) + 10/float64(out) }

// work returns the cost of forward and gradient by the factors for a layer on x.
func (k *kron) work(l *nn.Layer, x *graph.Node) float64 {
	in := x.Elems() / x.Last()
	_, once := k.place(k.stages(l.IsConv && k.pixels() > 1), in, rows(l, x))
	return 3 * once
}

// weightWork returns the cost of making a weight's change and of its gradient, and of a convolution's two products without the short cut that frozen kernels
// have (Winograd's).
func weightWork(l *nn.Layer, x *graph.Node) float64 {
	size := float64(tensor.Elems(l.W.Shape))
	work := buildCost * size
	if l.IsConv && size > float64(l.W.Shape[0]*l.W.Shape[1]) {
		work += float64(rows(l, x)) * size
	}
	return work
}

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
