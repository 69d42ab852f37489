package resize

import (
	"math"
	"strings"

	"lycoris/internal/adapter"
	"lycoris/internal/fault"
	"lycoris/internal/linalg"
	"lycoris/internal/tensor"
)

// Suffixes of tensors in adapter files.
const (
	keyAlpha  = "alpha"
	keyDoRA   = "dora_scale"
	keyDown   = "lora_down.weight"
	keyMid    = "lora_mid.weight"
	keyUp     = "lora_up.weight"
	keyLokrW1 = "lokr_w1"
)

// job is one module on its way.
type job struct {
	o      *Options
	m      *adapter.AnyModule
	cut    *dyLoRA // not nil: cut behind a block
	stored map[string]tensor.Tensor
	done   Module
	out    []tensor.Named
}

// methods are the algorithms that have ranks, by name.
var methods = map[string]func(*job) error{"lora": (*job).lora, "loha": (*job).loha, "lokr": (*job).lokr}

// hasRanks reports whether modules of the algorithm can be resized.
func hasRanks(algorithm string) bool { return methods[algorithm] != nil }

// run makes the module's new tensors.
func (j *job) run() (err error) {
	m := j.m
	j.done = Module{Name: m.Name, Component: string(m.Target.Component), From: m.Algorithm, Algorithm: m.Algorithm, Did: Copied}
	if j.stored, err = m.Tensors(); err != nil {
		return err
	}
	if !hasRanks(m.Algorithm) {
		return j.keep()
	}
	return methods[m.Algorithm](j)
}

// keep copies the module as it is.
func (j *job) keep() error {
	for _, suffix := range j.m.Suffixes() {
		t, err := j.m.Stored(suffix)
		if err != nil {
			return err
		}
		if suffix == keyAlpha && !finite(t) { // beside two whole factors, where it means nothing; it can't be written
			t = tensor.FromFloat32(tensor.F32, nil, []float32{float32(max(j.done.OldRank, 1))})
		}
		if err := j.put(suffix, t); err != nil {
			return err
		}
	}
	return nil
}

// put puts a stored tensor out, in the type asked for.
func (j *job) put(suffix string, t tensor.Tensor) error {
	if d := j.o.DType; d != tensor.Invalid && t.DType.IsFloat() && t.DType != d && suffix != keyAlpha {
		return j.add(suffix, d, t.Shape, values(t))
	}
	j.out = append(j.out, tensor.Named{Name: j.m.Key(suffix), Tensor: t})
	return nil
}

// whole reports whether the module's tensors are all that it is: its alpha isn't in metadata or peft's configuration alone, which aren't kept.
func (j *job) whole() bool {
	_, known := j.stored[keyAlpha]
	return j.m.Has(keyAlpha) || !known
}

// keepWhole copies a module of which nothing is cut.
func (j *job) keepWhole(rank int) (err error) {
	j.done.Did, j.done.Rank, j.done.Error, j.done.DoRA = Kept, rank, 0, j.m.Has(keyDoRA)
	if j.done.Alpha, err = j.alpha(rank); err != nil {
		return err
	}
	return j.keep()
}

func finite(t tensor.Tensor) bool { n, _ := t.NonFinite(); return n == 0 }

func (j *job) bad(format string, args ...any) *fault.Error {
	return fault.BadInput("", "%q: "+format, append([]any{j.m.Name}, args...)...).Advise("the file is incomplete or mixed up: make it or download it again")
}

// matrix returns the tensor's values as a matrix: the first axis, and all others.
func (j *job) matrix(suffix string) (v []float64, rows, cols int, err error) {
	t, ok := j.stored[suffix]
	if !ok {
		return nil, 0, 0, j.bad("has no %s", suffix)
	}
	if len(t.Shape) < 2 || tensor.Elems(t.Shape) == 0 {
		return nil, 0, 0, j.bad("%s has shape %v, want a matrix", suffix, t.Shape)
	}
	return values(t), t.Shape[0], tensor.Elems(t.Shape[1:]), nil
}

// alpha returns the module's alpha, which is rank where there is none.
func (j *job) alpha(rank int) (float64, error) {
	t, ok := j.stored[keyAlpha]
	if !ok {
		return float64(rank), nil
	}
	if tensor.Elems(t.Shape) != 1 {
		return 0, j.bad("%s has shape %v, want one number", keyAlpha, t.Shape)
	}
	return values(t)[0], nil
}

// scale returns alpha/rank. An alpha of 0 is kept, and counts as rank in the figures: readers take it for that or for no effect.
func (j *job) scale(rank int) (scale float64, zero bool, err error) {
	alpha, err := j.alpha(rank)
	j.done.Alpha, j.done.zeroAlpha, j.done.negativeAlpha = alpha, alpha == 0, alpha < 0
	if alpha == 0 {
		return 1, true, err
	}
	return alpha / float64(rank), false, err
}

// cap returns the most ranks that the options allow the module; 0 is no bound.
func (j *job) cap() int {
	if j.done.Conv && j.o.ConvDim > 0 {
		return j.o.ConvDim
	}
	return j.o.Dim
}

// choose settles the module's new rank from its decomposed change.
func (j *job) choose(a *spectrum) int {
	k := j.o.Rule.rank(a.s, j.o.Value)
	if most := j.cap(); most > 0 {
		k = min(k, most)
		if j.o.AllowRaise && j.o.Rule == Fixed {
			k = most
		}
	}
	j.done.Norm, j.done.Error, j.done.Rank = a.norm(), a.errorOf(k), k
	return k
}

// dtype returns the element type of what is made from the tensor with the suffix.
func (j *job) dtype(suffix string) tensor.DType {
	if j.o.DType != tensor.Invalid {
		return j.o.DType
	}
	if d := j.m.DType(suffix); d.IsFloat() {
		return d
	}
	return tensor.F32
}

// add puts a tensor out.
func (j *job) add(suffix string, d tensor.DType, shape []int, v []float64) error {
	t := tensor.Named{Name: j.m.Key(suffix), Tensor: rounded(d, shape, v)}
	if n, first := t.NonFinite(); n > 0 {
		return fault.New(fault.Failed, j.o.Out, "not written: %d values of %q, the first at index %d, are too large for %s", n, t.Name, first, d).Advise("choose a wider type: --dtype bf16 or fp32")
	}
	j.out = append(j.out, t)
	return nil
}

// finish puts out what stands beside the factors: alpha, such that alpha/rank is scale, and magnitudes. Names of diffusers and peft have alpha in the file only where
// it was: without one the scale is 1.
func (j *job) finish(alpha float64) {
	j.done.Alpha = alpha
	if j.m.Has(keyAlpha) || !strings.Contains(j.m.Name, ".") || alpha != float64(j.done.Rank) {
		j.out = append(j.out, tensor.Named{Name: j.m.Key(keyAlpha), Tensor: tensor.FromFloat32(tensor.F32, nil, []float32{float32(alpha)})})
	}
}

// keepDoRA copies the magnitudes, which are those of the whole weight.
func (j *job) keepDoRA() error {
	if !j.m.Has(keyDoRA) {
		return nil
	}
	j.done.DoRA = true
	t, err := j.m.Stored(keyDoRA)
	if err != nil {
		return err
	}
	return j.put(keyDoRA, t)
}

// newScale returns alpha for rank k, and what the values are divided by and the sign that make up for it. scale is the module's own, whose size is in the values.
func (j *job) newScale(k int, scale float64, zero bool) (alpha, by, sign float64) {
	sign = math.Copysign(1, scale)
	switch {
	case zero:
		return 0, 1, sign
	case j.o.KeepScale:
		alpha = float64(float32(scale * float64(k)))
		return alpha, math.Abs(alpha) / float64(k), 1
	}
	return float64(k), 1, sign
}

// lora resizes a plain or Tucker LoRA of a Linear or convolution.
func (j *job) lora() error {
	shape := j.m.Target.Module.Shape
	if shape == nil {
		return j.bad("the factors have shapes %v and %v, want matrices or kernels", j.stored[keyDown].Shape, j.stored[keyUp].Shape)
	}
	up, o, r, err := j.matrix(keyUp)
	if err != nil {
		return err
	}
	down, inner, n, err := j.matrix(keyDown)
	if err != nil {
		return err
	}
	tucker := j.m.Has(keyMid)
	j.done.OldRank, j.done.Conv = r, tensor.Elems(shape[2:]) > 1
	switch {
	case j.cut != nil && tucker:
		return j.bad("has a Tucker core, so it is no DyLoRA").Advise("resize it by --dim")
	case j.cut != nil:
		return j.cutBlocks()
	case tucker:
		if down, n, err = j.expand(keyMid, down, inner, n, r); err != nil {
			return err
		}
	case r != inner:
		return j.bad("lora_down has shape %v and lora_up %v: the ranks don't match", j.stored[keyDown].Shape, j.stored[keyUp].Shape)
	}
	if n != tensor.Elems(shape[1:]) {
		return j.bad("lora_down has shape %v beside a core of shape %v", j.stored[keyDown].Shape, j.stored[keyMid].Shape)
	}
	scale, zero, err := j.scale(r)
	if err != nil {
		return err
	}
	p := pair{up: columnsOf(up, o, r), down: rowsOf(down, r, n), o: o, n: n}
	a := p.decompose()
	a.times(scale)
	k := j.choose(&a)
	if k == r && !tucker && j.whole() {
		return j.keepWhole(r)
	}
	return j.putLoRA(&a, shape, k, scale, zero, j.dtype(keyUp), j.dtype(keyDown))
}

// expand joins a Tucker core [P,Q,kh,kw] and a matrix without the window [Q,I]: Σ core[p,q,:]·down[q,i] as [P,I·kh·kw].
func (j *job) expand(suffix string, down []float64, q, in, p int) ([]float64, int, error) {
	core := j.stored[suffix]
	if len(core.Shape) != 4 || core.Shape[0] != p || core.Shape[1] != q {
		return nil, 0, j.bad("%s has shape %v, want %d and %d ranks and a window", suffix, core.Shape, p, q)
	}
	window, c := core.Shape[2]*core.Shape[3], values(core)
	out := make([]float64, p*in*window)
	for a := range p {
		for b := range q {
			for i := range in {
				x := down[b*in+i]
				for t := range window {
					out[(a*in+i)*window+t] += c[(a*q+b)*window+t] * x
				}
			}
		}
	}
	return out, in * window, nil
}

// putLoRA writes the first k values as a plain LoRA of a weight of the shape.
func (j *job) putLoRA(a *spectrum, shape []int, k int, scale float64, zero bool, upType, downType tensor.DType) error {
	alpha, by, sign := j.newScale(k, scale, zero)
	up, down := a.factors(shape[0], tensor.Elems(shape[1:]), k, by, sign)
	upShape := []int{shape[0], k}
	for range shape[2:] {
		upShape = append(upShape, 1)
	}
	j.done.Did, j.done.Algorithm = Resized, "lora"
	if err := j.add(keyUp, upType, upShape, up); err != nil {
		return err
	}
	if err := j.add(keyDown, downType, append([]int{k}, shape[1:]...), down); err != nil {
		return err
	}
	j.finish(alpha)
	return j.keepDoRA()
}

// loha resizes the elementwise product of two low-rank products by way of the LoRA of rank r₁·r₂ that it is:
//
//	up[:,(a,b)] = A₁[:,a]∘A₂[:,b], down[(a,b),:] = B₁[a,:]∘B₂[b,:]
func (j *job) loha() error {
	if j.cut != nil {
		return j.bad("is a LoHa, whose ranks have no order to cut them by").Advise("resize it by --dim")
	}
	shape := j.m.Target.Module.Shape
	if shape == nil {
		return j.bad("the factors are no matrices")
	}
	var sides [2]pair
	for i, keys := range [2][3]string{{"hada_w1_a", "hada_w1_b", "hada_t1"}, {"hada_w2_a", "hada_w2_b", "hada_t2"}} {
		side, err := j.lowRank(keys[0], keys[1], keys[2])
		if err != nil {
			return err
		}
		sides[i] = side
	}
	x, y := sides[0], sides[1]
	o, n, r := shape[0], tensor.Elems(shape[1:]), x.rank()*y.rank()
	if x.o != o || y.o != o || x.n != n || y.n != n {
		return j.bad("its two products are [%d %d] and [%d %d]", x.o, x.n, y.o, y.n)
	}
	j.done.OldRank, j.done.Conv = r, tensor.Elems(shape[2:]) > 1
	scale, zero, err := j.scale(x.rank())
	if err != nil {
		return err
	}
	a := j.hadamard(&x, &y)
	a.times(scale)
	return j.putLoRA(&a, shape, j.choose(&a), scale, zero, j.dtype("hada_w1_a"), j.dtype("hada_w1_b"))
}

// lowRank reads a·b, or with a core the two joined by it, where a is stored transposed.
func (j *job) lowRank(keyA, keyB, keyCore string) (pair, error) {
	a, o, r, err := j.matrix(keyA)
	if err != nil {
		return pair{}, err
	}
	b, inner, n, err := j.matrix(keyB)
	if err != nil {
		return pair{}, err
	}
	if !j.m.Has(keyCore) {
		if r != inner {
			return pair{}, j.bad("%s has shape %v and %s %v: the ranks don't match", keyA, j.stored[keyA].Shape, keyB, j.stored[keyB].Shape)
		}
		return pair{up: columnsOf(a, o, r), down: rowsOf(b, r, n), o: o, n: n}, nil
	}
	o, r = r, o
	if b, n, err = j.expand(keyCore, b, inner, n, r); err != nil {
		return pair{}, err
	}
	return pair{up: rowsOf(a, r, o), down: rowsOf(b, r, n), o: o, n: n}, nil
}

// hadamard decomposes x∘y. Where the ranks multiply to more than half of a side and only the first values are wanted, the product itself is smaller work.
func (j *job) hadamard(x, y *pair) spectrum {
	r := x.rank() * y.rank()
	if most := j.cap(); j.o.Rule == Fixed && most > 0 && most < min(x.o, x.n)/4 && 2*r > min(x.o, x.n) {
		return topOf(x, y, most)
	}
	p := pair{o: x.o, n: x.n}
	for a := range x.rank() {
		for b := range y.rank() {
			p.up = append(p.up, times(x.up[a], y.up[b]))
			p.down = append(p.down, times(x.down[a], y.down[b]))
		}
	}
	return p.decompose()
}

func times(x, y []float64) []float64 {
	z := make([]float64, len(x))
	for i, v := range x {
		z[i] = v * y[i]
	}
	return z
}

// topOf decomposes x∘y to k values.
func topOf(x, y *pair, k int) spectrum {
	a, total := make([]float32, x.o*x.n), 0.0
	one, two := make([]float64, x.n), make([]float64, x.n)
	for i := range x.o {
		clear(one)
		clear(two)
		for r := range x.rank() {
			accumulate(one, x.up[r][i], x.down[r])
		}
		for r := range y.rank() {
			accumulate(two, y.up[r][i], y.down[r])
		}
		for c, v := range one {
			v *= two[c]
			a[i*x.n+c] = float32(v)
			total += v * v
		}
	}
	u, s, v := linalg.TopSVD(a, x.o, x.n, k)
	rest := total
	for _, value := range s {
		rest -= value * value
	}
	return spectrum{s: s, rest: max(rest, 0), right: func(j int) []float64 { return v[j*x.n : (j+1)*x.n] }, left: func(j int) []float64 {
		col := make([]float64, x.o)
		for i := range col {
			col[i] = u[i*len(s)+j]
		}
		return col
	}}
}

func accumulate(y []float64, by float64, x []float64) {
	for i, v := range x {
		y[i] += by * v
	}
}

// lokr resizes W1⊗W2 by cutting W2, the best for this W1: ‖W1⊗(W2−W2')‖ = ‖W1‖·‖W2−W2'‖.
func (j *job) lokr() error {
	if j.cut != nil {
		return j.bad("is a LoKr, whose ranks have no order to cut them by").Advise("resize it by --dim")
	}
	w1, l, m, rank1, err := j.small()
	if err != nil {
		return err
	}
	var a spectrum
	var o, n, r int
	whole := j.m.Has("lokr_w2")
	scale, zero, w2Key := 1.0, false, "lokr_w2_a"
	if whole {
		w2, rows, cols, err := j.matrix("lokr_w2")
		if err != nil {
			return err
		}
		o, n, r, w2Key = rows, cols, min(rows, cols), "lokr_w2"
		if rank1 > 0 {
			if scale, zero, err = j.scale(rank1); err != nil {
				return err
			}
		}
		a = decomposeMatrix(w2, o, n)
	} else {
		p, err := j.lowRank("lokr_w2_a", "lokr_w2_b", "lokr_t2")
		if err != nil {
			return err
		}
		o, n, r = p.o, p.n, p.rank()
		if scale, zero, err = j.scale(r); err != nil {
			return err
		}
		a = p.decompose()
	}
	shape := j.m.Target.Module.Shape
	if len(shape) < 2 || l*o != shape[0] || m*n != tensor.Elems(shape[1:]) {
		return j.bad("its factors [%d %d] and [%d %d] make no weight", l, m, o, n)
	}
	j.done.OldRank, j.done.Conv = r, tensor.Elems(shape[2:]) > 1
	a.times(scale)
	k := j.choose(&a)
	size := norm(w1)
	j.done.Norm, j.done.Error = j.done.Norm*size, j.done.Error*size
	if j.whole() && (k == r && !j.m.Has("lokr_t2") || whole && k*(o+n) >= o*n) { // two factors would be larger than the whole
		return j.keepWhole(r)
	}
	alpha, by, sign := j.newScale(k, scale, zero)
	up, down := a.factors(o, n, k, by, sign)
	j.done.Did = Resized
	if err := j.putSmall(w1, l, m); err != nil {
		return err
	}
	if err := j.add("lokr_w2_a", j.dtype(w2Key), []int{o, k}, up); err != nil {
		return err
	}
	if err := j.add("lokr_w2_b", j.dtype(w2Key), []int{k, n}, down); err != nil {
		return err
	}
	j.finish(alpha)
	return j.keepDoRA()
}

// small returns W1 [l,m], and its rank where it is stored as two factors, 0 where it is whole.
func (j *job) small() (w1 []float64, l, m, rank int, err error) {
	if !j.m.Has("lokr_w1_a") {
		w1, l, m, err = j.matrix(keyLokrW1)
		return w1, l, m, 0, err
	}
	p, err := j.lowRank("lokr_w1_a", "lokr_w1_b", "")
	if err != nil {
		return nil, 0, 0, 0, err
	}
	w1 = make([]float64, p.o*p.n)
	for r := range p.rank() {
		for i, x := range p.up[r] {
			accumulate(w1[i*p.n:(i+1)*p.n], x, p.down[r])
		}
	}
	return w1, p.o, p.n, p.rank(), nil
}

// putSmall writes W1 whole: two factors of it would need the rank of W2's.
func (j *job) putSmall(w1 []float64, l, m int) error {
	key := keyLokrW1
	if j.m.Has("lokr_w1_a") {
		key = "lokr_w1_a"
	}
	return j.add(keyLokrW1, j.dtype(key), []int{l, m}, w1)
}
