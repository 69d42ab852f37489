package algos

import (
	"math"

	"lycoris/internal/fault"
	"lycoris/internal/graph"
	"lycoris/internal/nn"
	"lycoris/internal/rng"
	"lycoris/internal/tensor"
)

// kron is a change W1⊗W2 of a matrix or kernel [L·K, M·N(,kh,kw)], algorithms.md §4:
//
//	D[a·K+c, b·N+d, :] = W1[a,b]·W2[c,d,:]
//
// W1 [L,M] is stored whole or as w1a·w1b; W2 [K,N(,kh,kw)] whole, as w2a·w2b with the window in w2b, or (Tucker) as w2a, a core t2 and w2b:
//
//	W2[p,q,:] = Σ t2[i,j,:]·w2a[i,p]·w2b[j,q]
type kron struct {
	l, k, m, n int   // outputs L·K, inputs M·N
	window     []int // [kh,kw] of a kernel, nil of a matrix
	rank       int

	w1       *Factor // [L,M], or
	w1a, w1b *Factor // [L,R], [R,M]
	w2       *Factor // [K,N(,kh,kw)], or
	w2a, w2b *Factor // [K,R], [R,N·kh·kw]; Tucker [R,K], [R,N]
	t2       *Factor // [R,R,kh,kw], Tucker only
}

// pixels returns the kernel's pixels, 1 of a matrix.
func (k *kron) pixels() int { return tensor.Elems(k.window) }

// tucker reports whether W2 has a core.
func (k *kron) tucker() bool { return k.t2 != nil }

// full reports whether both parts are stored whole: then alpha means nothing.
func (k *kron) full() bool { return k.w1 != nil && k.w2 != nil }

// parts returns the factors in the order of files.
func (k *kron) parts() []*Factor {
	var all []*Factor
	for _, f := range []*Factor{k.w1, k.w1a, k.w1b, k.w2, k.w2a, k.w2b, k.t2} {
		if f != nil {
			all = append(all, f)
		}
	}
	return all
}

// kronSize returns the sizes for a matrix or kernel of shape.
func kronSize(shape []int, o Options, unbalanced bool) kron {
	k := kron{window: shape[2:], rank: o.Rank}
	factor := o.Factor
	if factor == 0 { // not given
		factor = -1
	}
	k.m, k.n = Factorization(shape[1], factor)
	k.l, k.k = Factorization(shape[0], factor)
	if unbalanced {
		k.l, k.k = k.k, k.l
	}
	return k
}

// start makes the factors of a new change in m, keys beginning with prefix; the change is 0 unless o.UseScalar. A part is low-rank where that saves
// something: half the larger side is the bound, W1 only by request.
func (k *kron) start(m *module, prefix string, o Options, s *rng.Stream) {
	r := k.rank
	if o.DecomposeBoth && !o.FullMatrix && 2*r < max(k.l, k.m) {
		k.w1a = m.factor(prefix+"w1_a", kaimingUniform(s, r, k.l, r), k.l, r)
		k.w1b = m.factor(prefix+"w1_b", kaimingUniform(s, k.m, r, k.m), r, k.m)
	} else {
		k.w1 = m.factor(prefix+"w1", kaimingUniform(s, k.m, k.l, k.m), k.l, k.m)
	}
	zero := func(fanIn int, shape ...int) []float32 { // what starts at 0 unless a scalar does
		if o.UseScalar {
			return kaimingUniform(s, fanIn, shape...)
		}
		return nil
	}
	area := k.n * k.pixels()
	switch {
	case o.FullMatrix || 2*r >= max(k.k, k.n):
		shape := append([]int{k.k, k.n}, k.window...)
		k.w2 = m.factor(prefix+"w2", zero(area, shape...), shape...)
	case o.Tucker && k.pixels() > 1:
		k.w2a = m.factor(prefix+"w2_a", kaimingUniform(s, k.k, r, k.k), r, k.k)
		k.w2b = m.factor(prefix+"w2_b", zero(k.n, r, k.n), r, k.n)
		core := append([]int{r, r}, k.window...)
		k.t2 = m.factor(prefix+"t2", kaimingUniform(s, r*k.pixels(), core...), core...)
	default:
		k.w2a = m.factor(prefix+"w2_a", kaimingUniform(s, r, k.k, r), k.k, r)
		k.w2b = m.factor(prefix+"w2_b", zero(area, r, area), r, area)
	}
}

// kronFile reads one change from a module's tensors.
type kronFile struct {
	m       *module
	prefix  string
	tensors stored
	square  bool // W1 must be
	err     error
}

func (f *kronFile) has(key string) bool { _, ok := f.tensors[f.prefix+key]; return ok }

func (f *kronFile) fail(format string, args ...any) {
	if f.err == nil {
		f.err = fault.BadInput("", "%q: "+format, append([]any{f.m.target.Name}, args...)...)
	}
}

// shape returns the shape of a tensor that must be there, at least a matrix.
func (f *kronFile) shape(key, because string) []int {
	t, ok := f.tensors[f.prefix+key]
	switch {
	case !ok:
		f.fail("no %s, which belongs to %s", f.prefix+key, f.prefix+because)
	case len(t.Shape) < 2:
		f.fail("%s has shape %v, want a matrix", f.prefix+key, t.Shape)
	default:
		return t.Shape
	}
	return []int{1, 1}
}

// take returns the tensor as a factor of shape, or nil after a mistake.
func (f *kronFile) take(key string, shape ...int) *Factor {
	if f.err != nil {
		return nil
	}
	var v []float32
	if v, f.err = f.tensors.values(f.m.target, f.prefix+key, shape...); f.err != nil {
		return nil
	}
	return f.m.factor(f.prefix+key, v, shape...)
}

// load makes the factors from what is stored for a matrix or kernel of shape. Sizes and rank are those of the tensors; rank is 0 where nothing is low-rank.
func (f *kronFile) load(shape []int) *kron {
	k := &kron{window: shape[2:]}
	setRank := func(key string, axis int) {
		r := f.shape(key, "w1")[axis]
		switch {
		case r < 1:
			f.fail("%s names no rank", f.prefix+key)
		case k.rank != 0 && r != k.rank:
			f.fail("%s has rank %d, the other part %d", f.prefix+key, r, k.rank)
		}
		k.rank = r
	}
	if f.has("w1_a") || f.has("w1_b") {
		a, b := f.shape("w1_a", "w1_b"), f.shape("w1_b", "w1_a")
		k.l, k.m = a[0], b[1]
		setRank("w1_a", 1)
	} else {
		w := f.shape("w1", "w2")
		k.l, k.m = w[0], w[1]
	}
	if f.square && k.l != k.m {
		f.fail("%s is [%d %d], want a square", f.prefix+"w1", k.l, k.m)
	}
	if f.err == nil && (k.l < 1 || k.m < 1 || shape[0]%k.l != 0 || shape[1]%k.m != 0) {
		f.fail("%s is [%d %d], which does not divide the layer's %v", f.prefix+"w1", k.l, k.m, shape[:2])
	}
	if f.err != nil {
		return k
	}
	k.k, k.n = shape[0]/k.l, shape[1]/k.m
	factored := f.has("w2_a") || f.has("w2_b") || f.has("t2")
	switch {
	case f.has("t2"):
		f.shape("w2_a", "t2")
		f.shape("w2_b", "t2")
		setRank("t2", 0)
	case factored:
		f.shape("w2_a", "w2_b")
		f.shape("w2_b", "w2_a")
		setRank("w2_b", 0)
	default:
		f.shape("w2", "w1")
	}
	if f.err != nil {
		return k
	}
	r, area := k.rank, k.n*k.pixels()
	if f.has("w1_a") {
		k.w1a, k.w1b = f.take("w1_a", k.l, r), f.take("w1_b", r, k.m)
	} else {
		k.w1 = f.take("w1", k.l, k.m)
	}
	switch {
	case f.has("t2"):
		if k.pixels() == 1 {
			f.fail("%s on a layer without a window", f.prefix+"t2")
		}
		k.w2a, k.w2b = f.take("w2_a", r, k.k), f.take("w2_b", r, k.n)
		k.t2 = f.take("t2", append([]int{r, r}, k.window...)...)
	case factored:
		k.w2a, k.w2b = f.take("w2_a", k.k, r), f.take("w2_b", r, area)
	default:
		k.w2 = f.take("w2", append([]int{k.k, k.n}, k.window...)...)
	}
	return k
}

// small emits by·σ·W1 [L,M]; sigma may be nil.
func (k *kron) small(b *nn.Builder, by float64, sigma *graph.Node) *graph.Node {
	g := b.G
	var w *graph.Node
	if k.w1 != nil {
		w = g.Scale(b.Param(k.w1.Param), float32(by))
	} else {
		w = g.MatMul(b.Param(k.w1a.Param), b.Param(k.w1b.Param), graph.MatMulOptions{Alpha: float32(by)})
	}
	if sigma != nil {
		w = g.MulBlocks(w, sigma, w.Elems())
	}
	return w
}

// large emits W2 [K, N·kh·kw].
func (k *kron) large(b *nn.Builder) *graph.Node {
	g, r, area := b.G, k.rank, k.pixels()
	switch {
	case k.w2 != nil:
		return g.Reshape(b.Param(k.w2.Param), k.k, k.n*area)
	case !k.tucker():
		return g.MatMul(b.Param(k.w2a.Param), b.Param(k.w2b.Param), graph.MatMulOptions{})
	}
	core := g.Permute(g.Reshape(b.Param(k.t2.Param), r, r, area), 0, 2, 1)
	inner := g.MatMul(g.Reshape(core, r*area, r), b.Param(k.w2b.Param), graph.MatMulOptions{}) // [i, :, q]
	w := g.MatMul(b.Param(k.w2a.Param), g.Reshape(inner, r, area*k.n), graph.MatMulOptions{TransA: true})
	return g.Reshape(g.Permute(g.Reshape(w, k.k, area, k.n), 0, 2, 1), k.k, k.n*area)
}

// weight emits W1⊗W2 from w1, what small gave: [L·K, M·N(,kh,kw)].
func (k *kron) weight(b *nn.Builder, w1 *graph.Node) *graph.Node {
	g := b.G
	w2 := k.large(b)
	outer := g.MatMul(g.Reshape(w1, k.l*k.m, 1), g.Reshape(w2, 1, w2.Elems()), graph.MatMulOptions{})
	d := g.Permute(g.Reshape(outer, k.l, k.m, k.k, w2.Last()), 0, 2, 1, 3)
	return g.Reshape(d, append([]int{k.l * k.k, k.m * k.n}, k.window...)...)
}

// tensorsOf returns the file form, W1 times by.
func (k *kron) tensorsOf(m *module, by float32) []tensor.Named {
	var all []tensor.Named
	for _, f := range k.parts() {
		host := f.Host
		if by != 1 && (f == k.w1 || f == k.w1a) {
			host = scaled(host, by)
		}
		all = append(all, tensor.Named{Name: f.Param.Name[len(m.target.Name)+1:], Tensor: tensor.FromFloat32(tensor.F32, f.Param.Shape, host)})
	}
	return all
}

// norm returns the Frobenius norm of W1⊗W2 on the host: the product of the two norms.
func (k *kron) norm() float64 { return norm64(k.smallHost()) * norm64(k.largeHost()) }

// smallHost returns W1 [L,M] on the host.
func (k *kron) smallHost() []float64 {
	if k.w1 != nil {
		return values64(k.w1)
	}
	return matmul64(values64(k.w1a), values64(k.w1b), k.l, k.rank, k.m)
}

// largeHost returns W2 [K, N·kh·kw] on the host.
func (k *kron) largeHost() []float64 {
	r, area := k.rank, k.pixels()
	switch {
	case k.w2 != nil:
		return values64(k.w2)
	case !k.tucker():
		return matmul64(values64(k.w2a), values64(k.w2b), k.k, r, k.n*area)
	}
	core := matmul64(transpose64(values64(k.w2a), r, k.k), values64(k.t2), k.k, r, r*area) // [p, j, :]
	w := make([]float64, 0, k.k*k.n*area)
	for p := range k.k {
		w = append(w, matmul64(transpose64(values64(k.w2b), r, k.n), core[p*r*area:(p+1)*r*area], k.n, r, area)...)
	}
	return w
}

// shrink multiplies every stored factor so that the change is multiplied by ratio.
func (k *kron) shrink(ratio float64) {
	all := k.parts()
	by := float32(math.Pow(ratio, 1/float64(len(all))))
	for _, f := range all {
		for i := range f.Host {
			f.Host[i] *= by
		}
	}
}

func values64(f *Factor) []float64 {
	if f == nil {
		return nil
	}
	v := make([]float64, len(f.Host))
	for i, x := range f.Host {
		v[i] = float64(x)
	}
	return v
}

// matmul64 returns a [m,k] times b [k,n].
func matmul64(a, b []float64, m, k, n int) []float64 {
	c := make([]float64, m*n)
	for i := range m {
		row := c[i*n : (i+1)*n]
		for p := range k {
			x := a[i*k+p]
			for j, y := range b[p*n : (p+1)*n] {
				row[j] += x * y
			}
		}
	}
	return c
}

// transpose64 returns x [m,n] as [n,m].
func transpose64(x []float64, m, n int) []float64 {
	y := make([]float64, len(x))
	for i := range m {
		for j := range n {
			y[j*m+i] = x[i*n+j]
		}
	}
	return y
}

func norm64(x []float64) float64 {
	var sum float64
	for _, v := range x {
		sum += v * v
	}
	return math.Sqrt(sum)
}
