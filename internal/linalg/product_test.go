package linalg

import (
	"fmt"
	"math"
	"testing"
)

// wide returns random as float64.
func wide(m, n, rank int) []float64 {
	var all []float64
	for _, x := range random(m, n, rank) {
		all = append(all, float64(x))
	}
	return all
}

// multiply returns a [m,k] times b [k,n].
func multiply(a, b []float64, m, k, n int) []float64 {
	c := make([]float64, m*n)
	for i := range m {
		for p := range k {
			axpy(c[i*n:(i+1)*n], a[i*k+p], b[p*n:(p+1)*n])
		}
	}
	return c
}

// far returns the largest difference of two arrays.
func far(t *testing.T, got, want []float64) float64 {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d elements, want %d", len(got), len(want))
	}
	worst := 0.0
	for i, x := range got {
		worst = max(worst, math.Abs(x-want[i]))
	}
	return worst
}

// wantOrthonormal wants the k columns of q [m,k] to be so.
func wantOrthonormal(t *testing.T, what string, q []float64, m, k int) {
	t.Helper()
	unit := make([]float64, k*k)
	for i := range k {
		unit[i*k+i] = 1
	}
	if d := far(t, multiply(transposed(q, m, k), q, k, m, k), unit); d > 1e-13 {
		t.Errorf("%s: columns are off from orthonormal by %g", what, d)
	}
}

// shapes are tall, square, wide, thin and deficient matrices.
var shapes = []struct{ m, n, rank int }{{1, 1, 0}, {5, 1, 0}, {1, 5, 0}, {40, 7, 0}, {7, 40, 0}, {16, 16, 0}, {30, 20, 4}, {20, 30, 4}, {6, 6, 1}}

func TestQR(t *testing.T) {
	zero := make([]float64, 12)
	q, r := QR(zero, 4, 3)
	wantOrthonormal(t, "zeros", q, 4, 3)
	if far(t, r, make([]float64, 9)) != 0 {
		t.Errorf("zeros: r = %v", r)
	}
	for _, c := range shapes {
		a := wide(c.m, c.n, c.rank)
		before := append([]float64(nil), a...)
		q, r := QR(a, c.m, c.n)
		k := min(c.m, c.n)
		wantOrthonormal(t, fmt.Sprint(c), q, c.m, k)
		if d := far(t, multiply(q, r, c.m, k, c.n), a); d > 1e-13 {
			t.Errorf("%v: q·r is off by %g", c, d)
		}
		for i := range k {
			for j := range i {
				if r[i*c.n+j] != 0 {
					t.Errorf("%v: r[%d,%d] = %g below the diagonal", c, i, j, r[i*c.n+j])
				}
			}
		}
		if far(t, a, before) != 0 {
			t.Errorf("%v: the argument was changed", c)
		}
	}
}

// Both methods give a decomposition of the matrix, with the same values.
func TestSVD(t *testing.T) {
	for _, c := range shapes {
		a, k := wide(c.m, c.n, c.rank), min(c.m, c.n)
		u, s, v := SVD(a, c.m, c.n)
		wantOrthonormal(t, fmt.Sprint(c, " u"), u, c.m, k)
		wantOrthonormal(t, fmt.Sprint(c, " v"), transposed(v, k, c.n), c.n, k)
		_, other, _ := jacobi(a, c.m, c.n)
		if d := far(t, other, s); d > 1e-13*max(s[0], 1) {
			t.Errorf("%v: Jacobi's values are off by %g", c, d)
		}
		for name, f := range map[string]func([]float64, int, int) (_, _, _ []float64){"SVD": SVD, "Jacobi": jacobi} {
			u, s, v := f(a, c.m, c.n)
			if len(s) != k {
				t.Fatalf("%v: %s: %d values, want %d", c, name, len(s), k)
			}
			for i := range c.m {
				for j := range k {
					u[i*k+j] *= s[j]
				}
			}
			if d := far(t, multiply(u, v, c.m, k, c.n), a); d > 1e-13*max(s[0], 1) {
				t.Errorf("%v: %s is off by %g", c, name, d)
			}
			for j := 1; j < k; j++ {
				if s[j] > s[j-1] || s[j] < 0 {
					t.Errorf("%v: %s: values %v don't fall", c, name, s)
				}
			}
		}
	}
	if u, s, v := SVD(nil, 0, 5); u != nil || s != nil || v != nil {
		t.Errorf("an empty matrix has %v %v %v", u, s, v)
	}
}

// The decomposition of a product is that of the matrix it makes, also where its inner length is above the outer ones.
func TestProductSVD(t *testing.T) {
	for _, c := range []struct{ o, r, n, k int }{{30, 4, 50, 2}, {30, 4, 50, 0}, {50, 6, 20, 9}, {5, 8, 30, 3}, {30, 8, 5, 0}, {3, 8, 2, 0}, {1, 1, 1, 1}, {40, 1, 40, 1}} {
		up, down := wide(c.o, c.r, 0), wide(c.r, c.n, 0)
		a := multiply(up, down, c.o, c.r, c.n)
		_, want, _ := SVD(a, c.o, c.n)
		u, s, v := ProductSVD(up, down, c.o, c.r, c.n, c.k)
		k := min(c.o, c.r, c.n)
		if c.k > 0 {
			k = min(k, c.k)
		}
		if d := far(t, s, want[:k]); d > 1e-13*want[0] {
			t.Errorf("%v: values are off by %g", c, d)
		}
		wantOrthonormal(t, fmt.Sprint(c, " u"), u, c.o, k)
		wantOrthonormal(t, fmt.Sprint(c, " v"), transposed(v, k, c.n), c.n, k)
		for i := range c.o { // what is left is the tail of the values: the optimum (Eckart and Young)
			for j := range k {
				u[i*k+j] *= s[j]
			}
		}
		kept := multiply(u, v, c.o, k, c.n)
		var left, tail float64
		for i := range a {
			left += (a[i] - kept[i]) * (a[i] - kept[i])
		}
		for _, x := range want[k:min(c.o, c.r, c.n)] {
			tail += x * x
		}
		if math.Abs(math.Sqrt(left)-math.Sqrt(tail)) > 1e-12*want[0] {
			t.Errorf("%v: the error is %g, the best is %g", c, math.Sqrt(left), math.Sqrt(tail))
		}
	}
}

func BenchmarkProductSVD(b *testing.B) {
	up, down := wide(1280, 16, 0), wide(16, 11520, 0)
	for b.Loop() {
		ProductSVD(up, down, 1280, 16, 11520, 8)
	}
}
