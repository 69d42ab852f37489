package linalg

import (
	"math/rand/v2"
	"testing"
)

// The solution of a well-conditioned system is what it was made from; a zero system leaves x alone.
func TestSolveRidge(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	const n = 7
	b := newRows(n, 3*n)
	for _, row := range b {
		for j := range row {
			row[j] = r.NormFloat64()
		}
	}
	want, y := make([]float64, n), make([]float64, n)
	g := make([]float64, n*n)
	sym := b.gram()
	for i := range want {
		want[i] = r.NormFloat64()
	}
	for i := range n {
		for j := range n {
			g[i*n+j] = sym.At(i, j)
			y[i] += g[i*n+j] * want[j]
		}
	}
	x := make([]float64, n)
	SolveRidge(x, g, y, n, 1e-14)
	near(t, "solution", x, want, 1e-10)
	SolveRidge(x, make([]float64, n*n), y, n, 1e-8)
	near(t, "untouched", x, want, 1e-10)
}
