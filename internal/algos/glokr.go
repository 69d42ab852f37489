package algos

import (
	"math"
	"runtime"
	"sync"
	"sync/atomic"

	"lycoris/internal/fault"
	"lycoris/internal/graph"
	"lycoris/internal/nn"
	"lycoris/internal/rng"
	"lycoris/internal/tensor"
)

// GLoKr is GLoRA with Kronecker products in place of low-rank ones: ΔW = σ·(sA·W·A + sB·B), A = A1⊗A2 on the input channels, B = B1⊗B2 like the weight.
// It is this project's own definition (docs/design/0007-glokr.md): no other program reads its files.
var GLoKr = Algorithm{
	Name:  "glokr",
	Doc:   "Kronecker products before and beside the layer; readable by lycoris only, export as full or lora",
	Takes: []string{"dim", "alpha", "factor", "tucker", "use_scalar", "rs_lora", "decompose_both", "full_matrix", "unbalanced"},
	Keys: []string{keyAlpha, "glokr_a_w1", "glokr_a_w1_a", "glokr_a_w1_b", "glokr_a_w2", "glokr_a_w2_a", "glokr_a_w2_b",
		"glokr_b_w1", "glokr_b_w1_a", "glokr_b_w1_b", "glokr_b_w2", "glokr_b_w2_a", "glokr_b_w2_b", "glokr_b_t2"},
	Is:   marked("glokr_a_w1", "glokr_a_w1_a"),
	New:  newGLoKr,
	Load: loadGLoKr,
}

// Beginnings of the keys of the two halves.
const (
	glokrA = "glokr_a_"
	glokrB = "glokr_b_"
)

// glokr holds the halves, each with the scale alpha/R (rs-LoRA: alpha/√R), or 1 where both its parts are whole.
type glokr struct {
	module
	a, b           *kron // a is [I,I], b like the weight
	scaleA, scaleB float64
	fileAlpha      float64
	sigma          *Factor       // [1], nil where it is always 1
	weight         *graph.Weight // the frozen one, as Forward saw it
	frozen         []float32     // what Weigh showed, until BoundNorm has used it
}

func newGLoKr(t Target, o Options, s *rng.Stream) (Adapter, error) {
	switch {
	case o.Rank < 1:
		return nil, fault.BadUsage("dim", "%d is not a rank: 1 or more", o.Rank)
	case o.DoRA != "":
		return nil, fault.BadUsage("dora", "glokr has no DoRA").Advise("lokr has")
	}
	l := &glokr{module: module{target: t, options: o, inputs: o.glokrInputs(t)}}
	a, b := kronSize([]int{t.In(), t.In()}, o, false), kronSize(t.Shape, o, o.Unbalanced)
	l.a, l.b = &a, &b
	l.a.start(&l.module, glokrA, o, s)
	l.b.start(&l.module, glokrB, o, s)
	l.settle()
	if l.a.full() && l.b.full() {
		l.fileAlpha = float64(o.Rank)
	}
	l.sigma = l.addScalar(0)
	return l, nil
}

// settle takes the scales from options and halves.
func (l *glokr) settle() {
	s, alpha := l.options.scaling()
	l.scaleA, l.scaleB, l.fileAlpha = s, s, alpha
	if l.a.full() {
		l.scaleA = 1
	}
	if l.b.full() {
		l.scaleB = 1
	}
}

// glokrInputs returns what the dropouts need: a row mask for rank dropout; a switch is enough for module dropout alone.
func (o Options) glokrInputs(t Target) []StepInput {
	if o.RankDropout > 0 {
		return o.stepInputs(t)
	}
	return o.moduleInputs(t)
}

func loadGLoKr(t Target, tensors map[string]tensor.Tensor, o Options) (Adapter, error) {
	l := &glokr{module: module{target: t, inputs: o.glokrInputs(t)}}
	a := kronFile{m: &l.module, prefix: glokrA, tensors: tensors, square: true}
	b := kronFile{m: &l.module, prefix: glokrB, tensors: tensors}
	l.a = a.load([]int{t.In(), t.In()})
	if a.err != nil {
		return nil, a.err
	}
	l.b = b.load(t.Shape)
	switch {
	case b.err != nil:
		return nil, b.err
	case l.a.rank != 0 && l.b.rank != 0 && l.a.rank != l.b.rank:
		return nil, fault.BadInput("", "%q: its halves have the ranks %d and %d", t.Name, l.a.rank, l.b.rank)
	}
	o.Rank, o.RSLoRA, o.DoRA = max(l.a.rank, l.b.rank, 1), false, ""
	var err error
	if o.Alpha, err = stored(tensors).number(t, keyAlpha, float64(o.Rank)); err != nil {
		return nil, err
	}
	l.options = o
	l.settle()
	l.sigma = l.addScalar(1)
	return l, nil
}

func (l *glokr) Algorithm() *Algorithm { return &GLoKr }

// small emits μ·s·σ·W1 of half k with scale s, switched off by module dropout where that has no row mask.
func (l *glokr) small(b *nn.Builder, k *kron, scale float64) *graph.Node {
	w1 := k.small(b, scale*l.options.strength(), scalarNode(b, l.sigma))
	if l.options.RankDropout > 0 {
		return w1
	}
	return l.options.maskModule(b, l.target, w1)
}

// mask applies the row mask to the adapter's output.
func (l *glokr) mask(b *nn.Builder, delta *graph.Node) *graph.Node {
	if l.options.RankDropout == 0 {
		return delta
	}
	return l.options.maskOutputs(b, l.target, delta)
}

// Change emits ΔW. W·A is A applied to W's rows of input channels, pixel by pixel.
func (l *glokr) Change(b *nn.Builder, w *graph.Node) *graph.Node {
	g, t := b.G, l.target
	o, i, area := t.Out(), t.In(), t.Window()
	left := w
	if area > 1 {
		left = g.Permute(g.Reshape(w, o, i, area), 0, 2, 1)
	}
	wa := l.a.applyTransposed(b, l.small(b, l.a, l.scaleA), g.Reshape(left, o*area, i))
	if area > 1 {
		wa = g.Permute(g.Reshape(wa, o, area, i), 0, 2, 1)
	}
	d := g.Add(g.Reshape(wa, t.Shape...), g.Reshape(l.b.weight(b, l.small(b, l.b, l.scaleB)), t.Shape...))
	if l.options.RankDropout == 0 {
		return d
	}
	return l.options.maskRows(b, t, d)
}

// Forward emits op(x + μ·σ·sA·A·x, W) + μ·σ·sB·B·x, one product with the frozen weight. Where the change must be had by itself (row masks, neuron dropout, an
// adapter below) A·x goes through a second product.
func (l *glokr) Forward(b *nn.Builder, layer *nn.Layer, x *graph.Node, extra nn.Extra) *graph.Node {
	l.weight = layer.W
	g := b.G
	apart := layer.Result != nil || l.options.RankDropout > 0 || l.options.NeuronDropout > 0
	if l.options.NeuronDropout == 0 && !l.options.byFactors(l.target, rows(layer, x), l.work(layer, x, apart), weightWork(layer, x)) {
		return l.throughWeight(b, layer, x, extra, l)
	}
	a, bw := l.small(b, l.a, l.scaleA), l.small(b, l.b, l.scaleB)
	if !apart {
		base := layer.Base(g, l.a.apply(b, a, x, x, nil), extra)
		return l.b.apply(b, bw, x, base, geometry(layer))
	}
	base := layer.Base(g, x, extra)
	ax := l.drop(b, "a", l.a.apply(b, a, x, nil, nil))
	alone := nn.Layer{Path: layer.Path, W: layer.W, Conv: layer.Conv, IsConv: layer.IsConv}
	if l.options.NeuronDropout > 0 {
		delta := g.Add(alone.Base(g, ax, nn.Extra{}), l.drop(b, "b", l.b.apply(b, bw, x, nil, geometry(layer))))
		return g.Add(base, l.mask(b, delta))
	}
	delta := l.b.apply(b, bw, x, alone.Base(g, ax, nn.Extra{}), geometry(layer))
	return g.Add(base, l.mask(b, delta))
}

// drop applies neuron dropout to A·x or B·x, as lycoris-lora's GLoRA does to its halves.
func (l *glokr) drop(b *nn.Builder, half string, x *graph.Node) *graph.Node {
	if l.options.NeuronDropout == 0 {
		return x
	}
	t := l.target
	t.Path += "." + half
	return b.G.Dropout(x, b.Input(SeedInput, 3), salt(t), float32(l.options.NeuronDropout))
}

// Tensors folds σ into the first parts of both halves.
func (l *glokr) Tensors() []tensor.Named {
	by := hostScalar(l.sigma)
	all := append([]tensor.Named{alphaTensor(l.fileAlpha)}, l.a.tensorsOf(&l.module, by)...)
	return append(all, l.b.tensorsOf(&l.module, by)...)
}

// Frozen returns the weight that Forward saw.
func (l *glokr) Frozen() *graph.Weight { return l.weight }

// Weigh shows the adapter the frozen weight, on which its norm depends.
func (l *glokr) Weigh(weight []float32) { l.frozen = weight }

// BoundNorm shrinks the factors of each half alike, so that ΔW shrinks as the norm must; the norm is that of σ·(sA·W·A + sB·B).
func (l *glokr) BoundNorm(limit float64) (before, after float64) {
	before = math.Abs(float64(hostScalar(l.sigma))) * l.norm()
	n := math.Max(before, limit/2)
	ratio := math.Min(n, limit) / n
	if ratio != 1 {
		l.a.shrink(ratio)
		l.b.shrink(ratio)
	}
	l.frozen = nil
	return before, before * ratio
}

// norm returns ‖sA·W·A + sB·B‖ of the host values, in float64, output by output.
func (l *glokr) norm() float64 {
	o, i, area := l.target.Out(), l.target.In(), l.target.Window()
	a1, b1 := l.a.smallHost(), l.b.smallHost()
	a2, b2 := l.a.largeHost(), l.b.largeHost() // [n,n] and, output by output of its own, [N,area]
	m, n := l.a.m, l.a.n
	sums := make([]float64, o)
	parallel(o, func(out int) {
		row := make([]float64, i*area) // [area,i]
		for p := range area {
			for c := range i {
				row[p*i+c] = float64(l.frozen[(out*i+c)*area+p])
			}
		}
		half := matmul64(row, a2, area*m, n, n)
		for p := range area { // Σ_b A1[b,a]·half[b,:]
			d := matmul64(transpose64(a1, m, m), half[p*i:(p+1)*i], m, m, n)
			for c := range i {
				change := l.scaleA*d[c] + l.scaleB*b1[out/l.b.k*l.b.m+c/l.b.n]*b2[((out%l.b.k)*l.b.n+c%l.b.n)*area+p]
				sums[out] += change * change
			}
		}
	})
	var sum float64
	for _, s := range sums {
		sum += s
	}
	return math.Sqrt(sum)
}

// parallel calls f(0..n-1) from as many goroutines as there are processors.
func parallel(n int, f func(i int)) {
	var next atomic.Int64
	var group sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				f(i)
			}
		})
	}
	group.Wait()
}
