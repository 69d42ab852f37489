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

// Keys of LoRA files.
const (
	keyDown  = "lora_down.weight"
	keyMid   = "lora_mid.weight"
	keyUp    = "lora_up.weight"
	keyAlpha = "alpha"
)

// LoRA is the low-rank change ΔW = s·σ·up·down (Hu et al., 2021), for kernels with the window in down (LoCon) or, with Tucker, in a core between the two.
var LoRA = Algorithm{
	Name:    "lora",
	Aliases: []string{"locon"},
	Doc:     "low-rank product up·down; convolutions too",
	Takes:   []string{"dim", "alpha", "tucker", "use_scalar", "rs_lora", "dora"},
	Keys:    []string{keyDown, keyMid, keyUp, keyAlpha, keyDoRA},
	Is:      marked(keyUp, keyDown),
	New:     newLoRA,
	Load:    loadLoRA,
}

// lora holds
//
//	plain:  ΔW = s·σ·up[O,R]·down[R,I·kh·kw]
//	Tucker: ΔW[o,i,:] = s·σ·Σ up[o,p]·mid[p,q,:]·down[q,i]
//
// with s = alpha/R, or alpha/√R for rs-LoRA; σ is 1, a trained scalar, or what BoundNorm made of it. With DoRA that is the change before the decomposition.
type lora struct {
	module
	scale     float64 // s
	fileAlpha float64 // alpha such that fileAlpha/R is the scale
	down      *Factor // [R,I] or [R,I,kh,kw]
	mid       *Factor // [R,R,kh,kw], Tucker only
	up        *Factor // [O,R]
	sigma     *Factor // [1], nil where it is always 1
	dora      *dora   // nil without
}

func newLoRA(t Target, o Options, s *rng.Stream) (Adapter, error) {
	r := o.Rank
	if r < 1 {
		return nil, fault.BadUsage("dim", "%d is not a rank: 1 or more", r)
	}
	l := sizedLoRA(t, o)
	down := t.Shape
	if l.options.Tucker {
		down = down[:2]
		window := t.Shape[2:]
		l.mid = newFactor(t, keyMid, kaimingUniform(s, r*tensor.Elems(window), r, r, window[0], window[1]), r, r, window[0], window[1])
	}
	shape := append([]int{r}, down[1:]...)
	l.down = newFactor(t, keyDown, kaimingUniform(s, tensor.Elems(down[1:]), shape...), shape...)
	l.up = newFactor(t, keyUp, nil, t.Out(), r)
	if o.UseScalar {
		l.up.Host = kaimingUniform(s, r, t.Out(), r)
	}
	l.addSigma()
	if o.UseScalar {
		l.sigma.Host[0] = 0
	}
	l.dora = l.newDoRA(o.DoRA)
	return l, nil
}

// sizedLoRA settles scale and form; Tucker means nothing for a kernel of one pixel.
func sizedLoRA(t Target, o Options) *lora {
	o.Tucker = o.Tucker && t.HasWindow()
	l := &lora{module: module{target: t, options: o, inputs: o.stepInputs(t)}}
	l.scale, l.fileAlpha = o.scaling()
	return l
}

// addSigma gives l its scalar, at 1, where one is trained or needed to bound the norm.
func (l *lora) addSigma() {
	if l.options.UseScalar || l.options.MaxNorm {
		l.sigma = newFactor(l.target, "scalar", []float32{1}, 1)
		l.sigma.Frozen = !l.options.UseScalar
	}
}

func loadLoRA(t Target, tensors map[string]tensor.Tensor, o Options) (Adapter, error) {
	file := stored(tensors)
	r, err := file.rank(t, keyDown, 0)
	if err != nil {
		return nil, err
	}
	o.Rank, o.RSLoRA = r, false
	if o.Alpha, err = file.number(t, keyAlpha, float64(r)); err != nil {
		return nil, err
	}
	_, o.Tucker = file[keyMid]
	if o.Tucker && !t.HasWindow() {
		return nil, fault.BadInput("", "%q: %s on a layer without a window", t.Name, keyMid)
	}
	l := sizedLoRA(t, o)
	take := func(key string, shape ...int) (f *Factor) {
		var values []float32
		if err == nil {
			values, err = file.values(t, key, shape...)
		}
		return newFactor(t, key, values, shape...)
	}
	down := t.Shape
	if o.Tucker {
		down = down[:2]
		l.mid = take(keyMid, r, r, t.Shape[2], t.Shape[3])
	}
	l.down = take(keyDown, append([]int{r}, down[1:]...)...)
	l.up = take(keyUp, t.Out(), r)
	if err == nil {
		l.dora, err = l.loadDoRA(tensors)
	}
	if err != nil {
		return nil, err
	}
	l.addSigma()
	return l, nil
}

func (l *lora) Algorithm() *Algorithm { return &LoRA }

func (l *lora) Factors() []*Factor {
	f := []*Factor{l.up, l.down}
	if l.mid != nil {
		f = append(f, l.mid)
	}
	if l.sigma != nil {
		f = append(f, l.sigma)
	}
	if l.dora != nil {
		f = append(f, l.dora.magnitude)
	}
	return f
}

// starts and Start are those of DoRA.
func (l *lora) starts() bool                 { return l.dora.starts() }
func (l *lora) Start(weight []float32) error { return l.dora.start(weight) }

// Forward emits base(x) + s·h·(σ·mask∘up)ᵀ with h the low-rank image of x: never ΔW, never a full weight gradient. The row mask and σ act on up,
// the smallest place that they commute to.
func (l *lora) Forward(b *nn.Builder, layer *nn.Layer, x *graph.Node, extra nn.Extra) *graph.Node {
	g := b.G
	if l.dora != nil && l.dora.byFactors(layer, x, l.options.Rank, passes/2*float64(tensor.Elems(l.target.Shape))) {
		down := l.wholeDown(b)
		return l.dora.forward(b, layer, x, extra, lowRank{l.strength(), g.Permute(l.scaledUp(b), 1, 0), g.Reshape(down, l.options.Rank, down.Elems()/l.options.Rank),
			func(x *graph.Node) *graph.Node { return l.hidden(b, layer, x) }})
	}
	if l.options.Form == FormWeight {
		return l.throughWeight(b, layer, x, extra, l)
	}
	base, up := layer.Base(g, x, extra), l.scaledUp(b)
	product := graph.MatMulOptions{TransB: true, Alpha: l.strength()}
	if l.options.NeuronDropout > 0 {
		return l.options.addDelta(b, l.target, base, g.Reshape(g.MatMul(l.hidden(b, layer, x), up, product), base.Shape()...))
	}
	product.Add = base
	return g.MatMul(l.hidden(b, layer, x), up, product)
}

// scaledUp emits σ·mask∘up.
func (l *lora) scaledUp(b *nn.Builder) *graph.Node {
	up := l.options.maskRows(b, l.target, b.Param(l.up.Param))
	if l.sigma != nil {
		up = b.G.MulBlocks(up, b.Param(l.sigma.Param), up.Elems())
	}
	return up
}

// wholeDown emits down with the window, which with Tucker is the core's: [R,I·kh·kw] under some shape.
func (l *lora) wholeDown(b *nn.Builder) *graph.Node {
	down := b.Param(l.down.Param)
	if l.mid != nil {
		down = tuckerCore(b.G, b.Param(l.mid.Param), down)
	}
	return down
}

// hidden emits the image of x in the low-rank space: [...,R].
func (l *lora) hidden(b *nn.Builder, layer *nn.Layer, x *graph.Node) *graph.Node {
	g, down := b.G, b.Param(l.down.Param)
	switch {
	case l.mid != nil:
		return g.ConvFree(g.MatMul(x, down, graph.MatMulOptions{TransB: true}), b.Param(l.mid.Param), nil, nil, nil, layer.Conv)
	case l.target.HasWindow():
		return g.ConvFree(x, down, nil, nil, nil, layer.Conv)
	}
	return g.MatMul(x, g.Reshape(down, l.options.Rank, l.target.In()), graph.MatMulOptions{TransB: true})
}

// strength returns s·μ, the constant part of the scale.
func (l *lora) strength() float32 { return float32(l.scale * l.options.strength()) }

// Tensors folds σ into up, as upstream does.
func (l *lora) Tensors() []tensor.Named {
	t, r := l.target, l.options.Rank
	up := l.up.Host
	if l.sigma != nil {
		up = scaled(up, l.sigma.Host[0])
	}
	upShape, downShape := []int{t.Out(), r}, append([]int{r}, t.Shape[1:]...)
	if t.IsConv() {
		upShape = append(upShape, 1, 1)
	}
	var core []tensor.Named
	if l.mid != nil {
		downShape = []int{r, t.In(), 1, 1}
		core = []tensor.Named{{Name: keyMid, Tensor: tensor.FromFloat32(tensor.F32, l.mid.Param.Shape, l.mid.Host)}}
	}
	return slices.Concat(l.dora.tensors(), []tensor.Named{
		{Name: keyAlpha, Tensor: tensor.FromFloat32(tensor.F32, nil, []float32{float32(l.fileAlpha)})},
		{Name: keyUp, Tensor: tensor.FromFloat32(tensor.F32, upShape, up)},
		{Name: keyDown, Tensor: tensor.FromFloat32(tensor.F32, downShape, l.down.Host)},
	}, core)
}

func scaled(v []float32, by float32) []float32 {
	out := make([]float32, len(v))
	for i, x := range v {
		out[i] = x * by
	}
	return out
}

// Change emits s·σ·mask∘(up·down), decomposed where DoRA is on.
func (l *lora) Change(b *nn.Builder, w *graph.Node) *graph.Node {
	return l.dora.change(b, w, l.delta(b))
}

func (l *lora) changed(b *nn.Builder, w *graph.Node) *graph.Node {
	return l.dora.weight(b, w, l.delta(b))
}

// delta emits s·σ·mask∘(up·down), shaped like the weight.
func (l *lora) delta(b *nn.Builder) *graph.Node {
	g, r := b.G, l.options.Rank
	down := l.wholeDown(b)
	product := g.MatMul(l.scaledUp(b), g.Reshape(down, r, down.Elems()/r), graph.MatMulOptions{Alpha: l.strength()})
	return g.Reshape(product, l.target.Shape...)
}

// tuckerCore emits Σ_q mid[p,q,:]·down[q,i] as [R,I,kh·kw] from mid [R,R,kh,kw] and down [R,I].
func tuckerCore(g *graph.Graph, mid, down *graph.Node) *graph.Node {
	r, in := down.Shape()[0], down.Last()
	window := mid.Elems() / (r * r)
	rows := g.Reshape(g.Permute(mid, 0, 2, 3, 1), r*window, r)
	return g.Permute(g.Reshape(g.MatMul(rows, down, graph.MatMulOptions{}), r, window, in), 0, 2, 1)
}

// hostCore returns tuckerCore of host values: [R,I·kh·kw].
func hostCore(t Target, r int, mid, down []float32) []float32 {
	window, in := t.Window(), t.In()
	out := make([]float32, r*in*window)
	for p := range r {
		for i := range in {
			for k := range window {
				var sum float64
				for q := range r {
					sum += float64(mid[(p*r+q)*window+k]) * float64(down[q*in+i])
				}
				out[(p*in+i)*window+k] = float32(sum)
			}
		}
	}
	return out
}

// BoundNorm is upstream's apply_max_norm: the Frobenius norm n of s·σ·up·down is taken as at least limit/2, and σ is multiplied by min(n,limit)/n.
func (l *lora) BoundNorm(limit float64) (before, after float64) {
	before = l.norm()
	ratio := boundRatio(before, limit)
	if ratio != 1 {
		l.sigma.Host[0] *= float32(ratio)
	}
	return before, before * ratio
}

// boundRatio returns what a change of Frobenius norm n is scaled by.
func boundRatio(n, limit float64) float64 {
	n = math.Max(n, limit/2)
	return math.Min(n, limit) / n
}

// norm returns the Frobenius norm of ΔW from the Gram matrices of the factors: ‖up·down‖² = Σ (upᵀup)∘(down·downᵀ).
func (l *lora) norm() float64 {
	r := l.options.Rank
	cols := tensor.Elems(l.target.Shape[1:])
	down := l.down.Host
	if l.mid != nil {
		down = hostCore(l.target, r, l.mid.Host, down)
	}
	var sum float64
	for p := range r {
		for q := range r {
			var u, d float64
			for o := range l.target.Out() {
				u += float64(l.up.Host[o*r+p]) * float64(l.up.Host[o*r+q])
			}
			for i := range cols {
				d += float64(down[p*cols+i]) * float64(down[q*cols+i])
			}
			sum += u * d
		}
	}
	scale := l.scale
	if l.sigma != nil {
		scale *= float64(l.sigma.Host[0])
	}
	return math.Abs(scale) * math.Sqrt(math.Max(sum, 0))
}
