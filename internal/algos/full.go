package algos

import (
	"lycoris/internal/fault"
	"lycoris/internal/graph"
	"lycoris/internal/kernels"
	"lycoris/internal/nn"
	"lycoris/internal/rng"
	"lycoris/internal/tensor"
)

// Keys of files with whole changes.
const (
	keyDiff     = "diff"
	keyDiffBias = "diff_b"
)

// Full trains every weight, and the bias where the layer has one. What is kept is the difference to the frozen values.
var Full = Algorithm{
	Name: "full",
	Doc:  "the whole weight, as in fine-tuning; stored as a difference",
	Keys: []string{keyDiff, keyDiffBias},
	Is:   marked(keyDiff),
	New:  func(t Target, o Options, _ *rng.Stream) (Adapter, error) { return newFull(t, o, nil, nil, t.Bias), nil },
	Load: loadFull,
}

// full holds W' = W + μ·m∘diff and b' = b + μ·m∘diff_b with m the row mask of rank dropout, the same for both.
//
// Upstream trains the sum, so weight decay pulls W' and not the difference towards zero. [Factor.Origin] tells the optimizer what to add.
type full struct {
	module
	diff, diffBias *Factor // like the weight, and [O] or nil
}

func newFull(t Target, o Options, diff, bias []float32, hasBias bool) *full {
	o.NeuronDropout, o.Rank = 0, 0 // mean nothing to it, as upstream
	a := &full{module: module{target: t, options: o, inputs: o.stepInputs(t)}}
	a.diff = a.factor(keyDiff, diff, t.Shape...)
	if hasBias {
		a.diffBias = a.factor(keyDiffBias, bias, t.Out())
	}
	return a
}

func loadFull(t Target, tensors map[string]tensor.Tensor, o Options) (Adapter, error) {
	file := stored(tensors)
	diff, err := file.values(t, keyDiff, t.Shape...)
	if err != nil {
		return nil, err
	}
	var bias []float32
	if _, ok := file[keyDiffBias]; ok {
		if !t.Bias {
			return nil, fault.BadInput("", "%q has %s, but the layer has no bias", t.Name, keyDiffBias)
		}
		if bias, err = file.values(t, keyDiffBias, t.Out()); err != nil {
			return nil, err
		}
	}
	return newFull(t, o, diff, bias, t.Bias), nil
}

func (a *full) Algorithm() *Algorithm { return &Full }

// Forward emits the layer by its changed weight and bias: there is no smaller form.
func (a *full) Forward(b *nn.Builder, layer *nn.Layer, x *graph.Node, extra nn.Extra) *graph.Node {
	a.findOrigins(layer)
	if a.diffBias == nil {
		return a.throughWeight(b, layer, x, extra, a)
	}
	g := b.G
	change := a.masked(b, a.diffBias)
	if layer.Result != nil {
		return g.AddBlocks(a.throughWeight(b, layer, x, extra, a), change, 1)
	}
	changed := *layer
	changed.Bias = g.Add(layer.Bias, change)
	return a.throughWeight(b, &changed, x, extra, a)
}

// findOrigins keeps what the factors are differences to.
func (a *full) findOrigins(layer *nn.Layer) {
	a.diff.Origin = func() (kernels.Weight, []float32) { return layer.W.Packed, nil }
	if v := layer.Bias.Vector(); v != nil && a.diffBias != nil {
		a.diffBias.Origin = func() (kernels.Weight, []float32) { return nil, v.Data }
	}
}

// masked emits μ·m∘f.
func (a *full) masked(b *nn.Builder, f *Factor) *graph.Node {
	return b.G.Scale(a.options.maskRows(b, a.target, b.Param(f.Param)), float32(a.options.strength()))
}

// Change emits μ·m∘diff.
func (a *full) Change(b *nn.Builder, _ *graph.Node) *graph.Node { return a.masked(b, a.diff) }

// BiasChange returns μ·diff_b.
func (a *full) BiasChange() []float32 {
	if a.diffBias == nil {
		return nil
	}
	return scaled(a.diffBias.Host, float32(a.options.strength()))
}

// Tensors returns diff like the weight and, with a bias, diff_b [O].
func (a *full) Tensors() []tensor.Named { return a.fileForm(a.diff, a.diffBias) }
