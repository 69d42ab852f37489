package extract

import (
	"math"

	"lycoris/internal/tensor"
)

// lora fits up [O,R] · down [R,I(,kh,kw)] by the largest singular triples: the nearest there is (Eckart and Young, 1936). Both factors have the roots of the singular
// values, alpha = R.
func (w *worker) lora(l *layer) (*fit, error) {
	u, s, v, err := w.decomposition(l.delta, l.m, l.n, w.rule(l), l.total, 0)
	if err != nil {
		return nil, err
	}
	r := len(s)
	left, right := shared(u, s, v, l.m, l.n)
	upShape := []int{l.m, r}
	if l.IsConv() {
		upShape = append(upShape, 1, 1)
	}
	up, err := w.stored(l, "lora_up.weight", upShape, left)
	if err != nil {
		return nil, err
	}
	down, err := w.stored(l, "lora_down.weight", append([]int{r}, l.Shape[1:]...), right)
	if err != nil {
		return nil, err
	}
	f := &fit{tensors: append([]named{alpha(r)}, down, up), rank: r}
	f.left, f.worst = w.miss(l.delta, up.Float32(), down.Float32(), l.m, l.n, r)
	return f, nil
}

// shared returns u·√s [m,k] and √s·v [k,n].
func shared(u, s, v []float64, m, n int) (left, right []float32) {
	k := len(s)
	left, right = make([]float32, m*k), make([]float32, k*n)
	for p, value := range s {
		root := math.Sqrt(value)
		for i := range m {
			left[i*k+p] = float32(u[i*k+p] * root)
		}
		for j := range n {
			right[p*n+j] = float32(v[p*n+j] * root)
		}
	}
	return left, right
}

// compared reports whether an algorithm's fits are compared with plain LoRA: those whose forms hold only what was made in them.
func compared(algorithm string) bool {
	return algorithm == "loha" || algorithm == "lokr" || algorithm == "diag-oft"
}

// plainLoRA returns the rank of the LoRA that has as many numbers as f, at least 1, and ‖Δ − LoRA‖ of the best of that rank before rounding.
func (w *worker) plainLoRA(l *layer, f *fit) (rank int, missing float64, err error) {
	numbers := 0
	for _, t := range f.tensors {
		if len(t.Shape) > 0 { // not alpha
			numbers += tensor.Elems(t.Shape)
		}
	}
	rank = min(max(numbers/(l.m+l.n), 1), l.m, l.n)
	_, s, _, err := w.decomposition(l.delta, l.m, l.n, Rule{Dim: rank}, l.total, 0)
	left := l.total
	for _, v := range s {
		left -= v * v
	}
	return rank, math.Sqrt(max(left, 0)), err
}
