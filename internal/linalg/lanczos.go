package linalg

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"

	"lycoris/internal/rng"
)

// tolerance is the residual, relative to the largest singular value, below which a triple counts as found. The errors of singular vectors are that over the gap
// to the neighbours.
const tolerance = 1e-9

// TopSVD returns the r largest singular values of a [m,n] in falling order, with left vectors u [m,r] and right vectors v [r,n]; fewer where min(m,n) is less.
//
// Method: Golub-Kahan-Lanczos bidiagonalisation with full reorthogonalisation (Golub and Van Loan, Matrix Computations, 10.4), which ends when the residuals
// of the wanted triples are small or the basis is whole.
func TopSVD(a []float32, m, n, r int) (u, s, v []float64) {
	if m < n { // the basis that has to be whole is then the small side's
		v, s, u := TopSVD(transposed(a, m, n), n, m, r)
		return transposed(u, len(u)/m, m), s, transposed(v, n, len(s))
	}
	r = min(r, n)
	if r == 0 {
		return nil, nil, nil
	}
	l := &lanczos{a: a, m: m, n: n}
	l.start()
	for next := min(n, max(3*r, 24)); ; next = min(n, next+max(r, next/4)) {
		l.extend(next)
		left, values, right := l.small()
		if len(l.right) >= n || l.done || l.residual(left, r) <= tolerance*values[0] {
			return l.lift(left, values, right, min(r, len(values)))
		}
	}
}

// lanczos holds orthonormal bases with a·right[j] = beta[j-1]·left[j-1] + alpha[j]·left[j].
type lanczos struct {
	a           []float32
	m, n        int
	right, left [][]float64
	alpha, beta []float64
	next        []float64 // the next right vector, of length 1
	after       float64   // its beta
	done        bool      // the rest of a is zero on what is left
}

// start takes a first direction that no structure of a is blind to.
func (l *lanczos) start() {
	v := make([]float64, l.n)
	s := rng.New(0, "lanczos", 0, 0)
	for i := range v {
		v[i] = s.Float64() - 0.5
	}
	scaleTo1(v)
	l.next = v
}

// extend brings the bases to k vectors.
func (l *lanczos) extend(k int) {
	for len(l.right) < k && !l.done {
		v := l.next
		l.right = append(l.right, v)
		p := l.times(v)
		if j := len(l.left); j > 0 {
			axpy(p, -l.beta[j-1], l.left[j-1])
		}
		orthogonalise(p, l.left)
		alpha := scaleTo1(p)
		l.left, l.alpha = append(l.left, p), append(l.alpha, alpha)
		q := l.timesT(p)
		axpy(q, -alpha, v)
		orthogonalise(q, l.right)
		beta := scaleTo1(q)
		l.next, l.after = q, beta
		l.beta = append(l.beta, beta)
		if beta <= 1e-14*slices.Max(l.alpha) {
			l.done = true
		}
	}
}

// small decomposes the bidiagonal matrix of the bases: left [k,k], values, right [k,k], vectors in columns.
func (l *lanczos) small() (left *mat.Dense, values []float64, right *mat.Dense) {
	k := len(l.alpha)
	b := mat.NewDense(k, k, nil)
	for i := range k {
		b.Set(i, i, l.alpha[i])
		if i+1 < k {
			b.Set(i, i+1, l.beta[i])
		}
	}
	var svd mat.SVD
	if !svd.Factorize(b, mat.SVDFull) {
		panic("linalg: the decomposition of a small matrix failed")
	}
	left, right = &mat.Dense{}, &mat.Dense{}
	svd.UTo(left)
	svd.VTo(right)
	return left, svd.Values(nil), right
}

// residual bounds the error of the first r triples.
func (l *lanczos) residual(left *mat.Dense, r int) float64 {
	k, _ := left.Dims()
	if k < r {
		return math.Inf(1)
	}
	worst := 0.0
	for j := range r {
		worst = max(worst, math.Abs(l.after*left.At(k-1, j)))
	}
	return worst
}

// lift brings r small triples back to the full space.
func (l *lanczos) lift(left *mat.Dense, values []float64, right *mat.Dense, r int) (u, s, v []float64) {
	u, v = make([]float64, l.m*r), make([]float64, r*l.n)
	for j := range r {
		col := make([]float64, l.m)
		for k, basis := range l.left {
			axpy(col, left.At(k, j), basis)
		}
		for i, x := range col {
			u[i*r+j] = x
		}
		row := v[j*l.n : (j+1)*l.n]
		for k, basis := range l.right {
			axpy(row, right.At(k, j), basis)
		}
	}
	return u, slices.Clone(values[:r]), v
}

// times returns a·x, timesT aᵀ·x.
func (l *lanczos) times(x []float64) []float64 {
	y := make([]float64, l.m)
	for i := range y {
		var sum float64
		for j, w := range l.a[i*l.n : (i+1)*l.n] {
			sum += float64(w) * x[j]
		}
		y[i] = sum
	}
	return y
}

func (l *lanczos) timesT(x []float64) []float64 {
	y := make([]float64, l.n)
	for i, f := range x {
		for j, w := range l.a[i*l.n : (i+1)*l.n] {
			y[j] += float64(w) * f
		}
	}
	return y
}

// orthogonalise takes from x its part in basis, twice, since once leaves rounding of the size of what was taken.
func orthogonalise(x []float64, basis [][]float64) {
	for range 2 {
		for _, b := range basis {
			axpy(x, -dot(x, b), b)
		}
	}
}

func dot(x, y []float64) float64 {
	var a, b, c, d float64
	y = y[:len(x)]
	i := 0
	for ; i+4 <= len(x); i += 4 {
		a += x[i] * y[i]
		b += x[i+1] * y[i+1]
		c += x[i+2] * y[i+2]
		d += x[i+3] * y[i+3]
	}
	for ; i < len(x); i++ {
		a += x[i] * y[i]
	}
	return a + b + (c + d)
}

func axpy(y []float64, f float64, x []float64) {
	for i, v := range x {
		y[i] += f * v
	}
}

// scaleTo1 makes x a unit vector and returns the length it had; a zero vector stays.
func scaleTo1(x []float64) float64 {
	n := math.Sqrt(dot(x, x))
	if n > 0 {
		for i := range x {
			x[i] /= n
		}
	}
	return n
}

// transposed returns the transpose of a [m,n].
func transposed[T float32 | float64](a []T, m, n int) []T {
	t := make([]T, len(a))
	for i := range m {
		for j := range n {
			t[j*m+i] = a[i*n+j]
		}
	}
	return t
}
