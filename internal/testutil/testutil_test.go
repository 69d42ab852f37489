package testutil

import (
	"math"
	"testing"
)

func TestMaxRel(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, c := range []struct {
		name      string
		got, want []float32
		floor     float64
		rel       float64
	}{
		{"equal", []float32{1, 2}, []float32{1, 2}, 0, 0},
		{"empty", nil, nil, 0, 0},
		{"error over the largest value", []float32{1.5, -4}, []float32{1, -4}, 0, 0.125},
		{"floor", []float32{0.5}, []float32{0}, 2, 0.25},
		{"lengths", []float32{1}, []float32{1, 2}, 0, math.Inf(1)},
		{"zeros wanted", []float32{1}, []float32{0}, 0, math.Inf(1)},
		{"NaN came", []float32{nan}, []float32{1}, 0, math.Inf(1)},
		{"NaN wanted and came", []float32{nan, 1}, []float32{nan, 1}, 0, 0},
		{"infinity came", []float32{inf}, []float32{1}, 0, math.Inf(1)},
	} {
		if got := MaxRelFloor(c.got, c.want, c.floor); got != c.rel {
			t.Errorf("%s: %v, want %v", c.name, got, c.rel)
		}
	}
}

// recorder counts failures instead of failing.
type recorder struct {
	testing.TB
	failures int
}

func (r *recorder) Helper()               {}
func (r *recorder) Errorf(string, ...any) { r.failures++ }

func TestCheckGrad(t *testing.T) {
	x := []float32{0.3, -1.2, 2}
	f := func() float64 {
		return math.Sin(float64(x[0])) * math.Exp(float64(x[1])) * float64(x[2]*x[2])
	}
	right := []float32{
		float32(math.Cos(0.3) * math.Exp(-1.2) * 4),
		float32(math.Sin(0.3) * math.Exp(-1.2) * 4),
		float32(math.Sin(0.3) * math.Exp(-1.2) * 4),
	}
	CheckGrad(t, f, x, right, 1.0/64, 1e-6)
	for i := range right {
		wrong := append([]float32(nil), right...)
		wrong[i] *= 1.001
		r := &recorder{TB: t}
		if CheckGrad(r, f, x, wrong, 1.0/64, 1e-6); r.failures != 1 {
			t.Errorf("an error of 0.1 %% in element %d: %d failures, want 1", i, r.failures)
		}
	}
}
