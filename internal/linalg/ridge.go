package linalg

import "math"

// SolveRidge writes the solution x of (g + λI)·x = y to x [n], g [n,n] symmetric and not negative, λ = share of the mean of its diagonal; g is overwritten. Where g
// is zero, x stays. Method: Cholesky.
func SolveRidge(x, g, y []float64, n int, share float64) {
	trace := 0.0
	for i := range n {
		trace += g[i*n+i]
	}
	lambda := share * trace / float64(n)
	if !(lambda > 0) {
		return
	}
	for i := range n {
		for j := range i + 1 {
			sum := g[i*n+j]
			if i == j {
				sum += lambda
			}
			for k := range j {
				sum -= g[i*n+k] * g[j*n+k]
			}
			if i == j {
				g[i*n+i] = math.Sqrt(max(sum, lambda*1e-6))
			} else {
				g[i*n+j] = sum / g[j*n+j]
			}
		}
	}
	for i := range n {
		sum := y[i]
		for k := range i {
			sum -= g[i*n+k] * x[k]
		}
		x[i] = sum / g[i*n+i]
	}
	for i := n - 1; i >= 0; i-- {
		sum := x[i]
		for k := i + 1; k < n; k++ {
			sum -= g[k*n+i] * x[k]
		}
		x[i] = sum / g[i*n+i]
	}
}
