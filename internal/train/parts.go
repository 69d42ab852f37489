package train

import (
	"fmt"

	"lycoris/internal/algos"
	"lycoris/internal/optim"
	"lycoris/internal/tensor"
)

// part is what the optimiser moves as one: a factor, or one of its equal parts (DyLoRA's blocks).
type part struct {
	factor *algos.Factor
	path   string // of the adapter's layer
	index  int
}

// partsOf returns the parts of a factor of the adapter at path.
func partsOf(path string, f *algos.Factor) []part {
	all := make([]part, max(f.Parts, 1))
	for i := range all {
		all[i] = part{f, path, i}
	}
	return all
}

// whole reports whether p is all of its factor.
func (p part) whole() bool { return p.factor.Parts <= 1 }

// name returns the parameter's name: the factor's, and the part's number.
func (p part) name() string {
	if p.whole() {
		return p.factor.Param.Name
	}
	return fmt.Sprintf("%s.%d", p.factor.Param.Name, p.index)
}

// size returns the number of values.
func (p part) size() int { return tensor.Elems(p.factor.Param.Shape) / max(p.factor.Parts, 1) }

// bind gives q the part's values and gradient.
func (p part) bind(q *optim.Param) {
	from, to := p.index*p.size(), (p.index+1)*p.size()
	q.Value, q.Grad = p.factor.Param.Value[from:to:to], p.factor.Param.Grad[from:to:to]
}

// noteTrained remembers which parts of a's factors the forward with these inputs gives a gradient.
func (e *engine) noteTrained(a algos.Adapter, in algos.StepInput, values []float32) {
	if in.Trains == nil {
		return
	}
	path := a.Target().Path
	for _, f := range a.Factors() {
		for i := range f.Parts {
			if in.Trains(values, i) {
				e.trainedParts[partKey{path, i}] = true
			}
		}
	}
}

// partKey names the parts of a layer's factors of one number.
type partKey struct {
	path  string
	index int
}

// markIdle leaves parts that no forward of the update gave a gradient out of the optimiser's step, as torch does where a gradient is None.
func (t *trainer) markIdle() {
	for q, p := range t.partial {
		q.Idle = !t.engine.trainedParts[partKey{p.path, p.index}]
	}
}
