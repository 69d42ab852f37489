package kernelstest

import (
	"fmt"

	"lycoris/internal/kernels"
)

// rotation checks Cayley and its gradient, free and bounded, and NormRatio.
func rotation(s *suite) {
	for _, c := range []kernels.Cayley{{N: 1, S: 1}, {N: 3, S: 2}, {N: 40, S: 4}, {N: 5, S: 7}, {N: 20, S: 16}, {N: 3, S: 33}, {N: 2, S: 64}, {N: 300, S: 3}} {
		for _, limit := range []float32{0, 1e6, 0.5} {
			c.Limit = limit
			a, dr := s.normal(c.N*c.S*c.S, 0, 0.3), s.standard(c.N*c.S*c.S)
			if n := s.b.ScratchBytes(c); n < 0 {
				s.t.Errorf("%+v: scratch of %d bytes", c, n)
			}
			r := make([]float32, len(a))
			s.want.Cayley(r, a, c)
			s.check(opCase{name: fmt.Sprintf("Cayley %+v", c), out: []output{{n: len(a), tol: s.tol.Rounding}}, in: [][]float32{a},
				run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) { b.Cayley(out[0], in[0], c) }})
			s.check(opCase{name: fmt.Sprintf("CayleyGrad %+v", c), out: []output{{n: len(a), tol: s.tol.Linear}}, in: [][]float32{dr, r, a},
				run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) {
					b.CayleyGrad(out[0], in[0], in[1], in[2], c)
				}})
		}
	}
	for _, n := range []int{0, 1, 17, 320} {
		df, d, ss := s.standard(n), s.standard(n), s.standard(n)
		for i, v := range ss {
			ss[i] = v * v
			if i%5 == 3 {
				ss[i] = 0
			}
		}
		near := output{n: n, tol: s.tol.Rounding}
		s.check(opCase{name: fmt.Sprintf("NormRatio n=%d", n), out: []output{near}, in: [][]float32{d, ss},
			run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) {
				b.NormRatio(out[0], in[0], in[1], 0x1p-23, 0.7)
			}})
		for _, skip := range [][2]bool{{}, {true, false}, {false, true}} {
			dd, dss := near, near
			dd.skip, dss.skip = skip[0], skip[1]
			s.check(opCase{name: fmt.Sprintf("NormRatioGrad n=%d without %v", n, skip), out: []output{dd, dss}, in: [][]float32{df, d, ss},
				run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) {
					b.NormRatioGrad(out[0], out[1], in[0], in[1], in[2], 0x1p-23, 0.7)
				}})
		}
	}
}
