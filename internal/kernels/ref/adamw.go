package ref

import (
	"math"

	"lycoris/internal/kernels"
)

// AdamW: one step, g = GradScale·g first, in the order that [kernels.AdamW] gives. The arithmetic is float64, the state float32.
func (Backend) AdamW(p, m, v, g []float32, s kernels.AdamW) {
	const op = "AdamW"
	check(op, "m", len(m), len(p))
	check(op, "v", len(v), len(p))
	check(op, "g", len(g), len(p))
	require(s.Step >= 1, op, "step is %d, want 1 or more", s.Step)
	var origin []float32
	if s.Origin != nil {
		origin = s.Origin.(*weight).values
		check(op, "origin", len(origin), len(p))
	}
	correction1 := 1 - math.Pow(s.Beta1, float64(s.Step))
	correction2 := math.Sqrt(1 - math.Pow(s.Beta2, float64(s.Step)))
	for i := range p {
		grad := float64(s.GradScale) * float64(g[i])
		value := float64(p[i]) - s.LR*s.Decay*(float64(p[i])+at(origin, i))
		first := s.Beta1*float64(m[i]) + (1-s.Beta1)*grad
		second := s.Beta2*float64(v[i]) + (1-s.Beta2)*grad*grad
		p[i] = float32(value - s.LR/correction1*first/(math.Sqrt(second)/correction2+s.Eps))
		m[i], v[i] = float32(first), float32(second)
	}
}
