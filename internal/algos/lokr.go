package algos

import (
	"math"
	"slices"

	"lycoris/internal/fault"
	"lycoris/internal/graph"
	"lycoris/internal/nn"
	"lycoris/internal/rng"
	"lycoris/internal/tensor"
)

// LoKr is the Kronecker change ΔW = s·σ·W1⊗W2 (Edalati et al., 2022; Yeh et al., 2023), the parts whole or low-rank.
var LoKr = Algorithm{
	Name:  "lokr",
	Doc:   "Kronecker product of a small and a large factor",
	Takes: []string{"dim", "alpha", "factor", "tucker", "use_scalar", "rs_lora", "decompose_both", "full_matrix", "unbalanced", "dora"},
	Keys: []string{keyAlpha, keyDoRA, "lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2",
		"lokr_t1"}, // never written by anyone, but listed
	Is:   marked("lokr_w1", "lokr_w1_a"),
	New:  newLoKr,
	Load: loadLoKr,
}

const lokrPrefix = "lokr_"

// lokr holds the parts of ΔW and s = alpha/R (rs-LoRA: alpha/√R), 1 where both parts are whole.
type lokr struct {
	module
	*kron
	scale     float64
	fileAlpha float64
	sigma     *Factor // [1], nil where it is always 1
	dora      *dora   // nil without
}

func newLoKr(t Target, o Options, s *rng.Stream) (Adapter, error) {
	if o.Rank < 1 {
		return nil, fault.BadUsage("dim", "%d is not a rank: 1 or more", o.Rank)
	}
	k := kronSize(t.Shape, o, o.Unbalanced)
	l := &lokr{module: module{target: t, options: o, inputs: o.stepInputs(t)}, kron: &k}
	k.start(&l.module, lokrPrefix, o, s)
	l.scale, l.fileAlpha = o.scaling()
	if k.full() {
		l.scale, l.fileAlpha = 1, float64(o.Rank)
	}
	l.sigma = l.addScalar(0)
	l.dora = l.newDoRA(o.DoRA)
	return l, nil
}

// addScalar gives m its scalar where one is trained.
func (m *module) addScalar(at float32) *Factor {
	if !m.options.UseScalar {
		return nil
	}
	return m.factor("scalar", []float32{at}, 1)
}

// loadLoKr never guesses: sizes, rank and form are those of the stored tensors. A file whose parts are whole names no rank; it counts as 1.
func loadLoKr(t Target, tensors map[string]tensor.Tensor, o Options) (Adapter, error) {
	l := &lokr{module: module{target: t, inputs: o.stepInputs(t)}}
	f := kronFile{m: &l.module, prefix: lokrPrefix, tensors: tensors}
	l.kron = f.load(t.Shape)
	if f.err != nil {
		return nil, f.err
	}
	o.Rank, o.RSLoRA = max(l.rank, 1), false
	var err error
	if o.Alpha, err = f.tensors.number(t, keyAlpha, float64(o.Rank)); err != nil {
		return nil, err
	}
	l.options = o
	l.scale, l.fileAlpha = o.scaling()
	if l.full() {
		l.scale = 1
	}
	l.sigma = l.addScalar(1)
	if l.dora, err = l.loadDoRA(tensors); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *lokr) Algorithm() *Algorithm { return &LoKr }

// part emits μ·s·σ·W1.
func (l *lokr) part(b *nn.Builder) *graph.Node {
	return l.small(b, l.scale*l.options.strength(), scalarNode(b, l.sigma))
}

// delta emits μ·s·σ·W1⊗W2, its rows masked.
func (l *lokr) delta(b *nn.Builder) *graph.Node {
	return l.options.maskRows(b, l.target, l.weight(b, l.part(b)))
}

// Change emits ΔW.
func (l *lokr) Change(b *nn.Builder, w *graph.Node) *graph.Node {
	return l.dora.change(b, w, l.delta(b))
}

func (l *lokr) changed(b *nn.Builder, w *graph.Node) *graph.Node {
	return l.dora.weight(b, w, l.delta(b))
}

func (l *lokr) starts() bool                 { return l.dora.starts() }
func (l *lokr) Start(weight []float32) error { return l.dora.start(weight) }

// Forward emits base(x) + μ·s·σ·(W1⊗W2)·x: never the Kronecker product, never a full weight gradient.
func (l *lokr) Forward(b *nn.Builder, layer *nn.Layer, x *graph.Node, extra nn.Extra) *graph.Node {
	if l.dora != nil || !l.options.byFactors(l.target, rows(layer, x), l.work(layer, x), weightWork(layer, x)) {
		return l.throughWeight(b, layer, x, extra, l)
	}
	base := layer.Base(b.G, x, extra)
	if l.options.dropsRows() || l.options.NeuronDropout > 0 {
		delta := l.options.maskOutputs(b, l.target, l.apply(b, l.part(b), x, nil, geometry(layer)))
		return l.options.addDelta(b, l.target, base, delta)
	}
	return l.apply(b, l.part(b), x, base, geometry(layer))
}

// Tensors folds σ into W1, as upstream does.
func (l *lokr) Tensors() []tensor.Named {
	return slices.Concat([]tensor.Named{alphaTensor(l.fileAlpha)}, l.dora.tensors(), l.tensorsOf(&l.module, hostScalar(l.sigma)))
}

// BoundNorm is upstream's apply_max_norm: the norm is that of s·W1⊗W2, without σ and taken as at least limit/2; all stored factors are shrunk alike.
func (l *lokr) BoundNorm(limit float64) (before, after float64) {
	before = l.scale * l.norm()
	n := math.Max(before, limit/2)
	if ratio := math.Min(n, limit) / n; ratio != 1 {
		l.shrink(ratio)
		return before, before * ratio
	}
	return before, before
}

func alphaTensor(v float64) tensor.Named {
	return tensor.Named{Name: keyAlpha, Tensor: tensor.FromFloat32(tensor.F32, nil, []float32{float32(v)})}
}

// hostScalar returns σ, 1 for nil.
func hostScalar(sigma *Factor) float32 {
	if sigma == nil {
		return 1
	}
	return sigma.Host[0]
}

// geometry returns a convolution's options, nil for a Linear.
func geometry(l *nn.Layer) *graph.ConvOptions {
	if !l.IsConv {
		return nil
	}
	return &l.Conv
}

// maskOutputs applies the row mask of the change to the adapter's output [...,O].
func (o Options) maskOutputs(b *nn.Builder, t Target, delta *graph.Node) *graph.Node {
	if !o.dropsRows() {
		return delta
	}
	return b.G.MulBlocks(delta, b.Input(rowMaskInput(t), t.Out()), 1)
}

// scalarNode emits σ; nil where it is always 1.
func scalarNode(b *nn.Builder, sigma *Factor) *graph.Node {
	if sigma == nil {
		return nil
	}
	return b.Param(sigma.Param)
}
