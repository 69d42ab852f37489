package kernelstest

import (
	"testing"

	"lycoris/internal/kernels"
	"lycoris/internal/kernels/ref"
)

// flawed is ref with a mistake in Scale.
type flawed struct {
	kernels.Backend
	scale func(y, x []float32, alpha float32)
}

func (f flawed) Scale(y, x []float32, alpha float32) {
	f.Backend.Scale(y, x, alpha)
	if len(y) > 0 {
		f.scale(y, x, alpha)
	}
}

// recorder counts failures instead of failing.
type recorder struct {
	testing.TB
	failures int
}

func (r *recorder) Helper()               {}
func (r *recorder) Error(...any)          { r.failures++ }
func (r *recorder) Errorf(string, ...any) { r.failures++ }

// TestSuiteSeesFlaws: each kind of mistake that a kernel can make fails the suite, and ref without one doesn't.
func TestSuiteSeesFlaws(t *testing.T) {
	calls := 0
	for _, c := range []struct {
		name  string
		wrong bool
		scale func(y, x []float32, alpha float32)
	}{
		{"none", false, func(y, x []float32, alpha float32) {}},
		{"an element is wrong in the last bit", true, func(y, x []float32, alpha float32) { y[len(y)-1] *= 1 + 0x1p-23 }},
		{"an element is left out", true, func(y, x []float32, alpha float32) { y[len(y)/2] = canary }},
		{"an input is changed", true, func(y, x []float32, alpha float32) { x[0]++ }},
		{"results depend on earlier calls", true, func(y, x []float32, alpha float32) {
			if calls++; calls%2 == 0 {
				y[0] = 0
			}
		}},
	} {
		r := &recorder{TB: t}
		elementwise(newSuite(r, flawed{ref.Open(), c.scale}, Tolerance{}))
		if (r.failures > 0) != c.wrong {
			t.Errorf("%s: %d failures", c.name, r.failures)
		}
	}

	// An overrun on either side: take sees it.
	for _, at := range []int{-1, 5} {
		r := &recorder{TB: t}
		s := newSuite(r, ref.Open(), Tolerance{})
		f := s.place(make([]float32, 5), 1)
		f.whole[guard+1+at] = 0
		if s.take("op", f); r.failures != 1 {
			t.Errorf("a write at element %d of 5: %d failures, want 1", at, r.failures)
		}
	}
}
