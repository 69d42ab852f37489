package resize

import (
	"math"
	"testing"

	"lycoris/internal/tensor"
)

// Ranks of hand-made spectra.
func TestRules(t *testing.T) {
	steps := []float64{8, 4, 2, 1, 0} // norm √85, sum 15
	for _, c := range []struct {
		rule  Rule
		s     []float64
		value float64
		want  int
	}{
		{Fixed, steps, 0, 5},
		{Ratio, steps, 1, 1}, {Ratio, steps, 2, 2}, {Ratio, steps, 1.999, 1}, {Ratio, steps, 4, 3}, {Ratio, steps, 1e6, 4},
		{Frobenius, steps, 0, 1}, {Frobenius, steps, math.Sqrt(64. / 85), 1}, {Frobenius, steps, math.Sqrt(64.01 / 85), 2}, {Frobenius, steps, math.Sqrt(83.9 / 85), 3}, {Frobenius, steps, 1, 4},
		{Cumulative, steps, 8. / 15, 1}, {Cumulative, steps, 12. / 15, 2}, {Cumulative, steps, 12.01 / 15, 3}, {Cumulative, steps, 1, 4},
		{MaxError, steps, 1, 1}, {MaxError, steps, math.Sqrt(5.01 / 85), 2}, {MaxError, steps, math.Sqrt(4.99 / 85), 3}, {MaxError, steps, 0, 4},
		{Ratio, []float64{3, 3, 3}, 1, 3}, {Frobenius, []float64{3, 3, 3}, 0.7, 2}, {Cumulative, []float64{3, 3, 3}, 0.7, 3},
		{Ratio, []float64{0, 0}, 2, 2}, {Frobenius, []float64{0, 0}, 0.9, 1}, {Cumulative, []float64{0, 0}, 0.9, 1}, {MaxError, []float64{0, 0}, 0.1, 1},
		{Ratio, []float64{5}, 2, 1}, {Fixed, nil, 0, 1},
	} {
		if got := c.rule.rank(c.s, c.value); got != c.want {
			t.Errorf("%q %g of %v keeps %d, want %d", c.rule, c.value, c.s, got, c.want)
		}
	}
}

// One rounding: a value just above the middle of two halves goes up, though as float32 it would lie on the middle and go to the even one.
func TestRounded(t *testing.T) {
	half, bf := math.Ldexp(1, -11), math.Ldexp(1, -8)
	for _, c := range []struct {
		d       tensor.DType
		x, want float64
	}{
		{tensor.F16, 1 + half + math.Ldexp(1, -40), 1 + 2*half}, {tensor.F16, 1 + half, 1}, {tensor.F16, 1 + half - math.Ldexp(1, -40), 1}, {tensor.F16, -1 - half - math.Ldexp(1, -40), -1 - 2*half},
		{tensor.BF16, 1 + bf + math.Ldexp(1, -40), 1 + 2*bf}, {tensor.BF16, 1 + 3*bf - math.Ldexp(1, -40), 1 + 2*bf}, {tensor.BF16, 1 + 3*bf, 1 + 4*bf},
		{tensor.F16, 65504, 65504}, {tensor.F16, 0, 0}, {tensor.F16, math.Ldexp(1, -25) + math.Ldexp(1, -60), math.Ldexp(1, -24)}, {tensor.F16, math.Ldexp(1, -25), 0},
		{tensor.F32, 1 + math.Ldexp(1, -24), 1}, {tensor.F64, 1 + math.Ldexp(1, -50), 1 + math.Ldexp(1, -50)}, {tensor.F16, 1e300, math.Inf(1)},
	} {
		if got := values(rounded(c.d, []int{1}, []float64{c.x}))[0]; got != c.want {
			t.Errorf("%v as %s is %v, want %v", c.x, c.d, got, c.want)
		}
	}
}
