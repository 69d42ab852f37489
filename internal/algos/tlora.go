package algos

import (
	"math"
	"slices"

	"lycoris/internal/fault"
	"lycoris/internal/graph"
	"lycoris/internal/linalg"
	"lycoris/internal/nn"
	"lycoris/internal/rng"
	"lycoris/internal/tensor"
)

// Keys of T-LoRA files. The start of the factors is lycoris-lora's buffers of the same names, which its files lack.
const (
	keyQ          = "q_layer.weight"
	keyP          = "p_layer.weight"
	keyLambda     = "lambda_layer"
	keyBaseQ      = "base_q"
	keyBaseP      = "base_p"
	keyBaseLambda = "base_lambda"
)

// TLoRA is LoRA that starts at the weight's largest singular triples, trains the singular values apart, and at high noise trains the first ranks only
// (Soboleva et al., 2025). It adapts Linear and 1×1 layers.
var TLoRA = Algorithm{
	Name:  "tlora",
	Doc:   "LoRA from the weight's singular vectors, with fewer ranks at high noise",
	Takes: []string{"dim", "alpha", "min_rank"},
	Keys:  []string{keyQ, keyP, keyLambda, keyBaseQ, keyBaseP, keyBaseLambda, keyAlpha},
	Is:    marked(keyLambda),
	New:   newTLoRA,
	Load:  loadTLoRA,
}

// tlora holds
//
//	ΔW = s·(P·diag(λ∘m)·Q − P₀·diag(λ₀∘m)·Q₀)
//
// with s = alpha/R and m the mask of the ranks that a noise level trains. Validation, samples and tools use all ranks.
type tlora struct {
	module
	scale, alpha float64
	q, p, lambda *Factor // [R,I], [O,R], [1,R]
	q0, p0       *Factor // where they started, frozen
	lambda0      *Factor
	started      bool // the start is known
}

func sizedTLoRA(t Target, o Options) *tlora {
	o.RSLoRA, o.Tucker, o.RankDropout = false, false, 0
	if o.Alpha == 0 {
		o.Alpha = float64(o.Rank)
	}
	l := &tlora{module: module{target: t, options: o, inputs: o.stepInputs(t)}, scale: o.strength() * o.Alpha / float64(o.Rank), alpha: o.Alpha}
	l.inputs = append(l.inputs, StepInput{Name: rankMaskInput(t), Size: o.Rank, Fill: func(dst []float32, _ *rng.Stream, step Step) { rankMask(dst, o.MinRank, step.Timesteps) }})
	return l
}

func newTLoRA(t Target, o Options, _ *rng.Stream) (Adapter, error) {
	switch {
	case o.Rank < 1:
		return nil, fault.BadUsage("dim", "%d is not a rank: 1 or more", o.Rank)
	case t.HasWindow():
		return nil, nil
	}
	l := sizedTLoRA(t, o)
	l.makeFactors(nil, nil, nil)
	l.makeStart(nil, nil, nil)
	return l, nil
}

func (l *tlora) makeFactors(q, p, lambda []float32) {
	r := l.options.Rank
	l.q, l.p, l.lambda = l.factor(keyQ, q, r, l.target.In()), l.factor(keyP, p, l.target.Out(), r), l.factor(keyLambda, lambda, 1, r)
}

func (l *tlora) makeStart(q, p, lambda []float32) {
	r := l.options.Rank
	l.q0, l.p0, l.lambda0 = l.factor(keyBaseQ, q, r, l.target.In()), l.factor(keyBaseP, p, l.target.Out(), r), l.factor(keyBaseLambda, lambda, 1, r)
	for _, f := range []*Factor{l.q0, l.p0, l.lambda0} {
		f.Frozen = true
	}
}

// starts reports whether Start has something to do.
func (l *tlora) starts() bool { return !l.started }

// Start takes the largest singular triples of the weight. Ranks beyond its own get zero vectors and 1e-6, as upstream's, and are never trained. A file without
// a start gets it from the weight that it is used with.
func (l *tlora) Start(weight []float32) error {
	if l.started {
		return nil
	}
	l.started = true
	r, in := l.options.Rank, l.target.In()
	u, s, v := linalg.TopSVD(weight, l.target.Out(), in, r)
	for k := range r {
		l.lambda0.Host[k] = 1e-6
		if k >= len(s) {
			continue
		}
		l.lambda0.Host[k] = float32(s[k])
		for i := range in {
			l.q0.Host[k*in+i] = float32(v[k*in+i])
		}
		for o := range l.target.Out() {
			l.p0.Host[o*r+k] = float32(u[o*len(s)+k])
		}
	}
	if !l.loaded() {
		copy(l.q.Host, l.q0.Host)
		copy(l.p.Host, l.p0.Host)
		copy(l.lambda.Host, l.lambda0.Host)
	}
	return nil
}

// loaded reports whether the trained factors have values: a singular value is never 0.
func (l *tlora) loaded() bool {
	return slices.ContainsFunc(l.lambda.Host, func(v float32) bool { return v != 0 })
}

func loadTLoRA(t Target, tensors map[string]tensor.Tensor, o Options) (Adapter, error) {
	if t.HasWindow() {
		return nil, fault.BadInput("", "%q is a T-LoRA of a convolution with a window, which has no meaning", t.Name)
	}
	s := stored(tensors)
	var err error
	if o.Rank, err = s.rank(t, keyQ, 0); err != nil {
		return nil, err
	}
	if o.Alpha, err = s.number(t, keyAlpha, float64(o.Rank)); err != nil {
		return nil, err
	}
	_, started := tensors[keyBaseLambda]
	if !started && o.MinRank == 0 {
		o.MinRank = o.Rank // the file is lycoris-lora's, whose trainers set no mask
	}
	l := sizedTLoRA(t, o)
	read := func(keys [3]string) (values [3][]float32) {
		for i, shape := range [3][]int{{o.Rank, t.In()}, {t.Out(), o.Rank}, {1, o.Rank}} {
			if err == nil {
				values[i], err = s.values(t, keys[i], shape...)
			}
		}
		return values
	}
	v := read([3]string{keyQ, keyP, keyLambda})
	l.makeFactors(v[0], v[1], v[2])
	if l.started = started; started {
		v = read([3]string{keyBaseQ, keyBaseP, keyBaseLambda})
		l.makeStart(v[0], v[1], v[2])
	} else {
		l.makeStart(nil, nil, nil)
	}
	if err != nil {
		return nil, err
	}
	return l, nil
}

func (l *tlora) Algorithm() *Algorithm { return &TLoRA }

// Forward emits base + s·((x·Qᵀ)∘λ∘m)·Pᵀ − s·((x·Q₀ᵀ)∘λ₀∘m)·P₀ᵀ.
func (l *tlora) Forward(b *nn.Builder, layer *nn.Layer, x *graph.Node, extra nn.Extra) *graph.Node {
	m, r := rows(layer, x), l.options.Rank
	work := 5 * float64(m*r*(l.target.In()+l.target.Out()))
	building := 5 * float64(r*tensor.Elems(l.target.Shape))
	if !l.options.byFactors(l.target, m, work, building) {
		return l.throughWeight(b, layer, x, extra, l)
	}
	g, base := b.G, layer.Base(b.G, x, extra)
	if layer.Conv.Stride > 1 || layer.Conv.Upsample {
		return l.throughWeight(b, layer, x, extra, l)
	}
	part := func(q, p, lambda *Factor, scale float64, add *graph.Node) *graph.Node {
		h := g.MatMul(x, b.Param(q.Param), graph.MatMulOptions{TransB: true})
		h = g.MulBlocks(h, l.masked(b, lambda), 1)
		return g.MatMul(h, l.options.maskRows(b, l.target, b.Param(p.Param)), graph.MatMulOptions{TransB: true, Alpha: float32(scale), Add: add})
	}
	if l.options.NeuronDropout > 0 {
		change := part(l.q0, l.p0, l.lambda0, -l.scale, part(l.q, l.p, l.lambda, l.scale, nil))
		return l.options.addDelta(b, l.target, base, g.Reshape(change, base.Shape()...))
	}
	return part(l.q0, l.p0, l.lambda0, -l.scale, part(l.q, l.p, l.lambda, l.scale, base))
}

// masked emits λ∘m.
func (l *tlora) masked(b *nn.Builder, lambda *Factor) *graph.Node {
	return b.G.Mul(b.Param(lambda.Param), b.Input(rankMaskInput(l.target), 1, l.options.Rank))
}

// Change emits ΔW.
func (l *tlora) Change(b *nn.Builder, _ *graph.Node) *graph.Node {
	g := b.G
	part := func(q, p, lambda *Factor, scale float64, add *graph.Node) *graph.Node {
		up := g.MulBlocks(l.options.maskRows(b, l.target, b.Param(p.Param)), l.masked(b, lambda), 1)
		return g.MatMul(up, b.Param(q.Param), graph.MatMulOptions{Alpha: float32(scale), Add: add})
	}
	return g.Reshape(part(l.q0, l.p0, l.lambda0, -l.scale, part(l.q, l.p, l.lambda, l.scale, nil)), l.target.Shape...)
}

// Tensors writes the start too, so that the file means the same on every base; lycoris-lora ignores it.
func (l *tlora) Tensors() []tensor.Named {
	r, t := l.options.Rank, l.target
	qShape, pShape := []int{r, t.In()}, []int{t.Out(), r}
	if t.IsConv() {
		qShape, pShape = append(qShape, 1, 1), append(pShape, 1, 1)
	}
	named := func(key string, f *Factor, shape []int) tensor.Named {
		return tensor.Named{Name: key, Tensor: tensor.FromFloat32(tensor.F32, shape, f.Host)}
	}
	return []tensor.Named{
		named(keyQ, l.q, qShape), named(keyP, l.p, pShape), named(keyLambda, l.lambda, []int{1, r}),
		{Name: keyAlpha, Tensor: tensor.FromFloat32(tensor.F32, nil, []float32{float32(l.alpha)})},
		named(keyBaseQ, l.q0, qShape), named(keyBaseP, l.p0, pShape), named(keyBaseLambda, l.lambda0, []int{1, r}),
	}
}

// rankMaskInput names the input of a target's rank mask.
func rankMaskInput(t Target) string { return "rank mask " + t.Name }

// timesteps is the number of noise levels.
const timesteps = 1000

// rankMask fills the mask of a batch: the first r(t) ranks, with r(t) = min(⌊(T−t)/T·(R−least)⌋+least, R) as in lycoris-lora's compute_timestep_mask with its exponent 1.
// A program has one mask for a batch; it is that of the highest noise, so that no picture trains ranks that its noise level leaves out.
func rankMask(dst []float32, least int, at []int) {
	least = min(max(least, 1), len(dst))
	most := 0
	for _, t := range at {
		most = max(most, t)
	}
	share := float64(timesteps-most) / timesteps
	active := min(int(math.Trunc(share*float64(len(dst)-least)))+least, len(dst))
	for i := range dst {
		dst[i] = 0
		if i < active {
			dst[i] = 1
		}
	}
}
