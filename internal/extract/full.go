package extract

import "lycoris/internal/tensor"

type named = tensor.Named

// full stores the change itself.
func (w *worker) full(l *layer) (*fit, error) {
	diff, err := w.stored(l, "diff", l.Shape, l.delta)
	if err != nil {
		return nil, err
	}
	f := &fit{tensors: []named{diff}, rank: 0}
	for i, v := range diff.Float32() {
		l.delta[i] -= v
	}
	f.left, f.worst = w.rest(l.delta)
	return f, nil
}
