package kernelstest

import (
	"fmt"
	"math"

	"lycoris/internal/kernels"
)

// groupNorm checks GroupNorm and its gradients, on data whose mean is three times the deviation, as in the models.
func groupNorm(s *suite) {
	for _, g := range []kernels.GroupNorm{
		{N: 1, P: 2, C: 1, Groups: 1}, {N: 1, P: 1, C: 3, Groups: 1}, {N: 2, P: 5, C: 6, Groups: 2}, {N: 1, P: 7, C: 15, Groups: 3}, {N: 1, P: 17, C: 32, Groups: 32},
		{N: 2, P: 16, C: 64, Groups: 32}, {N: 1, P: 33, C: 96, Groups: 32}, {N: 1, P: 31, C: 320, Groups: 32}, {N: 2, P: 64, C: 35, Groups: 5}, {N: 1, P: 9, C: 512, Groups: 32},
		{N: 3, P: 1, C: 66, Groups: 2}, {N: 1, P: 1025, C: 8, Groups: 4},
	} {
		for _, g.SiLU = range []bool{false, true} {
			g.Eps = 1e-5
			name := fmt.Sprintf("%+v", g)
			n := g.N * g.P * g.C
			x, dy := s.normal(n, 3, 1), s.standard(n)
			gamma, beta := s.normal(g.C, 1, 0.3), s.normal(g.C, 0, 0.3)
			stats := make([]float32, g.N*g.Groups*2)
			s.want.GroupNorm(make([]float32, n), stats, x, gamma, beta, g)

			s.check(opCase{name: "GroupNorm " + name, out: []output{{n: n, tol: s.tol.Norm, floor: 1}, {n: len(stats), tol: s.tol.Norm}}, in: [][]float32{x, gamma, beta},
				run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) {
					b.GroupNorm(out[0], out[1], in[0], in[1], in[2], g)
				}})
			// Gradients are as large as dy over the deviation; single groups may cancel to less.
			grad := output{n: n, tol: s.tol.Norm, floor: float64(stats[1])}
			in := [][]float32{dy, x, stats, gamma, beta, nil}
			run := func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) {
				b.GroupNormGrad(out[0], in[0], in[1], in[2], in[3], in[4], in[5], g)
			}
			s.check(opCase{name: "GroupNormGrad " + name, out: []output{grad}, in: in, run: run})
			in[5] = s.standard(n)
			s.check(opCase{name: "GroupNormGrad add " + name, out: []output{grad}, in: in, run: run})
			grad.init = in[5]
			s.check(opCase{name: "GroupNormGrad onto itself " + name, out: []output{grad}, in: in[:5],
				run: func(b kernels.Backend, w kernels.Weight, out, in [][]float32) {
					run(b, w, out, append(in[:5:5], out[0]))
				}})
			param := output{n: g.C, tol: s.tol.Norm, floor: math.Sqrt(float64(g.N * g.P))}
			s.check(opCase{name: "GroupNormParamGrad " + name, out: []output{param, param}, in: in[:5],
				run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) {
					b.GroupNormParamGrad(out[0], out[1], in[0], in[1], in[2], in[3], in[4], g)
				}})
		}
	}
}

// layerNorm checks LayerNorm and its gradients.
func layerNorm(s *suite) {
	for _, size := range []struct{ m, d int }{{1, 3}, {3, 5}, {5, 7}, {7, 17}, {17, 31}, {31, 33}, {2, 16}, {33, 64}, {77, 768}, {4, 320}, {1, 1280}, {100, 8}} {
		l := kernels.LayerNorm{M: size.m, D: size.d, Eps: 1e-5}
		name := fmt.Sprintf("%+v", l)
		n := l.M * l.D
		x, dy := s.normal(n, 3, 1), s.standard(n)
		gamma, beta := s.normal(l.D, 1, 0.3), s.normal(l.D, 0, 0.3)
		stats := make([]float32, l.M*2)
		s.want.LayerNorm(make([]float32, n), stats, x, gamma, beta, l)

		s.check(opCase{name: "LayerNorm " + name, out: []output{{n: n, tol: s.tol.Norm, floor: 1}, {n: len(stats), tol: s.tol.Norm}}, in: [][]float32{x, gamma, beta},
			run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) {
				b.LayerNorm(out[0], out[1], in[0], in[1], in[2], l)
			}})
		grad := output{n: n, tol: s.tol.Norm, floor: float64(stats[1])}
		in := [][]float32{dy, x, stats, gamma, nil}
		run := func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) {
			b.LayerNormGrad(out[0], in[0], in[1], in[2], in[3], in[4], l)
		}
		s.check(opCase{name: "LayerNormGrad " + name, out: []output{grad}, in: in, run: run})
		in[4] = s.standard(n)
		s.check(opCase{name: "LayerNormGrad add " + name, out: []output{grad}, in: in, run: run})
		grad.init = in[4]
		s.check(opCase{name: "LayerNormGrad onto itself " + name, out: []output{grad}, in: in[:4],
			run: func(b kernels.Backend, w kernels.Weight, out, in [][]float32) {
				run(b, w, out, append(in[:4:4], out[0]))
			}})
		param := output{n: l.D, tol: s.tol.Norm, floor: math.Sqrt(float64(l.M))}
		s.check(opCase{name: "LayerNormParamGrad " + name, out: []output{param, param}, in: in[:3],
			run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) {
				b.LayerNormParamGrad(out[0], out[1], in[0], in[1], in[2], l)
			}})
	}
}
