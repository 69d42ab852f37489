package ref

import "lycoris/internal/kernels"

// LinearChanged is Linear with W + D.
func (b Backend) LinearChanged(y, x []float32, w kernels.Weight, d []float32, m int, e kernels.Epilogue) {
	v := w.(*weight)
	check("LinearChanged", "d", len(d), len(v.values))
	changed := &weight{shape: v.shape, values: make([]float32, len(d))}
	for i, x := range v.values {
		changed.values[i] = x + d[i]
	}
	b.Linear(y, x, changed, m, e)
}
