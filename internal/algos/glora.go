package algos

import (
	"slices"

	"lycoris/internal/fault"
	"lycoris/internal/graph"
	"lycoris/internal/nn"
	"lycoris/internal/rng"
	"lycoris/internal/tensor"
)

// Keys of GLoRA files.
const (
	keyGLoRAA1 = "a1.weight"
	keyGLoRAA2 = "a2.weight"
	keyGLoRAB1 = "b1.weight"
	keyGLoRAB2 = "b2.weight"
	keyGLoRABM = "bm.weight"
)

// GLoRA changes the weight by a product with itself and by a sum, both of low rank: ΔW = s·σ·(W·A + B) (Chavan et al., 2023, the A and B of equation 6).
var GLoRA = Algorithm{
	Name:  "glora",
	Doc:   "low-rank change of the layer's input and of its output",
	Takes: []string{"dim", "alpha", "use_scalar", "rs_lora"},
	Keys:  []string{keyGLoRAA1, keyGLoRAA2, keyGLoRAB1, keyGLoRAB2, keyGLoRABM, keyAlpha},
	Is:    marked(keyGLoRAA1),
	New:   newGLoRA,
	Load:  loadGLoRA,
}

// glora holds A = a1[I,R]·a2[R,I], which acts on the channels of each pixel, and B = b1[O,R]·b2[R,I·kh·kw]; a file may have a core bm [R,R,kh,kw] and b2 [R,I], as
// in Tucker LoRA. s = alpha/R, or alpha/√R for rs-LoRA; σ is 1 or a trained scalar.
type glora struct {
	module
	scale, fileAlpha   float64
	a1, a2, b1, b2, bm *Factor
	sigma              *Factor // [1], nil where it is always 1
}

// newGLoRA makes the sides of the input zero, not those of the output as in LoRA.
func newGLoRA(t Target, o Options, s *rng.Stream) (Adapter, error) {
	r := o.Rank
	if r < 1 {
		return nil, fault.BadUsage("dim", "%d is not a rank: 1 or more", r)
	}
	a := sizedGLoRA(t, o)
	b2 := append([]int{r}, t.Shape[1:]...)
	var inA, inB []float32
	outA, outB := kaimingUniform(s, r, t.In(), r), kaimingUniform(s, r, t.Out(), r)
	if o.UseScalar {
		inA, inB = kaimingUniform(s, t.In(), r, t.In()), kaimingUniform(s, tensor.Elems(t.Shape[1:]), b2...)
	}
	a.a1, a.a2 = a.factor(keyGLoRAA1, outA, t.In(), r), a.factor(keyGLoRAA2, inA, r, t.In())
	a.b1, a.b2 = a.factor(keyGLoRAB1, outB, t.Out(), r), a.factor(keyGLoRAB2, inB, b2...)
	a.addSigma(0)
	return a, nil
}

func sizedGLoRA(t Target, o Options) *glora {
	o.RankDropout = 0 // means nothing to it, as upstream
	a := &glora{module: module{target: t, options: o, inputs: o.moduleInputs(t)}}
	a.scale, a.fileAlpha = o.scaling()
	return a
}

func (a *glora) addSigma(value float32) {
	if a.options.UseScalar {
		a.sigma = a.factor("scalar", []float32{value}, 1)
	}
}

func loadGLoRA(t Target, tensors map[string]tensor.Tensor, o Options) (Adapter, error) {
	file := renamedGLoRA(tensors, t)
	r, err := file.rank(t, keyGLoRAA2, 0)
	if err != nil {
		return nil, err
	}
	o.Rank, o.RSLoRA = r, false
	if o.Alpha, err = file.number(t, keyAlpha, float64(r)); err != nil {
		return nil, err
	}
	_, tucker := file[keyGLoRABM]
	if tucker && !t.HasWindow() {
		return nil, fault.BadInput("", "%q: %s on a layer without a window", t.Name, keyGLoRABM)
	}
	a := sizedGLoRA(t, o)
	take := func(key string, shape ...int) *Factor {
		var values []float32
		if err == nil {
			values, err = file.values(t, key, shape...)
		}
		return a.factor(key, values, shape...)
	}
	a.a1, a.a2, a.b1 = take(keyGLoRAA1, t.In(), r), take(keyGLoRAA2, r, t.In()), take(keyGLoRAB1, t.Out(), r)
	if tucker {
		a.b2, a.bm = take(keyGLoRAB2, r, t.In()), take(keyGLoRABM, r, r, t.Shape[2], t.Shape[3])
	} else {
		a.b2 = take(keyGLoRAB2, append([]int{r}, t.Shape[1:]...)...)
	}
	if err != nil {
		return nil, err
	}
	a.addSigma(1)
	return a, nil
}

// renamedGLoRA returns the tensors under the names that they have today. Early files had the two of each pair the other way round: a1 [R,I], a2
// [I,R], b1 [R,I], b2 [O,R]. Where both readings fit, today's is taken.
func renamedGLoRA(tensors map[string]tensor.Tensor, t Target) stored {
	fits := func(key string, axis, length int) bool {
		s := tensors[key].Shape
		return len(s) > axis && s[axis] == length
	}
	today := fits(keyGLoRAA1, 0, t.In()) && fits(keyGLoRAA2, 1, t.In()) && fits(keyGLoRAB1, 0, t.Out()) && fits(keyGLoRAB2, 1, t.In())
	old := fits(keyGLoRAA1, 1, t.In()) && fits(keyGLoRAA2, 0, t.In()) && fits(keyGLoRAB1, 1, t.In()) && fits(keyGLoRAB2, 0, t.Out())
	if today || !old {
		return tensors
	}
	file := stored{}
	for key, v := range tensors {
		i := slices.Index([]string{keyGLoRAA1, keyGLoRAA2, keyGLoRAB1, keyGLoRAB2}, key)
		if i >= 0 {
			key = []string{keyGLoRAA2, keyGLoRAA1, keyGLoRAB2, keyGLoRAB1}[i]
		}
		file[key] = v
	}
	return file
}

func (a *glora) Algorithm() *Algorithm { return &GLoRA }

// outer emits σ·m∘f for the outer factor of a pair, m the switch of module dropout.
func (a *glora) outer(b *nn.Builder, f *Factor) *graph.Node {
	n := a.options.maskModule(b, a.target, b.Param(f.Param))
	if a.sigma != nil {
		n = b.G.MulBlocks(n, b.Param(a.sigma.Param), n.Elems())
	}
	return n
}

// strength returns s·μ, the constant part of the scale.
func (a *glora) strength() float32 { return float32(a.scale * a.options.strength()) }

// Forward emits base(x + s·σ·A·x) + s·σ·B·x: never ΔW, never a full weight gradient. Neuron dropout falls on both A·x and B·x, as in upstream's bypass
// form; the form by the weight has no place for it.
func (a *glora) Forward(b *nn.Builder, layer *nn.Layer, x *graph.Node, extra nn.Extra) *graph.Node {
	t, o := a.target, a.options
	n, r, size := rows(layer, x), float64(o.Rank), float64(tensor.Elems(t.Shape))
	work := 3 * r * (float64(n)*(size/float64(t.Out())+float64(t.Out())) + 2*float64(x.Elems()))
	if o.NeuronDropout == 0 && !o.byFactors(t, n, work, size*(12*r+passes)) {
		return a.throughWeight(b, layer, x, extra, a)
	}
	g := b.G
	product := graph.MatMulOptions{TransB: true, Alpha: a.strength()}
	add := func(place string, base, x, outer *graph.Node) *graph.Node { // base + s·σ·drop(x·outerᵀ); base may be nil
		p := product
		if o.NeuronDropout == 0 {
			p.Add = base
			return g.MatMul(x, outer, p)
		}
		y := g.Dropout(g.MatMul(x, outer, p), b.Input(SeedInput, 3), salt(Target{Path: t.Path + place}), float32(o.NeuronDropout))
		if base != nil {
			y = g.Add(g.Reshape(y, base.Shape()...), base)
		}
		return y
	}
	inA, inB := a.images(b, layer, x)
	var y *graph.Node
	if layer.Result != nil {
		bare := *layer
		bare.Bias, bare.Result = nil, nil
		y = bare.Base(g, add(" a", nil, inA, a.outer(b, a.a1)), nn.Extra{Add: layer.Result})
	} else {
		y = layer.Base(g, add(" a", x, inA, a.outer(b, a.a1)), extra)
	}
	return g.Reshape(add(" b", y, inB, a.outer(b, a.b1)), y.Shape()...)
}

// images emits x·a2ᵀ and b2 on x, [...,R] each: one product where no window is between them.
func (a *glora) images(b *nn.Builder, layer *nn.Layer, x *graph.Node) (inA, inB *graph.Node) {
	g, r, a2 := b.G, a.options.Rank, b.Param(a.a2.Param)
	if a.target.HasWindow() {
		return g.MatMul(x, a2, graph.MatMulOptions{TransB: true}), a.inner().hidden(b, layer, x)
	}
	both := g.ConcatRows(g.Reshape(a2, r, a.target.In()), g.Reshape(b.Param(a.b2.Param), r, a.target.In()))
	h := g.MatMul(x, both, graph.MatMulOptions{TransB: true})
	return g.Columns(h, 0, r), g.Columns(h, r, r)
}

// inner returns b2 and bm as the inner factors of a LoRA.
func (a *glora) inner() *lora { return &lora{module: a.module, down: a.b2, mid: a.bm} }

// Change emits s·σ·m·(W·A + B).
func (a *glora) Change(b *nn.Builder, w *graph.Node) *graph.Node {
	g, t, r := b.G, a.target, a.options.Rank
	window, scale := t.Window(), graph.MatMulOptions{Alpha: a.strength()}
	if window > 1 { // input channels last
		w = g.Permute(g.Reshape(w, t.Out(), t.In(), window), 0, 2, 1)
	}
	w = g.Reshape(w, t.Out()*window, t.In())
	wa := g.MatMul(g.MatMul(w, a.outer(b, a.a1), graph.MatMulOptions{}), b.Param(a.a2.Param), scale)
	if window > 1 {
		wa = g.Permute(g.Reshape(wa, t.Out(), window, t.In()), 0, 2, 1)
	}
	down := b.Param(a.b2.Param)
	if a.bm != nil {
		down = tuckerCore(g, b.Param(a.bm.Param), down)
	}
	scale.Add = wa
	return g.Reshape(g.MatMul(a.outer(b, a.b1), g.Reshape(down, r, down.Elems()/r), scale), t.Shape...)
}

// Tensors folds σ into a2 and b2, as upstream does, and the √R of rs-LoRA into alpha, as upstream does everywhere but here.
func (a *glora) Tensors() []tensor.Named {
	t, r := a.target, a.options.Rank
	inA, inB := a.a2.Host, a.b2.Host
	if a.sigma != nil {
		inA, inB = scaled(inA, a.sigma.Host[0]), scaled(inB, a.sigma.Host[0])
	}
	all := []tensor.Named{{Name: keyAlpha, Tensor: tensor.FromFloat32(tensor.F32, nil, []float32{float32(a.fileAlpha)})}}
	add := func(key string, values []float32, shape ...int) {
		for len(shape) < len(t.Shape) {
			shape = append(shape, 1)
		}
		all = append(all, tensor.Named{Name: key, Tensor: tensor.FromFloat32(tensor.F32, shape, values)})
	}
	add(keyGLoRAA1, a.a1.Host, t.In(), r)
	add(keyGLoRAA2, inA, r, t.In())
	add(keyGLoRAB1, a.b1.Host, t.Out(), r)
	add(keyGLoRAB2, inB, a.b2.Param.Shape...)
	if a.bm != nil {
		add(keyGLoRABM, a.bm.Host, a.bm.Param.Shape...)
	}
	return all
}
