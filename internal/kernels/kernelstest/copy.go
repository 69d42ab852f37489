package kernelstest

import (
	"fmt"

	"lycoris/internal/kernels"
	"lycoris/internal/tensor"
)

// copies checks the ops that move values: exact, all of them but the sums of UpsampleGrad.
func copies(s *suite) {
	for _, z := range []struct{ dstLD, dstOff, srcLD, srcOff, rows, cols int }{
		{1, 0, 1, 0, 1, 1}, {5, 2, 7, 1, 3, 3}, {64, 32, 32, 0, 17, 32}, {33, 0, 64, 31, 7, 33}, {40, 7, 40, 7, 31, 17}, {16, 16, 16, 0, 4, 0}, {8, 0, 8, 0, 0, 8},
	} {
		dst, src := s.standard(z.rows*z.dstLD), s.standard(z.rows*z.srcLD)
		s.check(opCase{name: fmt.Sprintf("CopyColumns %+v", z), out: []output{{n: len(dst), init: dst}}, in: [][]float32{src},
			run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) {
				b.CopyColumns(out[0], z.dstLD, z.dstOff, in[0], z.srcLD, z.srcOff, z.rows, z.cols)
			}})
	}
	for _, z := range []struct{ shape, perm []int }{
		{[]int{7}, []int{0}}, {[]int{3, 5}, []int{1, 0}}, {[]int{33, 17}, []int{1, 0}}, {[]int{1, 64}, []int{1, 0}}, {[]int{64, 48}, []int{0, 1}},
		{[]int{2, 4, 5, 7}, []int{0, 2, 3, 1}}, {[]int{2, 5, 7, 4}, []int{0, 3, 1, 2}}, {[]int{3, 4, 5}, []int{2, 0, 1}}, {[]int{1, 320, 3, 3}, []int{0, 2, 3, 1}},
		{[]int{2, 3, 4, 5, 3}, []int{4, 2, 0, 3, 1}}, {[]int{2, 3, 2, 3, 2, 3}, []int{5, 3, 1, 0, 2, 4}}, {[]int{3, 0, 2}, []int{2, 1, 0}},
	} {
		x := s.standard(tensor.Elems(z.shape))
		s.check(opCase{name: fmt.Sprintf("Permute %v %v", z.shape, z.perm), out: []output{{n: len(x)}}, in: [][]float32{x},
			run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) {
				b.Permute(out[0], in[0], z.shape, z.perm)
			}})
	}
	for _, z := range []struct{ rows, picks, d int }{{1, 1, 1}, {5, 3, 7}, {3, 17, 33}, {31, 5, 64}, {7, 0, 3}, {10, 77, 768}} {
		index := make([]int32, z.picks)
		for i := range index {
			index[i] = int32(s.rnd.IntN(z.rows))
		}
		table, picked := s.standard(z.rows*z.d), s.standard(z.picks*z.d)
		s.check(opCase{name: fmt.Sprintf("GatherRows %+v", z), out: []output{{n: len(picked)}}, in: [][]float32{table},
			run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) {
				b.GatherRows(out[0], in[0], index, z.d)
			}})
		s.check(opCase{name: fmt.Sprintf("ScatterRows %+v", z), out: []output{{n: len(table)}}, in: [][]float32{picked},
			run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) {
				b.ScatterRows(out[0], in[0], index, z.d)
			}})
	}
	for _, z := range []struct{ n, h, w, c int }{{1, 1, 1, 1}, {1, 3, 5, 7}, {2, 5, 3, 17}, {3, 1, 7, 32}, {1, 8, 8, 33}, {2, 7, 1, 4}} {
		small, large := s.standard(z.n*z.h*z.w*z.c), s.standard(4*z.n*z.h*z.w*z.c)
		s.check(opCase{name: fmt.Sprintf("Upsample %+v", z), out: []output{{n: len(large)}}, in: [][]float32{small},
			run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) {
				b.Upsample(out[0], in[0], z.n, z.h, z.w, z.c)
			}})
		s.check(opCase{name: fmt.Sprintf("UpsampleGrad %+v", z), out: []output{{n: len(small), tol: s.tol.Rounding, floor: 2}}, in: [][]float32{large},
			run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) {
				b.UpsampleGrad(out[0], in[0], z.n, z.h, z.w, z.c)
			}})
	}
}
