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
				c.Sum = true
				s.matmulCase(c, false, false)
				s.matmulCase(c, true, true)
			}
		}
	}
	// Many small products with one operand shared, as of a Kronecker factor, and the gradient of that operand.
	for _, size := range []struct{ batch, m, n, k int }{{50, 4, 10, 4}, {9, 16, 20, 16}, {33, 7, 16, 5}, {70, 16, 33, 3}, {8, 13, 47, 20}, {20, 5, 3, 6}, {12, 2, 8, 2}} {
		for _, trans := range []bool{false, true} {
			c := kernels.MatMul{Batch: size.batch, M: size.m, N: size.n, K: size.k, TransA: trans, StrideB: size.k * size.n, Alpha: 1.5}
			s.matmulCase(c, false, false)
			s.matmulCase(c, true, false)
			s.matmulCase(c, true, true)
			s.matmulCase(kernels.MatMul{Batch: size.batch, M: size.m, N: size.k, K: size.n, TransB: true, StrideA: size.m * size.n, StrideB: size.k * size.n, Alpha: 1, Sum: true}, true, true)
		}
	}
	// Biases of columns and of items.
	for _, size := range []struct{ m, n, k int }{{6, 5, 3}, {24, 33, 20}, {4, 16, 2000}, {200, 48, 300}} {
		a, b, bias, items, add := s.standard(size.m*size.k), s.standard(size.k*size.n), s.standard(size.n), s.standard(2*size.n), s.standard(size.m*size.n)
		c := kernels.MatMul{Batch: 1, M: size.m, N: size.n, K: size.k, TransB: true, Alpha: 0.3}
		s.check(opCase{name: fmt.Sprintf("MatMul %+v with biases", c), out: []output{{n: len(add), tol: s.tol.Linear, floor: math.Sqrt(float64(c.K))}},
			in: [][]float32{a, b, bias, items, add}, run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) {
				b.MatMul(out[0], in[0], in[1], kernels.Epilogue{Bias: in[2], PerItem: in[3], Add: in[4]}, c)
			}})
	}
}

// blockMatMul checks products with block-diagonal matrices and the gradients of the blocks.
func blockMatMul(s *suite) {
	for _, c := range []kernels.BlockMatMul{
		{M: 1, N: 1, S: 1, T: 1}, {M: 7, N: 5, S: 2, T: 2}, {M: 50, N: 80, S: 4, T: 4}, {M: 49, N: 7, S: 5, T: 3}, {M: 97, N: 3, S: 16, T: 16}, {M: 33, N: 6, S: 20, T: 20},
		{M: 13, N: 2, S: 64, T: 64}, {M: 300, N: 1, S: 33, T: 17}, {M: 900, N: 3, S: 4, T: 8}, {M: 5, N: 1, S: 320, T: 320}, {M: 30, N: 40, S: 1, T: 3},
	} {
		for _, c.Trans = range []bool{false, true} {
			if n := s.b.ScratchBytes(c); n < 0 {
				s.t.Errorf("%+v: scratch of %d bytes", c, n)
			}
			x, dy, r := s.standard(c.M*c.N*c.S), s.standard(c.M*c.N*c.T), s.standard(c.N*c.S*c.T)
			out := output{n: len(dy), tol: s.tol.Linear, floor: math.Sqrt(float64(c.S))}
			s.check(opCase{name: fmt.Sprintf("BlockMatMul %+v", c), out: []output{out}, in: [][]float32{x, r},
				run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) {
					b.BlockMatMul(out[0], in[0], in[1], nil, c)
				}})
			out.init = s.standard(out.n)
			s.check(opCase{name: fmt.Sprintf("BlockMatMul %+v onto itself", c), out: []output{out}, in: [][]float32{x, r},
				run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) {
					b.BlockMatMul(out[0], in[0], in[1], out[0], c)
				}})
			s.check(opCase{name: fmt.Sprintf("BlockMatMulGrad %+v", c), out: []output{{n: len(r), tol: s.tol.Linear, floor: math.Sqrt(float64(c.M))}}, in: [][]float32{dy, x},
				run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) {
					b.BlockMatMulGrad(out[0], in[0], in[1], c)
				}})
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
	if c.Sum {
		out.n, out.floor = c.M*c.N, math.Sqrt(float64(c.K*c.Batch))
	}
	in := [][]float32{a, b, nil}
	if onto {
		out.init = s.standard(out.n)
	} else if withAdd {
		in[2] = s.standard(out.n)
	}
	s.check(opCase{name: fmt.Sprintf("MatMul %+v add=%t onto=%t", c, withAdd, onto), out: []output{out}, in: in,
		run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) {
			e := kernels.Epilogue{Add: in[2]}
			if onto {
				e.Add = out[0]
			}
			b.MatMul(out[0], in[0], in[1], e, c)
		}})
}
