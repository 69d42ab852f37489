package algos

import (
	"lycoris/internal/fault"
	"lycoris/internal/graph"
	"lycoris/internal/nn"
	"lycoris/internal/rng"
	"lycoris/internal/tensor"
)

// Keys of the norms in adapter files.
const (
	keyNormGain = "w_norm"
	keyNormBias = "b_norm"
)

// Norm changes the gain and the bias of a group norm or a layer norm (LyCORIS's train_norm). It isn't chosen by name: it goes beside any other algorithm.
var Norm = Algorithm{
	Name: "norm",
	Doc:  "gain and bias of the norms inside chosen blocks (train_norm)",
	Keys: []string{keyNormGain, keyNormBias},
	Is:   marked(keyNormGain),
	New: func(t Target, o Options, _ *rng.Stream) (Adapter, error) {
		if len(t.Shape) != 1 {
			return nil, nil // not a norm
		}
		return newNorm(t, o, nil, nil, t.Bias), nil
	},
	Load: loadNorm,
}

// norm holds gain' = gain + μ·m∘w and bias' = bias + μ·m∘b, both zero at first, m the mask of rank dropout over channels.
//
// Upstream keeps a channel with the probability that should leave it out; here rank dropout means what it means elsewhere.
type norm struct {
	module
	gain, bias *Factor // [C], bias nil where the norm has none
}

func newNorm(t Target, o Options, gain, bias []float32, hasBias bool) *norm {
	o.NeuronDropout, o.Rank = 0, 0 // mean nothing to it
	a := &norm{module: module{target: t, options: o, inputs: o.stepInputs(t)}}
	a.gain = a.factor(keyNormGain, gain, t.Out())
	if hasBias {
		a.bias = a.factor(keyNormBias, bias, t.Out())
	}
	return a
}

func loadNorm(t Target, tensors map[string]tensor.Tensor, o Options) (Adapter, error) {
	file := stored(tensors)
	if len(t.Shape) != 1 {
		return nil, fault.BadInput("", "%q has %s, but the layer is not a norm", t.Name, keyNormGain)
	}
	gain, err := file.values(t, keyNormGain, t.Out())
	if err != nil {
		return nil, err
	}
	var bias []float32
	if _, ok := file[keyNormBias]; ok {
		if !t.Bias {
			return nil, fault.BadInput("", "%q has %s, but the norm has no bias", t.Name, keyNormBias)
		}
		if bias, err = file.values(t, keyNormBias, t.Out()); err != nil {
			return nil, err
		}
	}
	return newNorm(t, o, gain, bias, t.Bias), nil
}

func (a *norm) Algorithm() *Algorithm { return &Norm }

// Forward is for layers with a weight: a norm has none.
func (a *norm) Forward(*nn.Builder, *nn.Layer, *graph.Node, nn.Extra) *graph.Node {
	panic("algos: " + a.target.Path + ": the adapter of a norm on a layer")
}

// Norm emits the changed gain and bias.
func (a *norm) Norm(b *nn.Builder, gain, bias *graph.Node) (*graph.Node, *graph.Node) {
	gain = b.G.Add(gain, a.masked(b, a.gain))
	if a.bias != nil {
		bias = b.G.Add(bias, a.masked(b, a.bias))
	}
	return gain, bias
}

// masked emits μ·m∘f.
func (a *norm) masked(b *nn.Builder, f *Factor) *graph.Node {
	return b.G.Scale(a.options.maskRows(b, a.target, b.Param(f.Param)), float32(a.options.strength()))
}

// Change emits the change of the gain, [C].
func (a *norm) Change(b *nn.Builder, _ *graph.Node) *graph.Node { return a.masked(b, a.gain) }

// BiasChange returns the change of the bias, [C]; nil without.
func (a *norm) BiasChange() []float32 {
	if a.bias == nil {
		return nil
	}
	return scaled(a.bias.Host, float32(a.options.strength()))
}

// Tensors returns w_norm and, with a bias, b_norm.
func (a *norm) Tensors() []tensor.Named { return a.fileForm(a.gain, a.bias) }
