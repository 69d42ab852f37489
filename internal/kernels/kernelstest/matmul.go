package kernelstest

import (
	"fmt"
	"math"

	"lycoris/internal/kernels"
)

// matmul checks MatMul in all orientations, for the sizes of adapters: thin, and long in the summed axis.
func matmul(s *suite) {
	for _, size := range []struct{ m, n, k int }{
		{1, 1, 1}, {3, 5, 7}, {17, 31, 33}, {31, 17, 5}, {33, 1, 7}, {1, 33, 17}, {7, 3, 1}, {6, 16, 8}, {12, 32, 64}, {13, 33, 40}, {64, 16, 320}, {16, 72, 130}, {5, 16, 1000}, {40, 8, 2}, {80, 48, 4},
	} {
		for trans := range 4 {
			for _, batch := range []struct{ n, strideA, strideB int }{
				{1, 0, 0}, {3, size.m * size.k, size.k * size.n}, {2, 0, size.k * size.n}, {2, size.m*size.k + 5, 0},
			} {
				c := kernels.MatMul{Batch: batch.n, M: size.m, N: size.n, K: size.k, TransA: trans&1 != 0, TransB: trans&2 != 0, StrideA: batch.strideA, StrideB: batch.strideB, Alpha: 1}
				s.matmulCase(c, false, false)
				c.Alpha = -0.37
				s.matmulCase(c, true, false)
				s.matmulCase(c, true, true)
			}
		}
	}
}

func (s *suite) matmulCase(c kernels.MatMul, withAdd, onto bool) {
	s.t.Helper()
	if n := s.b.ScratchBytes(c); n < 0 {
		s.t.Errorf("%+v: scratch of %d bytes", c, n)
	}
	a, b := s.standard((c.Batch-1)*c.StrideA+c.M*c.K), s.standard((c.Batch-1)*c.StrideB+c.K*c.N)
	out := output{n: c.Batch * c.M * c.N, tol: s.tol.Linear, floor: math.Sqrt(float64(c.K))}
	in := [][]float32{a, b, nil}
	if onto {
		out.init = s.standard(out.n)
	} else if withAdd {
		in[2] = s.standard(out.n)
	}
	s.check(opCase{name: fmt.Sprintf("MatMul %+v add=%t onto=%t", c, withAdd, onto), out: []output{out}, in: in,
		run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) {
			add := in[2]
			if onto {
				add = out[0]
			}
			b.MatMul(out[0], in[0], in[1], add, c)
		}})
}
