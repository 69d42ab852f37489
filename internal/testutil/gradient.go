package testutil

import (
	"math"
	"testing"
)

// CheckGrad compares dx with the slope of f along each element of x and fails t where the largest error over the largest slope exceeds tol.
//
// f reads x, which is changed in place and restored. The slope is by central differences at step and 2·step, combined so that the error is of
// order step⁴ (Richardson), each divided by the distance that float32 really made of it. Where f rounds its values to float32, a step near
// 1/32 leaves about 1e-5. f must have no kink within 2·step of x.
func CheckGrad(t testing.TB, f func() float64, x, dx []float32, step, tol float64) {
	t.Helper()
	if len(dx) != len(x) {
		t.Fatalf("gradient of %d elements for %d values", len(dx), len(x))
	}
	worst, at, largest := 0.0, 0, 0.0
	slopes := make([]float64, len(x))
	for i, keep := range x {
		difference := func(step float64) float64 {
			low, high := float32(float64(keep)-step), float32(float64(keep)+step)
			x[i] = low
			below := f()
			x[i] = high
			above := f()
			x[i] = keep
			return (above - below) / (float64(high) - float64(low))
		}
		slopes[i] = (4*difference(step) - difference(2*step)) / 3
		largest = max(largest, math.Abs(slopes[i]), math.Abs(float64(dx[i])))
		if e := math.Abs(slopes[i] - float64(dx[i])); !(e <= worst) {
			worst, at = e, i
		}
	}
	if !(worst <= tol*largest) {
		t.Errorf("gradient of element %d is %v, differences of %v give %v: error %.3g of the largest, want at most %.3g", at, dx[at], step, slopes[at], worst/largest, tol)
	}
}
