package linalg

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/mat"
)

// withSpectrum returns a random matrix [m,n] with the singular values, plus normal noise of deviation floor.
func withSpectrum(m, n int, values []float64, floor float64) []float32 {
	r := rand.New(rand.NewPCG(uint64(m), uint64(n)))
	left, right := newRows(len(values), m), newRows(len(values), n)
	for _, basis := range []rows{left, right} {
		for _, row := range basis {
			for j := range row {
				row[j] = r.NormFloat64()
			}
		}
		basis.orthonormalise()
	}
	a := make([]float32, m*n)
	for i := range m {
		for j := range n {
			sum := floor * r.NormFloat64()
			for k, s := range values {
				sum += s * left[k][i] * right[k][j]
			}
			a[i*n+j] = float32(sum)
		}
	}
	return a
}

func spectrum(n int, f func(j int) float64) []float64 {
	values := make([]float64, n)
	for j := range values {
		values[j] = f(j + 1)
	}
	return values
}

// exactRest returns ‖a‖² less the k largest squared singular values, by a full decomposition.
func exactRest(t *testing.T, a []float32, m, n, k int) float64 {
	full := mat.NewDense(m, n, nil)
	for i, x := range a {
		full.Set(i/n, i%n, float64(x))
	}
	var svd mat.SVD
	if !svd.Factorize(full, mat.SVDNone) {
		t.Fatal("gonum failed")
	}
	rest := 0.0
	for _, s := range svd.Values(nil)[k:] {
		rest += s * s
	}
	return rest
}

// distance returns ‖a − u·s·v‖² and the largest deviation of uᵀu from the unit matrix.
func distance(a []float32, m, n int, u, s, v []float64) (rest, skew float64) {
	k := len(s)
	for i := range m {
		for j := range n {
			d := float64(a[i*n+j])
			for p := range k {
				d -= u[i*k+p] * s[p] * v[p*n+j]
			}
			rest += d * d
		}
	}
	for p := range k {
		for q := range k {
			sum := 0.0
			for i := range m {
				sum += u[i*k+p] * u[i*k+q]
			}
			if p == q {
				sum--
			}
			skew = max(skew, math.Abs(sum))
		}
	}
	return rest, skew
}

// The error is within 1 % of the best possible for spectra that fall fast, slowly and not at all, and the rest is what is really missing.
func TestRandomSVD(t *testing.T) {
	for _, c := range []struct {
		name   string
		m, n   int
		values []float64
		floor  float64
		k      int
	}{
		{"0.9^j with a floor", 200, 200, spectrum(100, func(j int) float64 { return math.Pow(0.9, float64(j)) }), 0.002, 16},
		{"1/j", 200, 200, spectrum(200, func(j int) float64 { return 1 / float64(j) }), 0, 16},
		{"1/j wide", 120, 400, spectrum(120, func(j int) float64 { return 1 / float64(j) }), 0, 16},
		{"noise", 200, 160, nil, 1, 16},
		{"noise, one value", 100, 260, nil, 1, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := withSpectrum(c.m, c.n, c.values, c.floor)
			u, s, v, rest := RandomSVD(a, c.m, c.n, c.k, 1)
			best := exactRest(t, a, c.m, c.n, c.k)
			got, skew := distance(a, c.m, c.n, u, s, v)
			if ratio := math.Sqrt(got / best); ratio > 1.01 || ratio < 1-1e-6 {
				t.Errorf("error is %.5f of the best", ratio)
			}
			if math.Abs(rest-got) > 1e-6*sumSquares(a) {
				t.Errorf("rest is %v, really missing is %v", rest, got)
			}
			if skew > 1e-6 {
				t.Errorf("left vectors deviate from orthonormal by %v", skew)
			}
		})
	}
}

// A matrix of low rank comes back whole, also where more triples are asked for than it has.
func TestRandomSVDLowRank(t *testing.T) {
	for _, c := range []struct{ m, n, rank, k int }{{90, 70, 5, 5}, {70, 90, 5, 16}, {60, 60, 1, 4}, {12, 200, 12, 16}, {3, 40, 2, 2}, {40, 3, 3, 8}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			a := random(c.m, c.n, c.rank)
			u, s, v, rest := RandomSVD(a, c.m, c.n, c.k, 7)
			got, _ := distance(a, c.m, c.n, u, s, v)
			if limit := 1e-12 * sumSquares(a); got > limit || len(s) != min(c.k, c.m, c.n) {
				t.Errorf("%d values, missing is %v of %v", len(s), got, sumSquares(a))
			}
			if rest > 0x1p-23*sumSquares(a) { // products are rounded to float32: twice that of each square
				t.Errorf("rest is %v of %v", rest, sumSquares(a))
			}
		})
	}
}

func TestRandomSVDOfNothing(t *testing.T) {
	if u, s, v, rest := RandomSVD(make([]float32, 12), 3, 4, 2, 1); u != nil || s != nil || v != nil || rest != 0 {
		t.Errorf("a zero matrix gives %v %v %v %v", u, s, v, rest)
	}
}

// All triples: values of a full decomposition, and the product is the matrix.
func TestGramSVD(t *testing.T) {
	for _, c := range []struct{ m, n, rank int }{{8, 12, 0}, {12, 8, 0}, {30, 30, 0}, {20, 50, 4}, {1, 9, 0}, {9, 1, 0}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			a := random(c.m, c.n, c.rank)
			u, s, v := GramSVD(a, c.m, c.n)
			if len(s) != min(c.m, c.n) {
				t.Fatalf("%d values", len(s))
			}
			got, _ := distance(a, c.m, c.n, u, s, v)
			if got > 1e-13*sumSquares(a) {
				t.Errorf("missing is %v of %v", got, sumSquares(a))
			}
			for k := 1; k < len(s); k++ {
				if s[k] > s[k-1] {
					t.Errorf("values don't fall: %v", s)
				}
			}
			if best := exactRest(t, a, c.m, c.n, 1); math.Abs(sumSquares(a)-s[0]*s[0]-best) > 1e-10*sumSquares(a) {
				t.Errorf("largest value is %v", s[0])
			}
		})
	}
}
