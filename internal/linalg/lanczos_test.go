package linalg

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/mat"
)

// random returns a normal matrix [m,n]; with rank > 0, one of that rank with falling singular values.
func random(m, n, rank int) []float32 {
	r := rand.New(rand.NewPCG(uint64(m), uint64(n)))
	a := make([]float32, m*n)
	if rank == 0 {
		for i := range a {
			a[i] = float32(r.NormFloat64())
		}
		return a
	}
	for k := range rank {
		u, v := make([]float64, m), make([]float64, n)
		for i := range u {
			u[i] = r.NormFloat64()
		}
		for j := range v {
			v[j] = r.NormFloat64()
		}
		for i := range u {
			for j := range v {
				a[i*n+j] += float32(math.Pow(0.5, float64(k)) * u[i] * v[j])
			}
		}
	}
	return a
}

// The triples are those of a full decomposition: values, and the best approximation of that rank, which is free of the vectors' signs.
func TestTopSVD(t *testing.T) {
	for _, c := range []struct{ m, n, rank, r int }{{8, 12, 0, 4}, {12, 8, 0, 8}, {40, 40, 0, 3}, {120, 64, 0, 16}, {64, 120, 0, 16}, {50, 60, 5, 5}, {50, 60, 3, 8}, {9, 1, 0, 4}, {1, 9, 0, 2}, {6, 6, 0, 9}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			a := random(c.m, c.n, c.rank)
			full := mat.NewDense(c.m, c.n, nil)
			for i, x := range a {
				full.Set(i/c.n, i%c.n, float64(x))
			}
			var svd mat.SVD
			if !svd.Factorize(full, mat.SVDThin) {
				t.Fatal("gonum failed")
			}
			want := svd.Values(nil)
			var wu, wv mat.Dense
			svd.UTo(&wu)
			svd.VTo(&wv)
			u, s, v := TopSVD(a, c.m, c.n, c.r)
			r := min(c.r, c.m, c.n)
			if c.rank > 0 && len(s) < r && len(s) >= min(c.rank, r) {
				r = len(s)
			}
			if len(s) != r || len(u) != c.m*r || len(v) != r*c.n {
				t.Fatalf("%d values, %d and %d elements", len(s), len(u), len(v))
			}
			for k := range r {
				if math.Abs(s[k]-want[k]) > 1e-8*want[0] {
					t.Errorf("value %d is %v, want %v", k, s[k], want[k])
				}
			}
			for i := range c.m {
				for j := range c.n {
					var got, best float64
					for k := range r {
						got += u[i*r+k] * s[k] * v[k*c.n+j]
						best += wu.At(i, k) * want[k] * wv.At(j, k)
					}
					if math.Abs(got-best) > 1e-7*want[0] {
						t.Fatalf("element %d %d of the approximation is %v, want %v", i, j, got, best)
					}
				}
			}
		})
	}
}

func BenchmarkTopSVD(b *testing.B) {
	a := random(1280, 1280, 0)
	for b.Loop() {
		TopSVD(a, 1280, 1280, 16)
	}
}
