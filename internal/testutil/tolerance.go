// Package testutil holds what tests of several packages compare with: errors relative to the largest value, and gradients by differences.
package testutil

import (
	"math"
	"testing"
)

// MaxRel returns the largest absolute error of got over the largest absolute value of want: the measure of all tolerances in this program.
// It is 0 for equal slices and +Inf where lengths differ, where a value of got is not finite and not equal to want's, or where want is all
// zeros and got is not.
func MaxRel(got, want []float32) float64 { return MaxRelFloor(got, want, 0) }

// MaxRelFloor is [MaxRel] with a divisor of at least floor: the size that values have as a rule, for outputs so few that all of them may
// happen to lie near zero.
func MaxRelFloor(got, want []float32, floor float64) float64 {
	if len(got) != len(want) {
		return math.Inf(1)
	}
	var worst float64
	largest := floor
	for i, w := range want {
		largest = max(largest, math.Abs(float64(w)))
		if math.Float32bits(got[i]) == math.Float32bits(w) {
			continue
		}
		e := math.Abs(float64(got[i]) - float64(w))
		if math.IsNaN(e) {
			return math.Inf(1)
		}
		worst = max(worst, e)
	}
	if worst == 0 {
		return 0
	}
	return worst / largest
}

// NearRel fails t unless [MaxRel] of got and want is at most tol.
func NearRel(t testing.TB, what string, got, want []float32, tol float64) {
	t.Helper()
	if e := MaxRel(got, want); !(e <= tol) {
		t.Errorf("%s: error %.3g of the largest value, want at most %.3g", what, e, tol)
	}
}
