package algos

import (
	"lycoris/internal/fault"
	"lycoris/internal/graph"
	"lycoris/internal/nn"
	"lycoris/internal/rng"
	"lycoris/internal/tensor"
)

// Keys of IA³ files.
const (
	keyIA3     = "weight"
	keyOnInput = "on_input"
)

// IA3 scales channels (Liu et al., 2022, (IA)³): ΔW = W∘w, w a factor per output or, on_input, per input channel. The bias is not scaled.
var IA3 = Algorithm{
	Name:  "ia3",
	Doc:   "a factor per output or input channel",
	Takes: []string{"on_input"},
	Keys:  []string{keyIA3, keyOnInput},
	Is:    marked(keyOnInput),
	New: func(t Target, o Options, _ *rng.Stream) (Adapter, error) {
		return newIA3(t, o, o.OnInput, nil), nil
	},
	Load: loadIA3,
}

// ia3 holds w [O] or [I], zero at first. The layer's output (or input) is multiplied by f = 1 + μ·m·w, with m the switch of module dropout.
type ia3 struct {
	module
	onInput bool
	weight  *Factor // [O] or [I]
	one     *Factor // [1], never trained: what f starts from
}

func newIA3(t Target, o Options, onInput bool, values []float32) *ia3 {
	o.RankDropout, o.NeuronDropout, o.Rank = 0, 0, 0 // mean nothing to it, as upstream
	a := &ia3{module: module{target: t, options: o, inputs: o.moduleInputs(t)}, onInput: onInput}
	channels := t.Out()
	if onInput {
		channels = t.In()
	}
	a.weight = a.factor(keyIA3, values, channels)
	a.one = a.factor("one", []float32{1}, 1)
	a.one.Frozen = true
	return a
}

func loadIA3(t Target, tensors map[string]tensor.Tensor, o Options) (Adapter, error) {
	file := stored(tensors)
	if _, ok := file[keyOnInput]; !ok {
		return nil, fault.BadInput("", "%q has no %s", t.Name, keyOnInput)
	}
	on, err := file.number(t, keyOnInput, 0)
	if err != nil {
		return nil, err
	}
	channels := t.Out()
	if on != 0 {
		channels = t.In()
	}
	w, err := file.values(t, keyIA3, channels)
	if err != nil {
		return nil, err
	}
	return newIA3(t, o, on != 0, w), nil
}

func (a *ia3) Algorithm() *Algorithm { return &IA3 }

// delta emits μ·m·w.
func (a *ia3) delta(b *nn.Builder) *graph.Node {
	return a.options.maskModule(b, a.target, b.G.Scale(b.Param(a.weight.Param), float32(a.options.strength())))
}

// Forward scales the input or, before bias and residual, the output of the product. An adapter above others adds the difference to their result.
func (a *ia3) Forward(b *nn.Builder, layer *nn.Layer, x *graph.Node, extra nn.Extra) *graph.Node {
	if a.options.Form == FormWeight {
		return a.throughWeight(b, layer, x, extra, a)
	}
	g := b.G
	factor := a.delta(b)
	bare := *layer
	bare.Bias, bare.Result = nil, nil
	if layer.Result != nil {
		if a.onInput {
			return bare.Base(g, g.MulBlocks(x, factor, 1), nn.Extra{Add: layer.Result})
		}
		return g.Add(layer.Result, g.MulBlocks(bare.Base(g, x, nn.Extra{}), factor, 1))
	}
	factor = g.AddBlocks(factor, b.Param(a.one.Param), 1)
	if a.onInput {
		return layer.Base(g, g.MulBlocks(x, factor, 1), extra)
	}
	y := g.MulBlocks(bare.Base(g, x, nn.Extra{}), factor, 1)
	if layer.Bias != nil {
		y = g.AddBlocks(y, layer.Bias, 1)
	}
	if extra.PerItem != nil {
		y = g.AddItems(y, extra.PerItem)
	}
	if extra.Add != nil {
		y = g.Add(y, extra.Add)
	}
	return y
}

// Change emits μ·m·w∘W.
func (a *ia3) Change(b *nn.Builder, w *graph.Node) *graph.Node {
	inner := a.target.Window()
	if !a.onInput {
		inner *= a.target.In()
	}
	return b.G.MulBlocks(w, a.delta(b), inner)
}

// Tensors returns weight [C] or, for convolutions, [1,C,1,1], and on_input as an integer.
func (a *ia3) Tensors() []tensor.Named {
	shape := a.weight.Param.Shape
	if a.target.IsConv() {
		shape = []int{1, shape[0], 1, 1}
	}
	on := int64(0)
	if a.onInput {
		on = 1
	}
	return []tensor.Named{
		{Name: keyIA3, Tensor: tensor.FromFloat32(tensor.F32, shape, a.weight.Host)},
		{Name: keyOnInput, Tensor: tensor.FromInt64(nil, []int64{on})},
	}
}
