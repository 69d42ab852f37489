//go:build cgo

package cpu

import (
	"fmt"
	"math"
	"testing"

	"lycoris/internal/kernels"
)

func TestElementwise(t *testing.T) {
	const rounding = 2.4e-7 // four times half an ulp
	forEach(t, Options{}, func(t *testing.T, backends []*Backend) {
		for _, n := range runLengths {
			a, c := values(t, 1, n), values(t, 2, n)
			for _, op := range []struct {
				name string
				tol  float64
				run  func(b kernels.Backend, y []float32) // y holds a
			}{
				{"Combine", rounding, func(b kernels.Backend, y []float32) { b.Combine(y, y, 0.7, c, -1.3) }},
				{"Combine onto b", rounding, func(b kernels.Backend, y []float32) { b.Combine(y, c, 0.7, y, -1.3) }},
				{"Scale", 0, func(b kernels.Backend, y []float32) { b.Scale(y, y, 0.3) }},
				{"Mul", 0, func(b kernels.Backend, y []float32) { b.Mul(y, y, c) }},
				{"Axpy", rounding, func(b kernels.Backend, y []float32) { b.Axpy(y, c, -0.9) }},
			} {
				want := append([]float32(nil), a...)
				op.run(reference, want)
				checkAll(t, fmt.Sprintf("%s n=%d", op.name, n), backends, []result{{"y", want, a, op.tol, 1}}, func(b *Backend, out [][]float32) { op.run(b, out[0]) })
			}
		}
	})
}

// Ten steps in a row against the same steps in float64, as an optimizer does them: the state must not drift.
func TestAdamW(t *testing.T) {
	forEach(t, Options{}, func(t *testing.T, backends []*Backend) {
		for _, n := range []int{1, 17, 8193} {
			start := values(t, 1, n)
			steps := make([][]float32, 10)
			for i := range steps {
				steps[i] = values(t, uint64(2+i), n)
			}
			s := kernels.AdamW{LR: 1e-3, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, Decay: 0.01, GradScale: 0.1}
			p, m, v := make([]float64, n), make([]float64, n), make([]float64, n)
			for i := range p {
				p[i] = float64(start[i])
			}
			for k, g := range steps {
				t := float64(k + 1)
				for i := range p {
					grad := 0.1 * float64(g[i])
					p[i] -= s.LR * s.Decay * p[i]
					m[i] = s.Beta1*m[i] + (1-s.Beta1)*grad
					v[i] = s.Beta2*v[i] + (1-s.Beta2)*grad*grad
					p[i] -= s.LR / (1 - math.Pow(s.Beta1, t)) * m[i] / (math.Sqrt(v[i])/math.Sqrt(1-math.Pow(s.Beta2, t)) + s.Eps)
				}
			}
			// What m sums is up to 0.01 large, whatever is left of it.
			results := []result{{name: "p", before: start, tol: 6e-7}, {name: "m", before: make([]float32, n), tol: 6e-7, floor: 0.01}, {name: "v", before: make([]float32, n), tol: 1e-6}}
			for k, x := range [][]float64{p, m, v} {
				for _, f := range x {
					results[k].want = append(results[k].want, float32(f))
				}
			}
			checkAll(t, fmt.Sprintf("AdamW n=%d", n), backends, results, func(b *Backend, out [][]float32) {
				for k, g := range steps {
					s := s
					s.Step = k + 1
					b.AdamW(out[0], out[1], out[2], g, s)
				}
			})
		}
	})
}
