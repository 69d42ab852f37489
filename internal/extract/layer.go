package extract

import (
	"math"

	"lycoris/internal/algos"
	"lycoris/internal/arch"
	"lycoris/internal/fault"
	"lycoris/internal/kernels"
	"lycoris/internal/linalg"
	"lycoris/internal/tensor"
)

// task is a layer or norm that is looked at.
type task struct {
	algos.Target
	component arch.Component
	module    arch.Module
	leftOut   bool // a kernel or norm that isn't extracted: its change is only measured
	onInput   bool // ia3
}

// layer is a task with its change.
type layer struct {
	*task
	m, n  int       // Δ is [m,n], n with the kernel's pixels
	delta []float32 // Δ; a fit may overwrite it
	base  []float32 // the base's weight, where the algorithm asks for it
	total float64   // ‖Δ‖²
}

// fit is a layer's change in an algorithm's form.
type fit struct {
	tensors []tensor.Named // by their suffixes
	rank    int
	left    float64 // ‖Δ − fit‖² of the factors as stored
	worst   float64 // largest element of |Δ − fit|
	note    string  // what a person should know
}

// worker fits layers, one at a time.
type worker struct {
	o          *Options
	linear     Rule
	conv       Rule
	backend    kernels.Backend
	compare    differ
	memory     []float32 // of a change
	directions *linalg.Directions
}

// rule returns the rank rule of a layer.
func (w *worker) rule(l *layer) Rule {
	if l.HasWindow() {
		return w.conv
	}
	return w.linear
}

// fit fits l by the algorithm.
func (w *worker) fit(l *layer) (*fit, error) {
	switch w.o.Algorithm {
	case "lora":
		return w.lora(l)
	case "lokr":
		return w.lokr(l)
	case "ia3":
		return w.ia3(l)
	case "diag-oft":
		return w.rotation(l)
	case "loha":
		return w.loha(l)
	}
	return w.full(l)
}

// needsBase reports whether the fits of an algorithm look at the base's weight.
func needsBase(algorithm string) bool { return algorithm == "ia3" || algorithm == "diag-oft" }

// stored rounds values to the file's element type. alpha and the like stay float32.
func (w *worker) stored(l *layer, key string, shape []int, v []float32) (tensor.Named, error) {
	t := tensor.Named{Name: key, Tensor: tensor.FromFloat32(w.o.DType, shape, v)}
	if n, first := t.NonFinite(); n > 0 {
		return t, tooLarge(l.Path, key, n, first, w.o.DType)
	}
	return t, nil
}

func tooLarge(path, key string, n, first int, d tensor.DType) error {
	return fault.New(fault.Failed, path, "%d values of its %s, the first at index %d, are too large for %s", n, key, first, d).Advise("use --dtype bf16 or fp32")
}

func alpha(v int) tensor.Named {
	return tensor.Named{Name: "alpha", Tensor: tensor.FromFloat32(tensor.F32, nil, []float32{float32(v)})}
}

// decomposition returns the singular triples of a [m,n] that rule keeps; total is ‖a‖². tolerance is that of [linalg.RandomOptions].
func (w *worker) decomposition(a []float32, m, n int, rule Rule, total, tolerance float64) (u, s, v []float64, err error) {
	full := min(m, n)
	limit := rule.limit(full)
	keep := func(r int) (_, _, _ []float64, _ error) {
		u, s, v = cut(u, s, v, m, n, min(r, limit))
		return u, s, v, nil
	}
	whole := func() (_, _, _ []float64, _ error) {
		u, s, v = linalg.GramSVD(a, m, n)
		r, _ := rule.rank(s, math.Sqrt(total))
		return keep(r)
	}
	if rule.whole() || full <= 48 || limit > full/4 && full <= 400 && !rule.dynamic() {
		return whole()
	}
	p := &products{w.backend, a, m, n}
	o := linalg.RandomOptions{Rank: limit, Directions: w.directions, Total: total, Tolerance: tolerance}
	if tolerance > 0 {
		o.MaxPower = 24
	}
	if rule.dynamic() {
		o.Rank = min(limit, 32)
	}
	for {
		u, s, v, _ = linalg.RandomSVDOf(p, o)
		r, enough := rule.rank(s, math.Sqrt(total))
		if enough || len(s) >= limit || len(s) < o.Rank {
			return keep(r)
		}
		if o.Rank = min(2*o.Rank, limit); o.Rank > full/2 {
			return whole()
		}
	}
}

// cut keeps the first r of the triples u [m,k], s, v [k,n].
func cut(u, s, v []float64, m, n, r int) (_, _, _ []float64) {
	k := len(s)
	if r >= k {
		return u, s, v
	}
	short := make([]float64, m*r)
	for i := range m {
		copy(short[i*r:(i+1)*r], u[i*k:i*k+r])
	}
	return short, s[:r], v[:r*n]
}

// products is a matrix [m,n] that the backend multiplies where it lies.
type products struct {
	b    kernels.Backend
	a    []float32
	m, n int
}

func (p *products) Dims() (int, int) { return p.m, p.n }
func (p *products) Times(y, x []float32, l int) {
	p.b.MatMul(y[:l*p.m], x, p.a, kernels.Epilogue{}, kernels.MatMul{Batch: 1, M: l, N: p.m, K: p.n, TransB: true, Alpha: 1})
}
func (p *products) TimesT(y, x []float32, l int) {
	p.b.MatMul(y[:l*p.n], x, p.a, kernels.Epilogue{}, kernels.MatMul{Batch: 1, M: l, N: p.n, K: p.m, Alpha: 1})
}

// miss subtracts up [m,r] times down [r,n] from a [m,n] and returns the square of the norm of what is left and its largest element.
func (w *worker) miss(a, up, down []float32, m, n, r int) (left, worst float64) {
	w.backend.MatMul(a, up, down, kernels.Epilogue{Add: a}, kernels.MatMul{Batch: 1, M: m, N: n, K: r, Alpha: -1})
	return w.rest(a)
}

// rest returns the square of a's norm and its largest element.
func (w *worker) rest(a []float32) (left, worst float64) {
	low, high := float32(0), float32(0)
	for _, v := range a {
		low, high = min(low, v), max(high, v)
	}
	return w.backend.SumSquares(a), float64(max(high, -low))
}
