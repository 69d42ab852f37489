package merge

import (
	"math"

	"lycoris/internal/algos"
	"lycoris/internal/fault"
	"lycoris/internal/tensor"
)

// Keys of adapter files (the reference formats, 3.2).
const (
	keyDown     = "lora_down.weight"
	keyMid      = "lora_mid.weight"
	keyUp       = "lora_up.weight"
	keyAlpha    = "alpha"
	keyDoRA     = "dora_scale"
	keyDiff     = "diff"
	keyDiffBias = "diff_b"
	keyNormGain = "w_norm"
	keyNormBias = "b_norm"
)

// touched is rows of a tensor that change, ready to be worked on.
type touched struct {
	job     *tensorJob
	file    *fileJob
	rows    [2]int
	cols    int
	changes []change
}

// build makes the change of a use; t has the changes before it.
func (r *run) build(u use, t *touched) (change, error) {
	tensors, err := u.from.read(u)
	if err != nil {
		return nil, err
	}
	switch {
	case u.bias:
		diff, ok := tensors[keyDiffBias]
		if !ok {
			diff = tensors[keyNormBias]
		}
		return &dense{u.c, diff, 1}, nil
	case u.module.Algorithm == algos.Full.Name:
		return &dense{u.c, tensors[keyDiff], t.cols}, nil
	case u.module.Algorithm == algos.Norm.Name:
		return &dense{u.c, tensors[keyNormGain], t.cols}, nil
	case u.module.Algorithm == algos.IA3.Name:
		return newScaling(u, tensors), nil
	}
	magnitude, decomposed := tensors[keyDoRA]
	c := u.c
	if decomposed {
		c = 1
	}
	var inner change
	switch u.module.Algorithm {
	case algos.LoRA.Name, algos.DyLoRA.Name:
		inner = newLoRA(tensors, c, t.cols)
	case algos.LoHa.Name:
		inner = newLoHa(tensors, c, t.cols)
	case algos.LoKr.Name:
		inner = newLoKr(tensors, c, u.target.Shape)
	default:
		return r.whole(u, t, tensors)
	}
	if !decomposed {
		return inner, nil
	}
	return r.newDoRA(u, t, inner, magnitude)
}

func number(tensors map[string]tensor.Tensor, key string, absent float64) float64 {
	if t, ok := tensors[key]; ok && tensor.Elems(t.Shape) == 1 {
		return float64(t.Float32()[0])
	}
	return absent
}

func newLoRA(tensors map[string]tensor.Tensor, c float64, cols int) change {
	down := tensors[keyDown]
	rank := down.Shape[0]
	l := &lowRank{g: c * (number(tensors, keyAlpha, float64(rank)) / float64(rank)), cols: cols}
	values, exact := down.Float32(), []float64(nil)
	if mid, ok := tensors[keyMid]; ok {
		values, exact = core(mid, values)
	}
	l.sides = []side{newSide(tensors[keyUp].Float32(), values, exact, rank)}
	return l
}

// core returns Σ_q mid[p,q,:]·down[q,i] as [R, I·kh·kw], for mid [R,R,kh,kw] and down [R,I].
func core(mid tensor.Tensor, down []float32) ([]float32, []float64) {
	m, r := mid.Float32(), mid.Shape[0]
	window, in := tensor.Elems(mid.Shape[2:]), len(down)/r
	exact := make([]float64, r*in*window)
	for p := range r {
		for q := range r {
			taps := m[(p*r+q)*window : (p*r+q+1)*window]
			for i, d := range down[q*in : (q+1)*in] {
				dst := exact[(p*in+i)*window:][:window]
				for k, tap := range taps {
					dst[k] += float64(tap) * float64(d)
				}
			}
		}
	}
	rounded := make([]float32, len(exact))
	for i, v := range exact {
		rounded[i] = float32(v)
	}
	return rounded, exact
}

func newLoHa(tensors map[string]tensor.Tensor, c float64, cols int) change {
	rank := tensors["hada_w1_b"].Shape[0]
	l := &lowRank{g: c * (number(tensors, keyAlpha, float64(rank)) / float64(rank)), cols: cols}
	for _, keys := range [][3]string{{"hada_w1_a", "hada_w1_b", "hada_t1"}, {"hada_w2_a", "hada_w2_b", "hada_t2"}} {
		up, down, exact := tensors[keys[0]].Float32(), tensors[keys[1]].Float32(), []float64(nil)
		if t, ok := tensors[keys[2]]; ok { // a is [R,O] then
			down, exact = core(t, down)
			up = transposed(up, rank)
		}
		l.sides = append(l.sides, newSide(up, down, exact, rank))
	}
	return l
}

// transposed returns [n,rows] of v [rows,n].
func transposed(v []float32, rows int) []float32 {
	n := len(v) / rows
	out := make([]float32, len(v))
	for i := range rows {
		for j := range n {
			out[j*rows+i] = v[i*n+j]
		}
	}
	return out
}

// newLoKr makes both parts whole. Where both are stored whole, alpha means nothing.
func newLoKr(tensors map[string]tensor.Tensor, c float64, shape []int) change {
	k := &kron{}
	scale, rank := 1.0, 0
	var l int
	if w1, ok := tensors["lokr_w1"]; ok {
		l, k.m, k.w1 = w1.Shape[0], w1.Shape[1], wide(w1.Float32())
	} else {
		a, b := tensors["lokr_w1_a"], tensors["lokr_w1_b"]
		rank = a.Shape[1]
		l, k.m, k.w1 = a.Shape[0], b.Shape[1], product(a.Float32(), b.Float32(), rank)
	}
	k.k, k.n = shape[0]/l, tensor.Elems(shape[1:])/k.m
	w2, whole := tensors["lokr_w2"]
	t2, tucker := tensors["lokr_t2"]
	switch {
	case whole:
		k.w2 = wide(w2.Float32())
	case tucker:
		rank = t2.Shape[0]
		_, inner := core(t2, tensors["lokr_w2_b"].Float32())
		k.w2 = productWide(transposed(tensors["lokr_w2_a"].Float32(), rank), inner, rank)
	default:
		b := tensors["lokr_w2_b"]
		rank = b.Shape[0]
		k.w2 = product(tensors["lokr_w2_a"].Float32(), b.Float32(), rank)
	}
	if rank > 0 {
		scale = number(tensors, keyAlpha, float64(rank)) / float64(rank)
	}
	k.g = c * scale
	return k
}

func wide(v []float32) []float64 {
	out := make([]float64, len(v))
	for i, x := range v {
		out[i] = float64(x)
	}
	return out
}

// product returns a·b in float64 for a [M,rank] and b [rank,N].
func product(a, b []float32, rank int) []float64 { return productWide(a, wide(b), rank) }

func productWide(a []float32, b []float64, rank int) []float64 {
	m, n := len(a)/rank, len(b)/rank
	out := make([]float64, m*n)
	for i := range m {
		dst := out[i*n:][:n]
		for p := range rank {
			x := float64(a[i*rank+p])
			for j, v := range b[p*n : (p+1)*n] {
				dst[j] += x * v
			}
		}
	}
	return out
}

func newScaling(u use, tensors map[string]tensor.Tensor) change {
	s := &scaling{onInput: number(tensors, "on_input", 0) != 0, window: u.target.Window()}
	for _, w := range tensors["weight"].Float32() {
		s.factors = append(s.factors, 1+u.c*float64(w))
	}
	return s
}

// newDoRA takes inner's result apart. Norms of input channels take a pass over the whole weight before.
func (r *run) newDoRA(u use, t *touched, inner change, magnitude tensor.Tensor) (change, error) {
	d := &dora{inner: inner, c: u.c, as: r.plan.options.As, magnitude: wide(magnitude.Float32()), window: u.target.Window()}
	s := magnitude.Shape
	if len(s) >= 2 && s[0] == u.target.Out() && s[1] == 1 {
		return d, nil
	}
	d.norms = make([]float64, len(d.magnitude))
	err := r.eachBlock(t, append(append([]change(nil), t.changes...), inner), func(_ int, acc []float64) {
		for j, v := range acc {
			d.norms[j/d.window] += v * v
		}
	})
	for i, v := range d.norms {
		d.norms[i] = math.Sqrt(v)
	}
	return d, err
}

// whole computes a change that needs all of the weight: by the algorithm's own definition, on the values that the changes before leave.
func (r *run) whole(u use, t *touched, tensors map[string]tensor.Tensor) (change, error) {
	frozen := tensor.Tensor{DType: t.job.in.DType, Shape: u.target.Shape}
	n := tensor.Elems(frozen.Shape)
	if len(t.changes) == 0 && frozen.DType != tensor.F64 && !frozen.DType.IsF8() {
		size := frozen.DType.Size()
		frozen.Data = make([]byte, n*size)
		if err := t.file.file.Raw().ReadPart(t.job.in.Name, frozen.Data, int64(t.rows[0]*t.cols*size)); err != nil {
			return nil, err
		}
	} else {
		values := make([]float32, n)
		err := r.eachBlock(t, t.changes, func(o int, acc []float64) {
			for j, v := range acc {
				values[o*t.cols+j] = float32(v)
			}
		})
		if err != nil {
			return nil, err
		}
		frozen = tensor.FromFloat32(tensor.F32, frozen.Shape, values)
	}
	algo, err := algos.ByName(u.module.Algorithm)
	if err != nil {
		return nil, err
	}
	a, err := algo.Load(u.target, tensors, algos.Options{Strength: u.c})
	if err != nil {
		return nil, u.from.fault(err)
	}
	alone := algos.NewNetwork([]algos.Adapter{a})
	if err := alone.Start(func(algos.Target) ([]float32, error) { return frozen.Float32(), nil }, func() {}); err != nil { // T-LoRA whose file doesn't say where it started
		return nil, err
	}
	r.backendLock.Lock()
	diff, err := algos.Change(r.backend, a, frozen)
	r.backendLock.Unlock()
	if err != nil {
		return nil, err
	}
	for _, v := range diff {
		if v-v != 0 {
			return nil, fault.New(fault.Failed, u.from.Source.Path, "the change of %q is not finite", u.target.Name)
		}
	}
	return &denseFloat{diff, t.cols}, nil
}

// denseFloat adds a whole difference that was computed, its strength in it.
type denseFloat struct {
	diff []float32
	cols int
}

// byRows reports whether a use changes rows apart from each other.
func byRows(u use) bool {
	switch u.module.Algorithm {
	case algos.LoRA.Name, algos.DyLoRA.Name, algos.LoHa.Name, algos.LoKr.Name, algos.Full.Name, algos.Norm.Name, algos.IA3.Name:
		return true
	}
	return u.bias
}
