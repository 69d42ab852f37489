package extract

import (
	"math"

	"lycoris/internal/tensor"
)

// ia3 fits ΔW = w∘W, w by output or input channel: w_c = ⟨Δ,W⟩/‖W‖² over the channel's elements (least squares), 0 where W is.
func (w *worker) ia3(l *layer) (*fit, error) {
	channels, inner := l.Out(), l.n
	if l.onInput {
		channels, inner = l.In(), l.Window()
	}
	dot, square := make([]float64, channels), make([]float64, channels)
	for i, x := range l.base {
		c := i / inner % channels
		dot[c] += float64(l.delta[i]) * float64(x)
		square[c] += float64(x) * float64(x)
	}
	values := make([]float32, channels)
	for c := range values {
		if square[c] > 0 {
			values[c] = float32(dot[c] / square[c])
		}
	}
	shape := []int{channels}
	if l.IsConv() {
		shape = []int{1, channels, 1, 1}
	}
	weight, err := w.stored(l, "weight", shape, values)
	if err != nil {
		return nil, err
	}
	on := int64(0)
	if l.onInput {
		on = 1
	}
	f := &fit{tensors: []named{weight, {Name: "on_input", Tensor: tensor.FromInt64(nil, []int64{on})}}}
	kept := weight.Float32()
	for i, x := range l.base {
		d := math.Abs(float64(l.delta[i]) - float64(kept[i/inner%channels])*float64(x))
		f.left += d * d
		f.worst = max(f.worst, d)
	}
	return f, nil
}
