//go:build cgo

package cpu

import (
	"fmt"
	"math"
	"testing"

	"lycoris/internal/tensor"
)

func TestCopyColumns(t *testing.T) {
	forEach(t, Options{}, func(t *testing.T, backends []*Backend) {
		for _, z := range []struct{ dstLD, dstOff, srcLD, srcOff, rows, cols int }{
			{1, 0, 1, 0, 1, 1}, {70, 33, 40, 7, 900, 33}, {16, 0, 16, 0, 1024, 16}, {16, 0, 16, 0, 1025, 16}, {40000, 1, 40001, 0, 2, 39999},
		} {
			// The last row ends with its range.
			dst, src := values(t, 1, (z.rows-1)*z.dstLD+z.dstOff+z.cols), values(t, 2, (z.rows-1)*z.srcLD+z.srcOff+z.cols)
			want := append([]float32(nil), dst...)
			reference.CopyColumns(want, z.dstLD, z.dstOff, src, z.srcLD, z.srcOff, z.rows, z.cols)
			checkAll(t, fmt.Sprintf("CopyColumns %+v", z), backends, []result{{"dst", want, dst, 0, 0}}, func(b *Backend, out [][]float32) {
				b.CopyColumns(out[0], z.dstLD, z.dstOff, src, z.srcLD, z.srcOff, z.rows, z.cols)
			})
		}
	})
}

// Squares of up to 64 by 64 are transposed, vectors of 4 to 16 at a time; rows are copied where the last axis stays; axes that stay together are joined.
func TestPermute(t *testing.T) {
	forEach(t, Options{}, func(t *testing.T, backends []*Backend) {
		for _, z := range []struct{ shape, perm []int }{
			{[]int{}, []int{}}, {[]int{1, 1}, []int{1, 0}}, {[]int{63, 65}, []int{1, 0}}, {[]int{64, 128}, []int{1, 0}}, {[]int{130, 3}, []int{1, 0}},
			{[]int{2, 4, 16, 24}, []int{0, 2, 3, 1}}, {[]int{2, 16, 24, 4}, []int{0, 3, 1, 2}}, {[]int{3, 70, 9, 66}, []int{0, 3, 2, 1}},
			{[]int{5, 6, 7}, []int{1, 0, 2}}, {[]int{40, 33, 3, 3}, []int{0, 2, 3, 1}}, {[]int{40, 33, 3, 3}, []int{1, 0, 3, 2}},
			{[]int{2, 3, 4, 5, 6, 7}, []int{5, 3, 1, 0, 2, 4}}, {[]int{2, 3, 4, 5, 6, 7}, []int{0, 1, 2, 3, 4, 5}}, {[]int{2, 1, 70, 1, 66}, []int{4, 3, 2, 1, 0}},
		} {
			x := values(t, 1, tensor.Elems(z.shape))
			want := make([]float32, len(x))
			reference.Permute(want, x, z.shape, z.perm)
			checkAll(t, fmt.Sprintf("Permute %v %v", z.shape, z.perm), backends, []result{{"y", want, nil, 0, 0}}, func(b *Backend, out [][]float32) {
				b.Permute(out[0], x, z.shape, z.perm)
			})
		}
	})
}

func TestRowsByIndex(t *testing.T) {
	forEach(t, Options{}, func(t *testing.T, backends []*Backend) {
		for _, z := range []struct{ rows, picks, d int }{{1, 1, 1}, {7, 300, 63}, {50, 77, 768}, {9, 0, 65}} {
			index := make([]int32, z.picks)
			for i := range index {
				index[i] = int32(i * i % z.rows)
			}
			table, picked := values(t, 1, z.rows*z.d), values(t, 2, z.picks*z.d)
			want, sums := make([]float32, len(picked)), make([]float32, len(table))
			reference.GatherRows(want, table, index, z.d)
			reference.ScatterRows(sums, picked, index, z.d)
			name := fmt.Sprintf("%+v", z)
			checkAll(t, "GatherRows "+name, backends, []result{{"y", want, nil, 0, 0}}, func(b *Backend, out [][]float32) { b.GatherRows(out[0], table, index, z.d) })
			checkAll(t, "ScatterRows "+name, backends, []result{{"y", sums, nil, 0, 0}}, func(b *Backend, out [][]float32) { b.ScatterRows(out[0], picked, index, z.d) })
		}
	})
}

func TestUpsample(t *testing.T) {
	forEach(t, Options{}, func(t *testing.T, backends []*Backend) {
		for _, z := range []struct{ n, h, w, c int }{{1, 1, 1, 1}, {2, 3, 5, 17}, {1, 7, 33, 16}, {1, 16, 16, 320}} {
			small, large := values(t, 1, z.n*z.h*z.w*z.c), values(t, 2, 4*z.n*z.h*z.w*z.c)
			y, dx := make([]float32, len(large)), make([]float32, len(small))
			reference.Upsample(y, small, z.n, z.h, z.w, z.c)
			reference.UpsampleGrad(dx, large, z.n, z.h, z.w, z.c)
			name := fmt.Sprintf("%+v", z)
			checkAll(t, "Upsample "+name, backends, []result{{"y", y, nil, 0, 0}}, func(b *Backend, out [][]float32) { b.Upsample(out[0], small, z.n, z.h, z.w, z.c) })
			checkAll(t, "UpsampleGrad "+name, backends, []result{{"dx", dx, nil, 2.4e-7, 1}}, func(b *Backend, out [][]float32) {
				b.UpsampleGrad(out[0], large, z.n, z.h, z.w, z.c)
			})
		}
	})
}

func TestDropout(t *testing.T) {
	forEach(t, Options{}, func(t *testing.T, backends []*Backend) {
		seed := []float32{math.Float32frombits(0xdeadbeef), math.Float32frombits(0x7fc00001), 1}
		for _, n := range runLengths {
			for _, p := range []float32{0, 1e-6, 0.3, 0.999} {
				x := values(t, 1, n)
				want := make([]float32, n)
				for _, salt := range []uint64{0, 1<<63 + 5} {
					reference.Dropout(want, x, seed, salt, p)
					checkAll(t, fmt.Sprintf("Dropout n=%d p=%g salt=%d", n, p, salt), backends, []result{{"y", want, x, 1.2e-7, 0}}, func(b *Backend, out [][]float32) {
						b.Dropout(out[0], out[0], seed, salt, p)
					})
				}
			}
		}
		// What is dropped is 0, were it infinite or not a number.
		x := guarded(t, 64)
		for i := range x {
			x[i] = float32(math.Inf(1 - i%2*2))
		}
		y, zeros := guarded(t, 64), 0
		backends[0].Dropout(y, x, seed, 0, 0.5)
		for i, v := range y {
			if v == 0 {
				zeros++
			} else if v != x[i] {
				t.Errorf("Dropout of %g is %g", x[i], v)
			}
		}
		if zeros == 0 || zeros == 64 {
			t.Errorf("%d of 64 dropped", zeros)
		}
	})
}
