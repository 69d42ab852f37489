package merge

import (
	"math"

	"lycoris/internal/kernels"
	"lycoris/internal/tensor"
)

// change is what one module of one adapter does to a weight [rows, cols] (a kernel is flattened to [O, I·kh·kw]). It is used by several goroutines at once.
type change interface {
	// products computes what rows [from,to) need from the backend, into buf; nil where they need nothing.
	products(b kernels.Backend, from, to int, buf *products) [][]float32
	// row applies the change to acc, which holds row o with the changes before; p are the products of the rows from on. acc may be off by bound already; the result is by how
	// much it may be off after.
	row(acc []float64, o, from int, p [][]float32, bound float64) float64
	// at is row for the element (o,j) alone, without error but that of float64; ok is false for a change that needs whole rows.
	at(v float64, o, j int) (changed float64, ok bool)
}

// products are the memory for products of a block of rows.
type products struct{ used, free [][]float32 }

func (p *products) take(n int) []float32 {
	for i, b := range p.free {
		if cap(b) >= n {
			p.free[i] = p.free[len(p.free)-1]
			p.free = p.free[:len(p.free)-1]
			p.used = append(p.used, b)
			return b[:n]
		}
	}
	b := make([]float32, n)
	p.used = append(p.used, b)
	return b
}

func (p *products) reset() { p.free, p.used = append(p.free, p.used...), p.used[:0] }

// lowRank adds g·(up·down), or with two sides g·(up₁·down₁)∘(up₂·down₂).
type lowRank struct {
	g     float64
	sides []side
	cols  int
}

// side is a low-rank product.
type side struct {
	up    []float32 // [O,R]
	down  []float32 // [R,cols]
	exact []float64 // down in float64 where float32 doesn't hold it: made from a Tucker core
	rank  int
	most  []float64 // largest |down| per rank
}

func newSide(up, down []float32, exact []float64, rank int) side {
	s := side{up: up, down: down, exact: exact, rank: rank, most: make([]float64, rank)}
	cols := len(down) / rank
	for p := range s.most {
		most := float32(0)
		for _, v := range down[p*cols : (p+1)*cols] {
			most = max(most, v, -v)
		}
		s.most[p] = float64(most)
	}
	return s
}

// bound returns the largest value that row o of the product can have and how far float32 arithmetic may be from it: R products and R sums of relative error 2^-24
// each in any order, with or without fused multiply-add, and one more for a down that was rounded.
func (s *side) bound(o int) (size, off float64) {
	for p, u := range s.up[o*s.rank : (o+1)*s.rank] {
		size += math.Abs(float64(u)) * s.most[p]
	}
	return size, size * float64(s.rank+3) * 0x1p-24
}

func (s *side) value(o, j, cols int) float64 {
	sum := 0.0
	for p, u := range s.up[o*s.rank : (o+1)*s.rank] {
		if s.exact != nil {
			sum += float64(u) * s.exact[p*cols+j]
		} else {
			sum += float64(u) * float64(s.down[p*cols+j])
		}
	}
	return sum
}

func (l *lowRank) products(b kernels.Backend, from, to int, buf *products) [][]float32 {
	all := make([][]float32, len(l.sides))
	for i := range l.sides {
		s := &l.sides[i]
		all[i] = buf.take((to - from) * l.cols)
		b.MatMul(all[i], s.up[from*s.rank:to*s.rank], s.down, kernels.Epilogue{}, kernels.MatMul{Batch: 1, M: to - from, N: l.cols, K: s.rank, Alpha: 1})
	}
	return all
}

func (l *lowRank) row(acc []float64, o, from int, p [][]float32, bound float64) float64 {
	size, off := l.sides[0].bound(o)
	x := p[0][(o-from)*l.cols : (o-from+1)*l.cols]
	acc = acc[:len(x)]
	if len(l.sides) == 1 {
		for j, v := range x {
			acc[j] += l.g * float64(v)
		}
		return bound + math.Abs(l.g)*off
	}
	size2, off2 := l.sides[1].bound(o)
	y := p[1][(o-from)*l.cols : (o-from+1)*l.cols][:len(x)]
	for j, v := range x {
		acc[j] += l.g * (float64(v) * float64(y[j]))
	}
	return bound + math.Abs(l.g)*(size*off2+size2*off+off*off2)
}

func (l *lowRank) at(v float64, o, j int) (float64, bool) {
	d := l.sides[0].value(o, j, l.cols)
	if len(l.sides) == 2 {
		d *= l.sides[1].value(o, j, l.cols)
	}
	return v + l.g*d, true
}

// kron adds g·(W1⊗W2): row p·K+u, column q·N+n is g·W1[p,q]·W2[u,n], where n runs over the window too.
type kron struct {
	g    float64
	m    int       // columns of w1
	w1   []float64 // [L,M]
	w2   []float64 // [K,N·kh·kw]
	k, n int       // of w2
}

func (k *kron) products(kernels.Backend, int, int, *products) [][]float32 { return nil }

func (k *kron) row(acc []float64, o, _ int, _ [][]float32, bound float64) float64 {
	w1, w2 := k.w1[o/k.k*k.m:][:k.m], k.w2[o%k.k*k.n:][:k.n]
	for q, a := range w1 {
		a *= k.g
		dst := acc[q*k.n:][:len(w2)]
		for n, v := range w2 {
			dst[n] += a * v
		}
	}
	return bound
}

func (k *kron) at(v float64, o, j int) (float64, bool) {
	return v + k.w1[o/k.k*k.m+j/k.n]*k.g*k.w2[o%k.k*k.n+j%k.n], true
}

// dense adds c times a whole difference.
type dense struct {
	c    float64
	diff tensor.Tensor // [rows, cols] under some shape
	cols int
}

func (d *dense) products(kernels.Backend, int, int, *products) [][]float32 { return nil }

func (d *dense) row(acc []float64, o, _ int, _ [][]float32, bound float64) float64 {
	size := d.diff.DType.Size()
	eachValue(d.diff.DType, d.diff.Data[o*d.cols*size:(o+1)*d.cols*size], func(j int, v float64) { acc[j] += d.c * v })
	return bound
}

func (d *dense) at(v float64, o, j int) (float64, bool) {
	size, i := d.diff.DType.Size(), o*d.cols+j
	eachValue(d.diff.DType, d.diff.Data[i*size:(i+1)*size], func(_ int, x float64) { v += d.c * x })
	return v, true
}

// scaling multiplies channels by 1 + c·w: of outputs, or of inputs with their window.
type scaling struct {
	factors []float64
	onInput bool
	window  int
}

func (s *scaling) products(kernels.Backend, int, int, *products) [][]float32 { return nil }

func (s *scaling) row(acc []float64, o, _ int, _ [][]float32, bound float64) float64 {
	most := 0.0
	for j := range acc {
		f := s.factor(o, j)
		most = max(most, math.Abs(f))
		acc[j] *= f
	}
	return bound * most
}

func (s *scaling) at(v float64, o, j int) (float64, bool) { return v * s.factor(o, j), true }

func (s *scaling) factor(o, j int) float64 {
	if s.onInput {
		return s.factors[j/s.window]
	}
	return s.factors[o]
}

// doraEps is what lycoris-lora adds to a norm: the machine epsilon of float32.
const doraEps = 1.1920929e-07

// dora is a change whose result is taken apart into direction and magnitude, with V = W + ΔW:
//
//	consumer: W + c·(V·m/‖V‖ − W);  lycoris: V·(c·(m/(‖V‖+ε) − 1) + 1);  comfy: as consumer, with ‖W‖ for magnitudes of outputs
//
// A row or column of norm 0 is left at V. Inner is the change at strength 1.
type dora struct {
	inner     change
	c         float64
	as        string
	magnitude []float64
	norms     []float64 // of V per input channel; nil for magnitudes of outputs, whose norms are those of rows
	window    int
}

func (d *dora) products(b kernels.Backend, from, to int, buf *products) [][]float32 {
	return d.inner.products(b, from, to, buf)
}

func (d *dora) row(acc []float64, o, from int, p [][]float32, bound float64) float64 {
	before := append([]float64(nil), acc...)
	d.inner.row(acc, o, from, p, 0)
	norm := 0.0
	if d.norms == nil {
		of := acc
		if d.as == AsComfy {
			of = before
		}
		for _, v := range of {
			norm += v * v
		}
		norm = math.Sqrt(norm)
	}
	for j, v := range acc {
		m := d.magnitude
		n, i := norm, o
		if d.norms != nil {
			i = j / d.window
			n = d.norms[i]
		}
		acc[j] = d.combine(before[j], v, m[i], n)
	}
	return bound
}

// combine returns the new value from w before and v with the change.
func (d *dora) combine(w, v, magnitude, norm float64) float64 {
	if d.as == AsLycoris {
		return v * (d.c*(magnitude/(norm+doraEps)-1) + 1)
	}
	if norm > 0 {
		v *= magnitude / norm
	}
	return w + d.c*(v-w)
}

func (d *dora) at(v float64, _, _ int) (float64, bool) { return v, false }

func (d *denseFloat) products(kernels.Backend, int, int, *products) [][]float32 { return nil }

func (d *denseFloat) row(acc []float64, o, _ int, _ [][]float32, bound float64) float64 {
	for j, v := range d.diff[o*d.cols : (o+1)*d.cols] {
		acc[j] += float64(v)
	}
	return bound
}

func (d *denseFloat) at(v float64, o, j int) (float64, bool) {
	return v + float64(d.diff[o*d.cols+j]), true
}
