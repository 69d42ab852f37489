//go:build cgo

package cpu

import (
	"fmt"
	"math"
	"testing"

	"lycoris/internal/kernels/kernelstest"
)

// TestSuite runs the suite that every backend passes, on each instruction set.
func TestSuite(t *testing.T) {
	for _, isa := range ISAs() {
		t.Run(isa, func(t *testing.T) {
			b, err := Open(Options{Threads: 2, ISA: isa})
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			kernelstest.Run(t, b, kernelstest.Bounds())
		})
	}
}

// result is an output of an op: what it should be, what it holds before (nil: not-a-number), and the error allowed, relative to the largest
// element of want or to floor if that is larger.
type result struct {
	name         string
	want, before []float32
	tol, floor   float64
}

// checkAll runs op on each backend with fresh outputs that lie before a page which can't be touched; it compares those of the first with
// what is wanted and the others' bits with the first's.
func checkAll(t *testing.T, what string, backends []*Backend, results []result, op func(b *Backend, out [][]float32)) {
	t.Helper()
	var first [][]float32
	for _, b := range backends {
		out := make([][]float32, len(results))
		for i, r := range results {
			out[i] = guarded(t, len(r.want))
			for j := range out[i] {
				out[i][j] = float32(math.NaN())
			}
			copy(out[i], r.before)
		}
		op(b, out)
		if first == nil {
			first = out
		}
		for i, r := range results {
			name := fmt.Sprintf("%s: %s", what, r.name)
			if b == backends[0] {
				nearFloor(t, name, out[i], r.want, r.tol, r.floor)
			} else {
				same(t, fmt.Sprintf("%s, %d threads", name, b.Threads()), first[i], out[i])
			}
		}
	}
}

// nearFloor is near with a least divisor, for outputs that may all be small. A tolerance of 0 asks for equal values.
func nearFloor(t *testing.T, what string, got, want []float32, tol, floor float64) {
	t.Helper()
	var worst float64
	at, largest := 0, floor
	for i, w := range want {
		largest = max(largest, math.Abs(float64(w)))
		if d := math.Abs(float64(got[i]) - float64(w)); !(d <= worst) {
			worst, at = d, i
		}
	}
	if !(worst <= tol*largest) {
		t.Errorf("%s: element %d is %g, want %g: off by %.2g of %g, allowed %.2g", what, at, got[at], want[at], worst/largest, largest, tol)
	}
}
