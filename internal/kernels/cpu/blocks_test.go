//go:build cgo

package cpu

import (
	"fmt"
	"math"
	"testing"
)

func TestBlocks(t *testing.T) {
	forEach(t, Options{}, func(t *testing.T, backends []*Backend) {
		// Columns over the borders of row blocks (128) and strips (4096); short blocks; long ones (512 and more) over the border of a piece (8192).
		for _, z := range []struct{ outer, n, inner int }{
			{1, 1, 1}, {127, 3, 1}, {128, 17, 1}, {129, 64, 1}, {300, 33, 1}, {3, 4097, 1}, {1000, 1, 1},
			{5, 7, 3}, {40, 3, 17}, {700, 2, 31}, {17, 3, 511}, {2, 3, 512}, {1, 2, 8192}, {1, 2, 8193}, {3, 1, 20001},
		} {
			x, c, s := values(t, 1, z.outer*z.n*z.inner), values(t, 2, z.outer*z.n*z.inner), values(t, 3, z.n)
			name := fmt.Sprintf("%+v", z)
			want := make([]float32, len(x))
			reference.MulBlocks(want, x, s, z.inner)
			checkAll(t, "MulBlocks "+name, backends, []result{{"y", want, x, 0, 0}}, func(b *Backend, out [][]float32) { b.MulBlocks(out[0], out[0], s, z.inner) })
			reference.AddBlocks(want, x, s, z.inner)
			checkAll(t, "AddBlocks "+name, backends, []result{{"y", want, nil, 0, 0}}, func(b *Backend, out [][]float32) { b.AddBlocks(out[0], x, s, z.inner) })
			sum, floor := make([]float32, z.n), math.Sqrt(float64(z.outer*z.inner))
			for _, c := range [][]float32{nil, c} {
				reference.SumBlocks(sum, x, c, z.inner)
				checkAll(t, fmt.Sprintf("SumBlocks b=%v %s", c != nil, name), backends, []result{{"s", sum, nil, 1e-6, floor}}, func(b *Backend, out [][]float32) {
					b.SumBlocks(out[0], x, c, z.inner)
				})
			}
		}
	})
}

func TestSquaredError(t *testing.T) {
	forEach(t, Options{}, func(t *testing.T, backends []*Backend) {
		for _, z := range []struct{ n, per int }{{1, 1}, {3, 17}, {2, 8191}, {2, 8192}, {3, 8193}, {1, 40000}, {300, 5}} {
			pred, target, dloss := values(t, 1, z.n*z.per), values(t, 2, z.n*z.per), values(t, 3, z.n)
			loss, dpred := make([]float32, z.n), make([]float32, len(pred))
			reference.SquaredError(loss, pred, target, z.n)
			reference.SquaredErrorGrad(dpred, dloss, pred, target, z.n)
			name := fmt.Sprintf("%+v", z)
			checkAll(t, "SquaredError "+name, backends, []result{{"loss", loss, nil, 1.2e-7, 0}}, func(b *Backend, out [][]float32) {
				b.SquaredError(out[0], pred, target, z.n)
			})
			checkAll(t, "SquaredErrorGrad "+name, backends, []result{{"dpred", dpred, nil, 4e-7, 0}}, func(b *Backend, out [][]float32) {
				b.SquaredErrorGrad(out[0], dloss, pred, target, z.n)
			})
		}
	})
}

func TestSumSquares(t *testing.T) {
	forEach(t, Options{}, func(t *testing.T, backends []*Backend) {
		for _, n := range []int{0, 1, 7, 8193, 100000} {
			x := values(t, 1, n)
			want := reference.SumSquares(x)
			got := backends[0].SumSquares(x)
			if !(math.Abs(got-want) <= 1e-13*want) {
				t.Errorf("SumSquares n=%d: %.17g, want %.17g", n, got, want)
			}
			for _, b := range backends[1:] {
				if other := b.SumSquares(x); other != got {
					t.Errorf("SumSquares n=%d: %.17g with one thread, %.17g with %d", n, got, other, b.Threads())
				}
			}
		}
		// Float32 could not hold the square of the first, nor the sum of the others beside it.
		x := guarded(t, 50001)
		for i := range x {
			x[i] = 1
		}
		x[0] = 1e25
		if got, want := backends[1].SumSquares(x), float64(float32(1e25))*float64(float32(1e25))+50000; got != want {
			t.Errorf("SumSquares = %g, want %g", got, want)
		}
	})
}
