package algos

import (
	"math"
	"slices"
	"sync"

	"lycoris/internal/fault"
	"lycoris/internal/graph"
	"lycoris/internal/nn"
	"lycoris/internal/rng"
	"lycoris/internal/tensor"
)

// Keys of LoHa files.
const (
	keyHada1A = "hada_w1_a"
	keyHada1B = "hada_w1_b"
	keyHada2A = "hada_w2_a"
	keyHada2B = "hada_w2_b"
	keyHadaT1 = "hada_t1"
	keyHadaT2 = "hada_t2"
)

// LoHa is the Hadamard product of two low-rank products, of rank up to R² (FedPara: Hyeon-Woo et al., 2022, proposition 1).
var LoHa = Algorithm{
	Name:  "loha",
	Doc:   "element-wise product of two low-rank products: rank up to dim²",
	Takes: []string{"dim", "alpha", "tucker", "use_scalar", "rs_lora", "dora"},
	Keys:  []string{keyAlpha, keyDoRA, keyHada1A, keyHada1B, keyHada2A, keyHada2B, keyHadaT1, keyHadaT2},
	Is:    marked(keyHada1A, keyHada1B, keyHada2A, keyHada2B),
	New:   newLoHa,
	Load:  loadLoHa,
}

// loha holds
//
//	ΔW = s·σ·(a₁·b₁)∘(a₂·b₂)
//
// with s and σ as in [lora]. With Tucker each b is Σ_q t[p,q,:]·b[q,i], from a core and a matrix without the window, and a is stored transposed.
type loha struct {
	module
	scale     float64 // s
	fileAlpha float64 // alpha such that fileAlpha/R is the scale
	sides     [2]hadamardSide
	sigma     *Factor // [1], nil where it is always 1
	dora      *dora   // nil without
}

// hadamardSide is one of the two low-rank products.
type hadamardSide struct {
	a    *Factor // [O,R]; [R,O] with Tucker
	b    *Factor // [R,I·kh·kw]; [R,I] with Tucker
	core *Factor // [R,R,kh,kw], Tucker only
}

// makeLoHa makes the factors; values returns the values of the one called key.
func makeLoHa(t Target, o Options, values func(key string, shape ...int) []float32) *loha {
	o.Tucker = o.Tucker && t.HasWindow()
	l := &loha{module: module{target: t, options: o, inputs: o.stepInputs(t)}}
	l.scale, l.fileAlpha = o.scaling()
	r := o.Rank
	a, b := []int{t.Out(), r}, []int{r, tensor.Elems(t.Shape[1:])}
	if o.Tucker {
		a, b = []int{r, t.Out()}, []int{r, t.In()}
	}
	for i, keys := range [2][3]string{{keyHada1A, keyHada1B, keyHadaT1}, {keyHada2A, keyHada2B, keyHadaT2}} {
		s := &l.sides[i]
		s.a = l.factor(keys[0], values(keys[0], a...), a...)
		s.b = l.factor(keys[1], values(keys[1], b...), b...)
		if o.Tucker {
			core := []int{r, r, t.Shape[2], t.Shape[3]}
			s.core = l.factor(keys[2], values(keys[2], core...), core...)
		}
	}
	if o.UseScalar || o.MaxNorm {
		l.sigma = l.factor("scalar", []float32{1}, 1)
		l.sigma.Frozen = !o.UseScalar
	}
	return l
}

// newLoHa starts from normal values, of deviation 1 in b and 0.1 elsewhere, and a₂ = 0, or σ = 0 where it is trained.
func newLoHa(t Target, o Options, s *rng.Stream) (Adapter, error) {
	if o.Rank < 1 {
		return nil, fault.BadUsage("dim", "%d is not a rank: 1 or more", o.Rank)
	}
	l := makeLoHa(t, o, func(key string, shape ...int) []float32 {
		v := make([]float32, tensor.Elems(shape))
		if key == keyHada2A && !o.UseScalar {
			return v
		}
		s.FillNormal(v)
		if key != keyHada1B && key != keyHada2B {
			v = scaled(v, 0.1)
		}
		return v
	})
	if o.UseScalar {
		l.sigma.Host[0] = 0
	}
	l.dora = l.newDoRA(o.DoRA)
	return l, nil
}

func loadLoHa(t Target, tensors map[string]tensor.Tensor, o Options) (Adapter, error) {
	file := stored(tensors)
	r, err := file.rank(t, keyHada1B, 0)
	if err != nil {
		return nil, err
	}
	o.Rank, o.RSLoRA = r, false
	if o.Alpha, err = file.number(t, keyAlpha, float64(r)); err != nil {
		return nil, err
	}
	_, o.Tucker = file[keyHadaT1]
	if _, second := file[keyHadaT2]; o.Tucker != second {
		return nil, fault.BadInput("", "%q has only one of %s and %s", t.Name, keyHadaT1, keyHadaT2)
	}
	if o.Tucker && !t.HasWindow() {
		return nil, fault.BadInput("", "%q: %s on a layer without a window", t.Name, keyHadaT1)
	}
	l := makeLoHa(t, o, func(key string, shape ...int) (v []float32) {
		if err == nil {
			v, err = file.values(t, key, shape...)
		}
		return v
	})
	if err == nil {
		l.dora, err = l.loadDoRA(tensors)
	}
	if err != nil {
		return nil, err
	}
	return l, nil
}

func (l *loha) Algorithm() *Algorithm { return &LoHa }

// starts and Start are those of DoRA.
func (l *loha) starts() bool                 { return l.dora.starts() }
func (l *loha) Start(weight []float32) error { return l.dora.start(weight) }

// passes is the cost of an element of the weight in building ΔW and its gradient, in multiply-adds of a product: some ten passes over arrays of its size. Measured
// with AVX2: 13 ns for 1280×1280, where a product makes 31 multiply-adds in a ns.
const passes = 400

// Forward emits base(x) + op(x, ΔW), by the factors where R² is small: with U = the products of every column of a₁ with every column of a₂ and V likewise of
// the rows of b₁ and b₂, ΔW = s·U·V is a low-rank change of rank R².
func (l *loha) Forward(b *nn.Builder, layer *nn.Layer, x *graph.Node, extra nn.Extra) *graph.Node {
	g, t, r := b.G, l.target, float64(l.options.Rank)
	size, n := float64(tensor.Elems(t.Shape)), rows(layer, x)
	building := size * (8*r + passes)
	if l.dora != nil && l.dora.byFactors(layer, x, l.options.Rank*l.options.Rank, building) {
		u, v := l.products(b)
		return l.dora.forward(b, layer, x, extra, lowRank{l.strength(), u, v, func(x *graph.Node) *graph.Node { return l.image(b, layer, x, v) }})
	}
	work := 3 * float64(n) * r * r * (size/float64(t.Out()) + float64(t.Out()))
	if !l.options.byFactors(t, n, work, building) {
		return l.throughWeight(b, layer, x, extra, l)
	}
	base := layer.Base(g, x, extra)
	u, v := l.products(b)
	hidden := l.image(b, layer, x, v)
	product := graph.MatMulOptions{Alpha: l.strength()}
	if l.options.NeuronDropout > 0 {
		return l.options.addDelta(b, t, base, g.Reshape(g.MatMul(hidden, u, product), base.Shape()...))
	}
	product.Add = base
	return g.MatMul(hidden, u, product)
}

// products emits U [R²,O] and V [R²,I·kh·kw].
func (l *loha) products(b *nn.Builder) (u, v *graph.Node) {
	g := b.G
	g.Transient(func() {
		a1, b1 := l.side(b, 0)
		a2, b2 := l.side(b, 1)
		u = rowProducts(g, g.Permute(a1, 1, 0), g.Permute(a2, 1, 0))
		v = rowProducts(g, b1, b2)
	})
	return u, v
}

// image emits the image of x under V: [...,R²].
func (l *loha) image(b *nn.Builder, layer *nn.Layer, x, v *graph.Node) *graph.Node {
	g, t := b.G, l.target
	if !t.HasWindow() {
		return g.MatMul(x, v, graph.MatMulOptions{TransB: true})
	}
	g.Transient(func() { v = g.Reshape(v, v.Shape()[0], t.In(), t.Shape[2], t.Shape[3]) })
	return g.ConvFree(x, v, nil, nil, nil, layer.Conv)
}

// rowProducts emits the element-wise product of every row of x [R,N] with every row of y [R,N]: [R²,N], y's rows the faster.
func rowProducts(g *graph.Graph, x, y *graph.Node) *graph.Node {
	r := x.Shape()[0]
	var ofX, ofY []int32
	for p := range r {
		for q := range r {
			ofX, ofY = append(ofX, int32(p)), append(ofY, int32(q))
		}
	}
	return g.Mul(g.GatherRows(x, ofX), g.GatherRows(y, ofY))
}

// side emits a [O,R] and b [R,I·kh·kw] of a side. The row mask and σ act on a of the first, the smallest place that they commute to.
func (l *loha) side(b *nn.Builder, i int) (a, down *graph.Node) {
	g, s := b.G, l.sides[i]
	a, down = b.Param(s.a.Param), b.Param(s.b.Param)
	if s.core != nil {
		a = g.Permute(a, 1, 0)
		down = tuckerCore(g, b.Param(s.core.Param), down)
		down = g.Reshape(down, l.options.Rank, down.Elems()/l.options.Rank)
	}
	if i == 0 {
		a = l.options.maskRows(b, l.target, a)
		if l.sigma != nil {
			a = g.MulBlocks(a, b.Param(l.sigma.Param), a.Elems())
		}
	}
	return a, down
}

// strength returns s·μ, the constant part of the scale.
func (l *loha) strength() float32 { return float32(l.scale * l.options.strength()) }

// delta emits s·σ·mask∘(a₁·b₁)∘(a₂·b₂), shaped like the weight.
func (l *loha) delta(b *nn.Builder) *graph.Node {
	g := b.G
	a1, b1 := l.side(b, 0)
	a2, b2 := l.side(b, 1)
	first := g.MatMul(a1, b1, graph.MatMulOptions{Alpha: l.strength()})
	return g.Reshape(g.Mul(first, g.MatMul(a2, b2, graph.MatMulOptions{})), l.target.Shape...)
}

// Change emits delta, decomposed where DoRA is on.
func (l *loha) Change(b *nn.Builder, w *graph.Node) *graph.Node {
	return l.dora.change(b, w, l.delta(b))
}

func (l *loha) changed(b *nn.Builder, w *graph.Node) *graph.Node {
	return l.dora.weight(b, w, l.delta(b))
}

// Tensors folds σ into a₁, as upstream does.
func (l *loha) Tensors() []tensor.Named {
	var factors, cores []tensor.Named
	named := func(f *Factor, values []float32, key string) tensor.Named {
		return tensor.Named{Name: key, Tensor: tensor.FromFloat32(tensor.F32, f.Param.Shape, values)}
	}
	for i, keys := range [2][3]string{{keyHada1A, keyHada1B, keyHadaT1}, {keyHada2A, keyHada2B, keyHadaT2}} {
		s := l.sides[i]
		a := s.a.Host
		if i == 0 && l.sigma != nil {
			a = scaled(a, l.sigma.Host[0])
		}
		factors = append(factors, named(s.a, a, keys[0]), named(s.b, s.b.Host, keys[1]))
		if s.core != nil {
			cores = append(cores, named(s.core, s.core.Host, keys[2]))
		}
	}
	alpha := tensor.Named{Name: keyAlpha, Tensor: tensor.FromFloat32(tensor.F32, nil, []float32{float32(l.fileAlpha)})}
	return slices.Concat([]tensor.Named{alpha}, l.dora.tensors(), factors, cores)
}

// BoundNorm is that of [lora]: σ is multiplied so that the norm of s·σ·(a₁·b₁)∘(a₂·b₂) is at most limit.
func (l *loha) BoundNorm(limit float64) (before, after float64) {
	before = l.norm()
	ratio := boundRatio(before, limit)
	if ratio != 1 {
		l.sigma.Host[0] *= float32(ratio)
	}
	return before, before * ratio
}

// norm returns the Frobenius norm of the change, row by row.
func (l *loha) norm() float64 {
	t, r := l.target, l.options.Rank
	cols := tensor.Elems(t.Shape[1:])
	var a, down [2][]float32 // [O,R], [R,cols]
	for i, s := range l.sides {
		a[i], down[i] = s.a.Host, s.b.Host
		if s.core != nil {
			down[i] = hostCore(t, r, s.core.Host, s.b.Host)
			a[i] = make([]float32, t.Out()*r)
			for p := range r {
				for o := range t.Out() {
					a[i][o*r+p] = s.a.Host[p*t.Out()+o]
				}
			}
		}
	}
	squares := make([]float64, t.Out()) // of each row, summed in order whatever the number of threads
	row := func(o int, one, two []float32) {
		clear(one)
		clear(two)
		for p := range r {
			x, y := a[0][o*r+p], a[1][o*r+p]
			d1, d2 := down[0][p*cols:][:cols], down[1][p*cols:][:cols]
			for i := range one {
				one[i] += x * d1[i]
				two[i] += y * d2[i]
			}
		}
		for i, v := range one {
			squares[o] += float64(v*two[i]) * float64(v*two[i])
		}
	}
	const parts = 8
	var wait sync.WaitGroup
	for part := range parts {
		wait.Go(func() {
			one, two := make([]float32, cols), make([]float32, cols)
			for o := part; o < t.Out(); o += parts {
				row(o, one, two)
			}
		})
	}
	wait.Wait()
	var sum float64
	for _, s := range squares {
		sum += s
	}
	scale := l.scale
	if l.sigma != nil {
		scale *= float64(l.sigma.Host[0])
	}
	return math.Abs(scale) * math.Sqrt(sum)
}
