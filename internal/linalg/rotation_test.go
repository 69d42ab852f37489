package linalg

import (
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/mat"
)

// skew returns a random skew matrix [b,b] of the size.
func skew(b int, size float64) []float64 {
	r := rand.New(rand.NewPCG(3, uint64(b)))
	q := make([]float64, b*b)
	for i := range b {
		for j := range i {
			q[i*b+j] = size * r.NormFloat64()
			q[j*b+i] = -q[i*b+j]
		}
	}
	return q
}

func near(t *testing.T, what string, got, want []float64, tolerance float64) {
	t.Helper()
	for i := range want {
		if !(math.Abs(got[i]-want[i]) <= tolerance) {
			t.Errorf("%s: element %d is %v, want %v", what, i, got[i], want[i])
			return
		}
	}
}

func TestCayleyThereAndBack(t *testing.T) {
	for _, b := range []int{1, 2, 3, 8, 17} {
		for _, size := range []float64{0, 0.01, 0.3, 2} {
			q := skew(b, size)
			r := Cayley(q, b)
			var one mat.Dense
			m := mat.NewDense(b, b, r)
			one.Mul(m.T(), m)
			eye := make([]float64, b*b)
			for i := range b {
				eye[i*b+i] = 1
			}
			near(t, "rᵀr", one.RawMatrix().Data, eye, 1e-12)
			back, ok := InverseCayley(r, b)
			if !ok {
				t.Fatalf("b %d, size %v: no inverse", b, size)
			}
			near(t, "back", back, q, 1e-9)
		}
	}
}

func TestInverseCayleyOfHalfATurn(t *testing.T) {
	if _, ok := InverseCayley([]float64{-1, 0, 0, -1}, 2); ok {
		t.Error("half a turn has no Cayley form")
	}
}

// The rotation of a turned matrix is found; of a reflected one, the best rotation.
func TestRotation(t *testing.T) {
	const b, n = 6, 40
	g := rand.New(rand.NewPCG(1, 2))
	a := mat.NewDense(b, n, nil)
	for i := range b {
		for j := range n {
			a.Set(i, j, g.NormFloat64())
		}
	}
	want := Cayley(skew(b, 0.4), b)
	var turned, p mat.Dense
	turned.Mul(mat.NewDense(b, b, want), a)
	p.Mul(&turned, a.T())
	near(t, "rotation", Rotation(p.RawMatrix().Data, b), want, 1e-12)

	flip := mat.NewDense(b, b, nil)
	for i := range b {
		flip.Set(i, i, 1)
	}
	flip.Set(0, 0, -1)
	turned.Mul(flip, a)
	p.Mul(&turned, a.T())
	if d := mat.Det(mat.NewDense(b, b, Rotation(p.RawMatrix().Data, b))); math.Abs(d-1) > 1e-12 {
		t.Errorf("the determinant is %v, want 1", d)
	}
}
