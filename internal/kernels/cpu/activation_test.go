//go:build cgo

package cpu

import (
	"fmt"
	"math"
	"testing"

	"lycoris/internal/kernels"
)

// Runs of work have 8192 elements: the lengths lie at their borders and those of vectors.
var runLengths = []int{1, 15, 16, 17, 33, 8191, 8192, 8193, 20000}

func TestActivate(t *testing.T) {
	forEach(t, Options{}, func(t *testing.T, backends []*Backend) {
		for _, f := range []kernels.Activation{kernels.SiLU, kernels.GELU, kernels.QuickGELU} {
			for _, n := range runLengths {
				x, dy := values(t, 1, n), values(t, 2, n)
				for i := range x {
					x[i] *= 3
				}
				y, dx := make([]float32, n), make([]float32, n)
				reference.Activate(y, x, f)
				reference.ActivateGrad(dx, dy, x, f)
				name := fmt.Sprintf("%d n=%d", f, n)
				checkAll(t, "Activate "+name, backends, []result{{"y", y, x, 2e-7, 1}}, func(b *Backend, out [][]float32) { b.Activate(out[0], out[0], f) })
				checkAll(t, "ActivateGrad "+name, backends, []result{{"dx", dx, dy, 2e-7, 1}}, func(b *Backend, out [][]float32) {
					b.ActivateGrad(out[0], out[0], x, f)
				})
			}
		}
	})
}

// Values and slopes at 40000 places from -20 to 20, each by itself, relative to it or to 1 if that is larger: 2e-7 for values, 2.5e-7 for slopes, which
// reach 1.1, where two units in the last place are 2.4e-7. And the ends of the line: no overflow makes a not-a-number.
func TestActivateSweep(t *testing.T) {
	const n = 40000
	x, one := guarded(t, n), guarded(t, n)
	for i := range x {
		x[i], one[i] = float32(i-n/2)*0.001, 1
	}
	copy(x[n-8:], []float32{-1e30, 1e30, -3e38, 3e38, -88, 88, -104, float32(math.Copysign(0, -1))})
	forEach(t, Options{}, func(t *testing.T, backends []*Backend) {
		for _, f := range []kernels.Activation{kernels.SiLU, kernels.GELU, kernels.QuickGELU} {
			want, got := make([]float32, n), guarded(t, n)
			for _, op := range []struct {
				what string
				tol  float64
				run  func(b kernels.Backend, y []float32)
			}{
				{"value", 2e-7, func(b kernels.Backend, y []float32) { b.Activate(y, x, f) }},
				{"slope", 2.5e-7, func(b kernels.Backend, y []float32) { b.ActivateGrad(y, one, x, f) }},
			} {
				op.run(reference, want)
				op.run(backends[0], got)
				for i := range x {
					if d := math.Abs(float64(got[i]) - float64(want[i])); !(d <= op.tol*max(1, math.Abs(float64(want[i])))) {
						t.Fatalf("activation %d at %g: %s %g, want %g", f, x[i], op.what, got[i], want[i])
					}
				}
			}
		}
	})
}

func TestGEGLU(t *testing.T) {
	forEach(t, Options{}, func(t *testing.T, backends []*Backend) {
		for _, s := range []struct{ m, d int }{{1, 1}, {3, 15}, {7, 33}, {9, 4095}, {600, 17}, {20, 1280}} {
			x, dy := values(t, 1, 2*s.m*s.d), values(t, 2, s.m*s.d)
			y, dx := make([]float32, len(dy)), make([]float32, len(x))
			reference.GEGLU(y, x, s.m, s.d)
			reference.GEGLUGrad(dx, dy, x, s.m, s.d)
			name := fmt.Sprintf("%+v", s)
			checkAll(t, "GEGLU "+name, backends, []result{{"y", y, nil, 2e-7, 1}}, func(b *Backend, out [][]float32) { b.GEGLU(out[0], x, s.m, s.d) })
			checkAll(t, "GEGLUGrad "+name, backends, []result{{"dx", dx, nil, 2e-7, 1}}, func(b *Backend, out [][]float32) { b.GEGLUGrad(out[0], dy, x, s.m, s.d) })
		}
	})
}
