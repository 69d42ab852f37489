package linalg

import (
	"math"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"

	"lycoris/internal/rng"
)

// RandomOptions say how [RandomSVDOf] works.
type RandomOptions struct {
	Rank       int         // k, the triples that are wanted
	Directions *Directions // the first directions; nil: those of seed 0
	// Total is ‖A‖², the sum of the squares of A.
	Total float64
	// Tolerance ends the power iterations: an iteration that takes less than this share off the rest ‖A‖² − Σ s² was the last. 0: 2e-3, a thousandth of the
	// error at most.
	Tolerance float64
	MaxPower  int // iterations at most; 0: 6
}

// rounding is the share of ‖A‖² below which a rest is the rounding of float32 products.
const rounding = 1e-9

// RandomSVD returns nearly the k largest singular values of a [m,n] in falling order, fewer where min(m,n) is less, left vectors u [m,k], right vectors v [k,n], and
// the rest ‖a − u·s·v‖². It is [RandomSVDOf] with plain products.
func RandomSVD(a []float32, m, n, k int, seed uint64) (u, s, v []float64, rest float64) {
	return RandomSVDOf(Dense(a, m, n), RandomOptions{Rank: k, Directions: NewDirections(seed), Total: sumSquares(a)})
}

// RandomSVDOf is RandomSVD by products in float32. Method: the range of A is looked for among the images of k + max(8, k/2) random directions, which power iterations
// turn towards the large singular values, orthonormal in float64 after each half (Halko, Martinsson and Tropp, 2011, algorithms 4.4 and 5.1); A projected on it
// is decomposed exactly. The result is an orthogonal projection of A, so the rest is exactly ‖A‖² − Σ s², up to the rounding of the products.
func RandomSVDOf(a Products, o RandomOptions) (u, s, v []float64, rest float64) {
	m, n := a.Dims()
	k := min(o.Rank, m, n)
	if k <= 0 || o.Total == 0 {
		return nil, nil, nil, o.Total
	}
	if o.Tolerance == 0 {
		o.Tolerance = 2e-3
	}
	if o.MaxPower == 0 {
		o.MaxPower = 6
	}
	l := min(k+max(8, k/2), m, n)
	x, y := make([]float32, l*n), make([]float32, l*m)
	left, right := newRows(l, m), newRows(l, n)
	if o.Directions == nil {
		o.Directions = NewDirections(0)
	}
	o.Directions.fill(x, l, n)
	kept := 0.0 // Σ s² before
	for power := 0; ; power++ {
		a.Times(y, x, l)
		left.set(y)
		left.orthonormalise()
		left.get(y)
		a.TimesT(x, y, l)
		right.set(x)
		values, vectors := eigen(right.gram())
		now := 0.0
		for _, v := range values[:k] {
			now += max(v, 0)
		}
		left.set(y) // as the product saw them
		gain, over := now-kept, o.Total-now
		if power >= o.MaxPower || over <= rounding*o.Total || power > 0 && gain <= max(o.Tolerance*over, rounding*o.Total) {
			u, s, v = lift(left, right, values, vectors, k)
			return u, s, v, max(over, 0)
		}
		kept = now
		right.orthonormalise()
		right.get(x)
	}
}

// Directions makes the first directions of [RandomSVDOf] and remembers them: the first n numbers of each are the same for every matrix of n columns or more, so that
// results don't depend on what was decomposed before. A direction is blind to no matrix that was made without it. Not safe for concurrent use.
type Directions struct {
	seed    uint64
	byCount map[int][]float32 // [n,l] by l
}

// NewDirections returns directions that depend on the seed only.
func NewDirections(seed uint64) *Directions { return &Directions{seed, map[int][]float32{}} }

// rememberDirections is how many at a time are remembered.
const rememberDirections = 64

// fill writes l directions of n normal deviates to x [l,n].
func (d *Directions) fill(x []float32, l, n int) {
	g := d.byCount[l]
	if len(g) < l*n {
		g = make([]float32, l*n)
		rng.New(d.seed, "random svd", 0, uint64(l)).FillNormal(g)
		if l <= rememberDirections {
			d.byCount[l] = g
		}
	}
	for i := range l {
		for j := range n {
			x[i*n+j] = g[j*l+i]
		}
	}
}

// lift returns the k largest triples of leftᵀ·right from the decomposition of right·rightᵀ.
func lift(left, right rows, values []float64, vectors *mat.Dense, k int) (u, s, v []float64) {
	m, n := len(left[0]), len(right[0])
	u, s, v = make([]float64, m*k), make([]float64, k), make([]float64, k*n)
	column := make([]float64, m)
	for j := range k {
		s[j] = math.Sqrt(max(values[j], 0))
		clear(column)
		row := v[j*n : (j+1)*n]
		for i := range left {
			floats.AddScaled(column, vectors.At(i, j), left[i])
			floats.AddScaled(row, vectors.At(i, j), right[i])
		}
		for i, x := range column {
			u[i*k+j] = x
		}
		if s[j] > 0 {
			floats.Scale(1/s[j], row)
		}
	}
	return u, s, v
}

// GramSVD returns all min(m,n) singular values of a [m,n] in falling order with left vectors u [m,k] and right vectors v [k,n], through the eigenvalues of the smaller
// of a·aᵀ and aᵀ·a in float64: exact but for values below 1e-8 of the largest.
func GramSVD(a []float32, m, n int) (u, s, v []float64) {
	if m > n {
		v, s, u := GramSVD(transposed(a, m, n), n, m)
		return transposed(u, len(u)/m, m), s, transposed(v, n, len(s))
	}
	if m == 0 {
		return nil, nil, nil
	}
	right := newRows(m, n)
	right.set(a)
	values, vectors := eigen(right.gram())
	left := newRows(m, m)
	for i := range m {
		left[i][i] = 1
	}
	return lift(left, right, values, vectors, m)
}

// eigen decomposes a symmetric matrix: values in falling order, vectors in columns.
func eigen(g *mat.SymDense) ([]float64, *mat.Dense) {
	var e mat.EigenSym
	if !e.Factorize(g, true) {
		panic("linalg: the decomposition of a small symmetric matrix failed")
	}
	rising := e.Values(nil)
	var vectors mat.Dense
	e.VectorsTo(&vectors)
	k := len(rising)
	values, falling := make([]float64, k), mat.NewDense(k, k, nil)
	for j := range k {
		values[j] = rising[k-1-j]
		for i := range k {
			falling.Set(i, j, vectors.At(i, k-1-j))
		}
	}
	return values, falling
}

// rows is a matrix as a list of its rows.
type rows [][]float64

func newRows(l, n int) rows {
	r := make(rows, l)
	all := make([]float64, l*n)
	for i := range r {
		r[i] = all[i*n : (i+1)*n]
	}
	return r
}

func (r rows) set(x []float32) {
	n := len(r[0])
	for i, row := range r {
		for j, v := range x[i*n : (i+1)*n] {
			row[j] = float64(v)
		}
	}
}

func (r rows) get(x []float32) {
	n := len(r[0])
	for i, row := range r {
		for j, v := range row {
			x[i*n+j] = float32(v)
		}
	}
}

// gram returns r·rᵀ.
func (r rows) gram() *mat.SymDense {
	g := mat.NewSymDense(len(r), nil)
	for i := range r {
		for j := range i + 1 {
			g.SetSym(i, j, floats.Dot(r[i], r[j]))
		}
	}
	return g
}

// orthonormalise makes the rows an orthonormal basis of what they span, by Gram and Schmidt's method, twice where the first time leaves little. A row that depends
// on those before it becomes zero.
func (r rows) orthonormalise() {
	for i, x := range r {
		before := math.Sqrt(floats.Dot(x, x))
		for pass := 0; pass < 3; pass++ {
			for _, b := range r[:i] {
				floats.AddScaled(x, -floats.Dot(b, x), b)
			}
			now := scaleTo1(x)
			if now > before/2 || now == 0 {
				break
			}
			if pass == 0 && now <= 1e-14*before { // nothing but the rounding of float64
				clear(x)
				break
			}
			before = 1
		}
	}
}

func sumSquares(a []float32) float64 {
	var sum float64
	for _, v := range a {
		sum += float64(v) * float64(v)
	}
	return sum
}
