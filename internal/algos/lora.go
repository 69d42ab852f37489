package algos

import (
	"math"

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
	Takes:   []string{"dim", "alpha", "tucker", "use_scalar", "rs_lora"},
	Keys:    []string{keyDown, keyMid, keyUp, keyAlpha},
	Is:      marked(keyUp, keyDown),
	New:     newLoRA,
	Load:    loadLoRA,
}

// lora holds
//
//	plain:  ΔW = s·σ·up[O,R]·down[R,I·kh·kw]
//	Tucker: ΔW[o,i,:] = s·σ·Σ up[o,p]·mid[p,q,:]·down[q,i]
//
// with s = alpha/R, or alpha/√R for rs-LoRA; σ is 1, a trained scalar, or what BoundNorm made of it.
type lora struct {
	module
	scale     float64
	fileAlpha float64 // alpha such that fileAlpha/R is the scale
	down      *Factor // [R,I] or [R,I,kh,kw]
	mid       *Factor // [R,R,kh,kw], Tucker only
	up        *Factor // [O,R]
	sigma     *Factor // [1], nil where it is always 1
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
	return l, nil
}

// sizedLoRA settles scale and form; Tucker means nothing for a kernel of one pixel.
func sizedLoRA(t Target, o Options) *lora {
	o.Tucker = o.Tucker && t.HasWindow()
	if o.Alpha == 0 {
		o.Alpha = float64(o.Rank)
	}
	l := &lora{module: module{target: t, options: o, inputs: o.stepInputs(t)}, scale: o.Alpha / float64(o.Rank), fileAlpha: o.Alpha}
	if o.RSLoRA {
		root := math.Sqrt(float64(o.Rank))
		l.scale, l.fileAlpha = o.Alpha/root, o.Alpha*root
	}
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
	up, okUp := tensors[keyUp]
	down, okDown := tensors[keyDown]
	switch {
	case !okUp:
		return nil, fault.BadInput("", "%q has %s but no %s", t.Name, keyDown, keyUp)
	case !okDown:
		return nil, fault.BadInput("", "%q has %s but no %s", t.Name, keyUp, keyDown)
	case len(down.Shape) < 2:
		return nil, fault.BadInput("", "%q: %s has shape %v", t.Name, keyDown, down.Shape)
	}
	r := down.Shape[0]
	mid, tucker := tensors[keyMid]
	o.Rank, o.Tucker, o.RSLoRA, o.Alpha = r, tucker, false, float64(r)
	if a, ok := tensors[keyAlpha]; ok {
		v := a.Float32()
		if len(v) != 1 {
			return nil, fault.BadInput("", "%q: alpha has shape %v, want one number", t.Name, a.Shape)
		}
		o.Alpha = float64(v[0])
	}
	if o.Strength != 0 {
		o.Alpha *= o.Strength
	}
	l := sizedLoRA(t, o)
	take := func(key string, from tensor.Tensor, shape ...int) (*Factor, error) {
		if tensor.Elems(from.Shape) != tensor.Elems(shape) || from.Shape[0] != shape[0] {
			return nil, fault.BadInput("", "%q: %s has shape %v, want %v", t.Name, key, from.Shape, shape)
		}
		return newFactor(t, key, from.Float32(), shape...), nil
	}
	downShape := append([]int{r}, t.Shape[1:]...)
	var err error
	if tucker {
		if !t.HasWindow() {
			return nil, fault.BadInput("", "%q: %s on a layer without a window", t.Name, keyMid)
		}
		downShape = downShape[:2]
		if l.mid, err = take(keyMid, mid, r, r, t.Shape[2], t.Shape[3]); err != nil {
			return nil, err
		}
	}
	if l.down, err = take(keyDown, down, downShape...); err != nil {
		return nil, err
	}
	if l.up, err = take(keyUp, up, t.Out(), r); err != nil {
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
	return f
}

// Forward emits base(x) + s·h·(σ·mask∘up)ᵀ with h the low-rank image of x: never ΔW, never a full weight gradient. The row mask and σ act on up,
// the smallest place that they commute to.
func (l *lora) Forward(b *nn.Builder, layer *nn.Layer, x *graph.Node, extra nn.Extra) *graph.Node {
	if l.options.Form == FormWeight {
		return l.throughWeight(b, layer, x, extra, l)
	}
	g := b.G
	base := layer.Base(g, x, extra)
	up := l.options.maskRows(b, l.target, b.Param(l.up.Param))
	if l.sigma != nil {
		up = g.MulBlocks(up, b.Param(l.sigma.Param), up.Elems())
	}
	product := graph.MatMulOptions{TransB: true, Alpha: float32(l.scale)}
	if l.options.NeuronDropout > 0 {
		return l.options.addDelta(b, l.target, base, g.Reshape(g.MatMul(l.hidden(b, layer, x), up, product), base.Shape()...))
	}
	product.Add = base
	return g.MatMul(l.hidden(b, layer, x), up, product)
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

// strength returns s·σ.
func (l *lora) strength() float64 {
	if l.sigma == nil {
		return l.scale
	}
	return l.scale * float64(l.sigma.Host[0])
}

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
	return append([]tensor.Named{
		{Name: keyAlpha, Tensor: tensor.FromFloat32(tensor.F32, nil, []float32{float32(l.fileAlpha)})},
		{Name: keyUp, Tensor: tensor.FromFloat32(tensor.F32, upShape, up)},
		{Name: keyDown, Tensor: tensor.FromFloat32(tensor.F32, downShape, l.down.Host)},
	}, core...)
}

func scaled(v []float32, by float32) []float32 {
	out := make([]float32, len(v))
	for i, x := range v {
		out[i] = x * by
	}
	return out
}

// Change emits s·σ·mask∘(up·down).
func (l *lora) Change(b *nn.Builder, _ *graph.Node) *graph.Node {
	g, r := b.G, l.options.Rank
	up := l.options.maskRows(b, l.target, b.Param(l.up.Param))
	if l.sigma != nil {
		up = g.MulBlocks(up, b.Param(l.sigma.Param), up.Elems())
	}
	down := b.Param(l.down.Param)
	if l.mid != nil { // Σ_q mid[p,q,:]·down[q,i], the window last
		mid := g.Reshape(g.Permute(b.Param(l.mid.Param), 0, 2, 3, 1), r*l.target.Window(), r)
		down = g.Permute(g.Reshape(g.MatMul(mid, down, graph.MatMulOptions{}), r, l.target.Window(), l.target.In()), 0, 2, 1)
	}
	product := g.MatMul(up, g.Reshape(down, r, down.Elems()/r), graph.MatMulOptions{Alpha: float32(l.scale)})
	return g.Reshape(product, l.target.Shape...)
}

// core returns Σ_q mid[p,q,:]·down[q,i] as [R, I·kh·kw].
func (l *lora) core() []float32 {
	t, r := l.target, l.options.Rank
	window, in := t.Shape[2]*t.Shape[3], t.In()
	out := make([]float32, r*in*window)
	for p := range r {
		for i := range in {
			for k := range window {
				var sum float64
				for q := range r {
					sum += float64(l.mid.Host[(p*r+q)*window+k]) * float64(l.down.Host[q*in+i])
				}
				out[(p*in+i)*window+k] = float32(sum)
			}
		}
	}
	return out
}

// BoundNorm is upstream's apply_max_norm: the Frobenius norm n of ΔW is taken as at least limit/2, and σ is multiplied by min(n,limit)/n.
func (l *lora) BoundNorm(limit float64) (before, after float64) {
	before = l.norm()
	n := math.Max(before, limit/2)
	ratio := math.Min(n, limit) / n
	if ratio != 1 {
		l.sigma.Host[0] *= float32(ratio)
	}
	return before, before * ratio
}

// norm returns the Frobenius norm of ΔW from the Gram matrices of the factors: ‖up·down‖² = Σ (upᵀup)∘(down·downᵀ).
func (l *lora) norm() float64 {
	r := l.options.Rank
	cols := tensor.Elems(l.target.Shape[1:])
	down := l.down.Host
	if l.mid != nil {
		down = l.core()
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
	return math.Abs(l.strength()) * math.Sqrt(math.Max(sum, 0))
}
