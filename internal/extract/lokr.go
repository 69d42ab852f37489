package extract

import (
	"math"

	"lycoris/internal/algos"
	"lycoris/internal/linalg"
)

// exact is the tolerance of decompositions that want the first triple itself, not only nearly its error.
const exact = 1e-7

// kronSizes are those of W1 [o1,i1] ⊗ W2 [o2,i2(,kh,kw)].
type kronSizes struct{ o1, i1, o2, i2, pixels int }

// lokr fits W1⊗W2. Rearranged so that row (p,q) holds block p,q of Δ, the Kronecker product is the outer product of vec W1 and vec W2, and the nearest is the leading
// singular triple (Van Loan and Pitsianis, 1993): the error is √(‖Δ‖² − σ₁²). Where a rank is given that is less than W2's, W2 is a product of that rank, found by
// alternation from there: each half step is the best for the other factor.
func (w *worker) lokr(l *layer) (*fit, error) {
	k := kronSizes{pixels: l.Window()}
	factor := w.o.Factor
	if factor == 0 {
		factor = -1
	}
	k.o1, k.o2 = algos.Factorization(l.m, factor)
	k.i1, k.i2 = algos.Factorization(l.In(), factor)
	r := rearranged(l.delta, k)
	rows, cols := k.o1*k.i1, k.o2*k.i2*k.pixels
	u, s, v, err := w.decomposition(r, rows, cols, Rule{Dim: 1}, l.total, exact)
	if err != nil {
		return nil, err
	}
	one, two := shared(u, s, v, rows, cols)
	rank := w.rule(l).Dim
	var f *fit
	if given := l.HasWindow() || w.o.Rule.Dim > 0; given && rank < min(k.o2, k.i2*k.pixels) {
		f, err = w.factored(l, r, one, two, k, rank)
	} else {
		f, err = w.wholeKron(l, one, two, k, max(rank, 1))
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

// rearranged returns the blocks of Δ as rows: [o1·i1, o2·i2·pixels].
func rearranged(delta []float32, k kronSizes) []float32 {
	out := make([]float32, len(delta))
	width, cols := k.i2*k.pixels, k.o2*k.i2*k.pixels
	for p := range k.o1 {
		for u := range k.o2 {
			row := delta[(p*k.o2+u)*k.i1*width:]
			for q := range k.i1 {
				copy(out[(p*k.i1+q)*cols+u*width:], row[q*width:(q+1)*width])
			}
		}
	}
	return out
}

// wholeKron stores both factors whole. Their alpha means nothing.
func (w *worker) wholeKron(l *layer, one, two []float32, k kronSizes, rank int) (*fit, error) {
	w1, err := w.stored(l, "lokr_w1", []int{k.o1, k.i1}, one)
	if err != nil {
		return nil, err
	}
	w2, err := w.stored(l, "lokr_w2", append([]int{k.o2, k.i2}, l.Shape[2:]...), two)
	if err != nil {
		return nil, err
	}
	f := &fit{tensors: []named{alpha(rank), w1, w2}}
	f.left, f.worst = kronMiss(l.delta, w1.Float32(), w2.Float32(), k)
	return f, nil
}

// kronMiss returns the square of the norm and the largest element of Δ − w1⊗w2.
func kronMiss(delta, w1, w2 []float32, k kronSizes) (left, worst float64) {
	width := k.i2 * k.pixels
	for p := range k.o1 {
		for u := range k.o2 {
			row := delta[(p*k.o2+u)*k.i1*width:]
			for q := range k.i1 {
				x := float64(w1[p*k.i1+q])
				for j, v := range w2[u*width : (u+1)*width] {
					d := math.Abs(float64(row[q*width+j]) - x*float64(v))
					left += d * d
					worst = max(worst, d)
				}
			}
		}
	}
	return left, worst
}

// factored alternates from W1 = one: W2 is the best matrix of the rank for W1, then W1 the best for W2. It ends where a round gains less than a millionth, or after 20.
func (w *worker) factored(l *layer, r, one, two []float32, k kronSizes, rank int) (*fit, error) {
	p := &products{w.backend, r, k.o1 * k.i1, k.o2 * k.i2 * k.pixels}
	width := k.i2 * k.pixels
	a := append([]float32(nil), one...)
	b := append([]float32(nil), two...)
	var left, right []float32 // W2 = left·right
	before := math.Inf(1)
	for range 20 {
		scaleTo(a, 1)
		p.TimesT(b, a, 1) // the best W2 of full rank for this W1
		u, s, v := linalg.TopSVD(b, k.o2, width, rank)
		left, right = shared(u, s, v, k.o2, width)
		product(b, left, right, k.o2, width, len(s))
		norm := norm2(b)
		if norm == 0 {
			break
		}
		p.Times(a, b, 1)
		fitted := norm2(a) / norm // ‖W1⊗W2‖² with W1 = a/norm
		for i := range a {
			a[i] = float32(float64(a[i]) / norm)
		}
		now := l.total - fitted
		if before-now <= 1e-6*math.Abs(before) {
			break
		}
		before = now
	}
	// a root of the product's norm to each of W1 and W2
	share := math.Sqrt(norm2(b) / max(norm2(a), math.SmallestNonzeroFloat64))
	scale(a, math.Sqrt(share))
	scale(left, math.Sqrt(1/math.Sqrt(share)))
	scale(right, math.Sqrt(1/math.Sqrt(share)))
	rank = len(left) / k.o2
	w1, err := w.stored(l, "lokr_w1", []int{k.o1, k.i1}, a)
	if err != nil {
		return nil, err
	}
	w2a, err := w.stored(l, "lokr_w2_a", []int{k.o2, rank}, left)
	if err != nil {
		return nil, err
	}
	w2b, err := w.stored(l, "lokr_w2_b", []int{rank, width}, right)
	if err != nil {
		return nil, err
	}
	f := &fit{tensors: []named{alpha(rank), w1, w2a, w2b}, rank: rank}
	product(b, w2a.Float32(), w2b.Float32(), k.o2, width, rank)
	f.left, f.worst = kronMiss(l.delta, w1.Float32(), b, k)
	return f, nil
}

// product writes left [m,r] · right [r,n] to dst.
func product(dst, left, right []float32, m, n, r int) {
	row := make([]float64, n)
	for i := range m {
		clear(row)
		for p := range r {
			x := float64(left[i*r+p])
			for j, v := range right[p*n : (p+1)*n] {
				row[j] += x * float64(v)
			}
		}
		for j, v := range row {
			dst[i*n+j] = float32(v)
		}
	}
}

func norm2(a []float32) float64 {
	sum := 0.0
	for _, v := range a {
		sum += float64(v) * float64(v)
	}
	return sum
}

func scale(a []float32, f float64) {
	for i, v := range a {
		a[i] = float32(float64(v) * f)
	}
}

// scaleTo gives a the norm; a zero vector stays.
func scaleTo(a []float32, norm float64) {
	if n := math.Sqrt(norm2(a)); n > 0 {
		scale(a, norm/n)
	}
}
