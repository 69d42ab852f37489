package linalg

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"
)

// SVD returns the thin decomposition a = u·diag(s)·v of a [m,n]: u [m,k], s in falling order, v [k,n], k = min(m,n).
func SVD(a []float64, m, n int) (u, s, v []float64) {
	k := min(m, n)
	if k == 0 {
		return nil, nil, nil
	}
	var svd mat.SVD
	if !svd.Factorize(mat.NewDense(m, n, a), mat.SVDThin) {
		return jacobi(a, m, n)
	}
	var left, right mat.Dense
	svd.UTo(&left)
	svd.VTo(&right)
	u, v = make([]float64, m*k), make([]float64, k*n)
	for j := range k {
		for i := range m {
			u[i*k+j] = left.At(i, j)
		}
		for i := range n {
			v[j*n+i] = right.At(i, j)
		}
	}
	return u, svd.Values(nil), v
}

// jacobi is SVD by one-sided Jacobi rotations (Golub and Van Loan, 8.6.3): slower than the implicit QR steps that SVD tries first, but it always converges.
func jacobi(a []float64, m, n int) (u, s, v []float64) {
	if m < n {
		v, s, u := jacobi(transposed(a, m, n), n, m)
		return transposed(u, m, m), s, transposed(v, n, m)
	}
	left, right := columnsOf(a, m, n), make([][]float64, n)
	for j := range right {
		right[j] = make([]float64, n)
		right[j][j] = 1
	}
	for rotated, sweep := true, 0; rotated && sweep < 60; sweep++ {
		rotated = false
		for p := range n {
			for q := p + 1; q < n; q++ {
				x, y, xy := dot(left[p], left[p]), dot(left[q], left[q]), dot(left[p], left[q])
				if math.Abs(xy) <= 1e-15*math.Sqrt(x*y) {
					continue
				}
				rotated = true
				zeta := (y - x) / (2 * xy)
				t := 1 / (math.Abs(zeta) + math.Sqrt(1+zeta*zeta))
				if zeta < 0 {
					t = -t
				}
				c := 1 / math.Sqrt(1+t*t)
				turn(left[p], left[q], c, c*t)
				turn(right[p], right[q], c, c*t)
			}
		}
	}
	order := make([]int, n)
	norms := make([]float64, n)
	for j := range order {
		order[j], norms[j] = j, scaleTo1(left[j])
	}
	slices.SortStableFunc(order, func(i, j int) int {
		switch {
		case norms[i] > norms[j]:
			return -1
		case norms[i] < norms[j]:
			return 1
		}
		return 0
	})
	u, s, v = make([]float64, m*n), make([]float64, n), make([]float64, n*n)
	for k, j := range order {
		s[k] = norms[j]
		for i, x := range left[j] {
			u[i*n+k] = x
		}
		copy(v[k*n:], right[j])
	}
	return u, s, v
}

// turn rotates the pair x, y by the angle of cosine c and sine s.
func turn(x, y []float64, c, s float64) {
	for i, a := range x {
		b := y[i]
		x[i], y[i] = c*a-s*b, s*a+c*b
	}
}
