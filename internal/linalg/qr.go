package linalg

import "math"

// QR returns the thin decomposition a = q·r of a [m,n], with orthonormal columns q [m,k] and upper triangular (trapezoidal) r [k,n], k = min(m,n).
//
// Method: Householder reflections (Golub and Van Loan, Matrix Computations, 5.2), so q is orthonormal to rounding whatever a's rank is.
func QR(a []float64, m, n int) (q, r []float64) {
	h := householder(columnsOf(a, m, n), m)
	k := len(h.vectors)
	basis := make([][]float64, k)
	for j := range basis {
		unit := make([]float64, k)
		unit[j] = 1
		basis[j] = h.apply(unit)
	}
	return fromColumns(basis, m), h.r
}

// reflections are the Householder vectors of a matrix of m rows; vector j is zero before element j, which is left out.
type reflections struct {
	m       int
	vectors [][]float64
	factors []float64 // 2/vᵀv; 0 where nothing was left to reflect
	r       []float64 // [k,n]
}

// householder takes a matrix apart, given by its n columns of length m, which it uses up.
func householder(cols [][]float64, m int) *reflections {
	n := len(cols)
	k := min(m, n)
	h := &reflections{m: m, vectors: make([][]float64, k), factors: make([]float64, k), r: make([]float64, k*n)}
	for j := range k {
		v := cols[j][j:]
		norm := math.Sqrt(dot(v, v))
		h.vectors[j] = v
		h.r[j*n+j] = v[0]
		if norm > 0 {
			if v[0] > 0 { // away from v[0], so that nothing cancels
				norm = -norm
			}
			h.r[j*n+j] = norm
			v[0] -= norm
			h.factors[j] = -1 / (norm * v[0]) // vᵀv = -2·norm·v[0]
		}
		for c := j + 1; c < n; c++ {
			h.reflect(j, cols[c])
			h.r[j*n+c] = cols[c][j]
		}
	}
	return h
}

// reflect applies reflection j to x.
func (h *reflections) reflect(j int, x []float64) {
	if h.factors[j] != 0 {
		axpy(x[j:], -h.factors[j]*dot(h.vectors[j], x[j:]), h.vectors[j])
	}
}

// apply returns Q·x for x of length k.
func (h *reflections) apply(x []float64) []float64 {
	y := make([]float64, h.m)
	copy(y, x)
	for j := len(h.vectors) - 1; j >= 0; j-- {
		h.reflect(j, y)
	}
	return y
}

// columnsOf returns the columns of a [m,n].
func columnsOf(a []float64, m, n int) [][]float64 {
	cols := make([][]float64, n)
	t := transposed(a, m, n)
	for j := range cols {
		cols[j] = t[j*m : (j+1)*m]
	}
	return cols
}

// fromColumns returns the matrix [m,len(cols)] with the given columns.
func fromColumns(cols [][]float64, m int) []float64 {
	n := len(cols)
	a := make([]float64, m*n)
	for j, col := range cols {
		for i, v := range col {
			a[i*n+j] = v
		}
	}
	return a
}
