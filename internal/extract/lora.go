package extract

import "math"

// lora fits up [O,R] · down [R,I(,kh,kw)] by the largest singular triples: the nearest there is (Eckart and Young, 1936). Both factors have the roots of the singular
// values, alpha = R.
func (w *worker) lora(l *layer) (*fit, error) {
	u, s, v, err := w.decomposition(l.Name, l.delta, l.m, l.n, w.rule(l), l.total, 0)
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
