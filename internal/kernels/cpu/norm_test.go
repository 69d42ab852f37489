//go:build cgo

package cpu

import (
	"fmt"
	"math"
	"testing"

	"lycoris/internal/kernels"
)

const normTolerance = 2e-6

// shifted returns values with deviation 1 around mean.
func shifted(t testing.TB, seed uint64, n int, mean float32) []float32 {
	x := values(t, seed, n)
	for i := range x {
		x[i] += mean
	}
	return x
}

func TestGroupNorm(t *testing.T) {
	forEach(t, Options{}, func(t *testing.T, backends []*Backend) {
		// Pixels over the borders of a block (16 to 128, by channels), and channels over those of vectors.
		for _, s := range []kernels.GroupNorm{
			{N: 1, P: 1, C: 1, Groups: 1}, {N: 2, P: 3, C: 14, Groups: 7}, {N: 1, P: 127, C: 33, Groups: 3}, {N: 1, P: 128, C: 17, Groups: 1},
			{N: 2, P: 129, C: 64, Groups: 32}, {N: 1, P: 400, C: 12, Groups: 4}, {N: 3, P: 77, C: 320, Groups: 32}, {N: 1, P: 35, C: 2560, Groups: 32},
		} {
			for _, s.SiLU = range []bool{false, true} {
				s.Eps = 1e-5
				n := s.N * s.P * s.C
				x, dy, add := shifted(t, 1, n, 3), values(t, 2, n), values(t, 3, n)
				gamma, beta := shifted(t, 4, s.C, 1), values(t, 5, s.C)
				stats := guarded(t, s.N*s.Groups*2)
				y, dx := make([]float32, n), make([]float32, n)
				dgamma, dbeta := make([]float32, s.C), make([]float32, s.C)
				reference.GroupNorm(y, stats, x, gamma, beta, s)
				name := fmt.Sprintf("%+v", s)
				checkAll(t, "GroupNorm "+name, backends, []result{{"y", y, nil, normTolerance, 1}, {"stats", stats, nil, normTolerance, 0}},
					func(b *Backend, out [][]float32) { b.GroupNorm(out[0], out[1], x, gamma, beta, s) })
				// A group of a few nearly equal values has a large inverse, by which errors grow as the gradient does.
				floor := 1.0
				for i := 1; i < len(stats); i += 2 {
					floor = max(floor, float64(stats[i]))
				}
				reference.GroupNormGrad(dx, dy, x, stats, gamma, beta, nil, s)
				checkAll(t, "GroupNormGrad "+name, backends, []result{{"dx", dx, nil, normTolerance, floor}},
					func(b *Backend, out [][]float32) { b.GroupNormGrad(out[0], dy, x, stats, gamma, beta, nil, s) })
				reference.GroupNormGrad(dx, dy, x, stats, gamma, beta, add, s)
				checkAll(t, "GroupNormGrad, add is dx "+name, backends, []result{{"dx", dx, add, normTolerance, floor}},
					func(b *Backend, out [][]float32) { b.GroupNormGrad(out[0], dy, x, stats, gamma, beta, out[0], s) })
				reference.GroupNormParamGrad(dgamma, dbeta, dy, x, stats, gamma, beta, s)
				sums := math.Sqrt(float64(s.N * s.P))
				checkAll(t, "GroupNormParamGrad "+name, backends,
					[]result{{"dgamma", dgamma, nil, normTolerance, sums}, {"dbeta", dbeta, nil, normTolerance, sums}},
					func(b *Backend, out [][]float32) { b.GroupNormParamGrad(out[0], out[1], dy, x, stats, gamma, beta, s) })
				checkAll(t, "GroupNormParamGrad, dgamma only "+name, backends[:1], []result{{"dgamma", dgamma, nil, normTolerance, sums}},
					func(b *Backend, out [][]float32) { b.GroupNormParamGrad(out[0], nil, dy, x, stats, gamma, beta, s) })
			}
		}
	})
}

func TestLayerNorm(t *testing.T) {
	forEach(t, Options{}, func(t *testing.T, backends []*Backend) {
		for _, s := range []kernels.LayerNorm{{M: 1, D: 2}, {M: 127, D: 15}, {M: 128, D: 17}, {M: 129, D: 32}, {M: 300, D: 33}, {M: 77, D: 768}, {M: 40, D: 1280}} {
			s.Eps = 1e-5
			n := s.M * s.D
			x, dy, add := shifted(t, 1, n, 3), values(t, 2, n), values(t, 3, n)
			gamma, beta := shifted(t, 4, s.D, 1), values(t, 5, s.D)
			stats := guarded(t, 2*s.M)
			y, dx := make([]float32, n), make([]float32, n)
			dgamma, dbeta := make([]float32, s.D), make([]float32, s.D)
			reference.LayerNorm(y, stats, x, gamma, beta, s)
			name := fmt.Sprintf("%+v", s)
			checkAll(t, "LayerNorm "+name, backends, []result{{"y", y, nil, normTolerance, 1}, {"stats", stats, nil, normTolerance, 0}},
				func(b *Backend, out [][]float32) { b.LayerNorm(out[0], out[1], x, gamma, beta, s) })
			floor := 1.0
			for i := 1; i < len(stats); i += 2 {
				floor = max(floor, float64(stats[i]))
			}
			reference.LayerNormGrad(dx, dy, x, stats, gamma, nil, s)
			checkAll(t, "LayerNormGrad "+name, backends, []result{{"dx", dx, nil, normTolerance, floor}},
				func(b *Backend, out [][]float32) { b.LayerNormGrad(out[0], dy, x, stats, gamma, nil, s) })
			reference.LayerNormGrad(dx, dy, x, stats, gamma, add, s)
			checkAll(t, "LayerNormGrad, add is dx "+name, backends, []result{{"dx", dx, add, normTolerance, floor}},
				func(b *Backend, out [][]float32) { b.LayerNormGrad(out[0], dy, x, stats, gamma, out[0], s) })
			reference.LayerNormParamGrad(dgamma, dbeta, dy, x, stats, s)
			sums := math.Sqrt(float64(s.M))
			checkAll(t, "LayerNormParamGrad "+name, backends,
				[]result{{"dgamma", dgamma, nil, normTolerance, sums}, {"dbeta", dbeta, nil, normTolerance, sums}},
				func(b *Backend, out [][]float32) { b.LayerNormParamGrad(out[0], out[1], dy, x, stats, s) })
			checkAll(t, "LayerNormParamGrad, dbeta only "+name, backends[:1], []result{{"dbeta", dbeta, nil, normTolerance, sums}},
				func(b *Backend, out [][]float32) { b.LayerNormParamGrad(nil, out[0], dy, x, stats, s) })
		}
	})
}

// The inverse deviation of data with a mean of a thousand deviations: a difference of mean squares in float32 would have no digit right.
func TestNormLargeMean(t *testing.T) {
	const p, c = 1000, 8
	x, one, zero := shifted(t, 1, p*c, 1000), make([]float32, p*c), make([]float32, p*c)
	for i := range one {
		one[i] = 1
	}
	g, l := kernels.GroupNorm{N: 1, P: p, C: c, Groups: 1}, kernels.LayerNorm{M: 1, D: p * c}
	want := make([]float32, 2)
	reference.LayerNorm(make([]float32, p*c), want, x, one, zero, l)
	forEach(t, Options{}, func(t *testing.T, backends []*Backend) {
		y := guarded(t, p*c)
		for what, run := range map[string]func(b *Backend, stats []float32){
			"GroupNorm": func(b *Backend, stats []float32) { b.GroupNorm(y, stats, x, one[:c], zero[:c], g) },
			"LayerNorm": func(b *Backend, stats []float32) { b.LayerNorm(y, stats, x, one, zero, l) },
		} {
			checkAll(t, what, backends, []result{{"inverse", want[1:], nil, 2e-7, 0}}, func(b *Backend, out [][]float32) {
				stats := make([]float32, 2)
				run(b, stats)
				out[0][0] = stats[1]
			})
		}
	})
}
