package algos

import (
	"hash/fnv"

	"lycoris/internal/graph"
	"lycoris/internal/nn"
	"lycoris/internal/rng"
)

// SeedInput is the program input that drives neuron dropout: two words of random bits and a switch (kernels.Backend.Dropout).
const SeedInput = "dropout seed"

// rowMaskInput names the input of a target's row mask.
func rowMaskInput(t Target) string { return "row mask " + t.Name }

// dropsRows reports whether o needs a row mask.
func (o Options) dropsRows() bool { return o.RankDropout > 0 || o.ModuleDropout > 0 }

// stepInputs returns the inputs that o's dropouts need for t. The mask has one element per output row of the change: 1 keeps it. Rows are kept with
// probability 1 - RankDropout and, as upstream by default, not rescaled; with probability ModuleDropout all are dropped. Neuron dropout needs
// [SeedInput], which the trainer fills once for all layers.
func (o Options) stepInputs(t Target) []StepInput {
	if !o.dropsRows() {
		return nil
	}
	fill := func(dst []float32, s *rng.Stream, _ Step) {
		whole := float32(1)
		if o.ModuleDropout > 0 && s.Float64() < o.ModuleDropout {
			whole = 0
		}
		for i := range dst {
			dst[i] = whole
			if o.RankDropout > 0 && s.Float64() <= o.RankDropout {
				dst[i] = 0
			}
		}
	}
	return []StepInput{{Name: rowMaskInput(t), Size: t.Out(), Fill: fill}}
}

// maskRows applies the row mask to a matrix [O,R] whose rows are those of the change.
func (o Options) maskRows(b *nn.Builder, t Target, m *graph.Node) *graph.Node {
	if !o.dropsRows() {
		return m
	}
	return b.G.MulBlocks(m, b.Input(rowMaskInput(t), t.Out()), m.Elems()/t.Out())
}

// addDelta returns base + delta, delta through neuron dropout.
func (o Options) addDelta(b *nn.Builder, t Target, base, delta *graph.Node) *graph.Node {
	if o.NeuronDropout > 0 {
		delta = b.G.Dropout(delta, b.Input(SeedInput, 3), salt(t), float32(o.NeuronDropout))
	}
	return b.G.Add(base, delta)
}

// salt names t's draws among those of one seed.
func salt(t Target) uint64 {
	h := fnv.New64a()
	h.Write([]byte(t.Path))
	return h.Sum64()
}

// moduleMaskInput names the input of a target's switch.
func moduleMaskInput(t Target) string { return "module mask " + t.Name }

// moduleInputs returns the input that module dropout needs where the change is not a sum of rows that can be masked one by one: a switch.
func (o Options) moduleInputs(t Target) []StepInput {
	if o.ModuleDropout == 0 {
		return nil
	}
	fill := func(dst []float32, s *rng.Stream, _ Step) {
		dst[0] = 1
		if s.Float64() < o.ModuleDropout {
			dst[0] = 0
		}
	}
	return []StepInput{{Name: moduleMaskInput(t), Size: 1, Fill: fill}}
}

// maskModule applies the switch of moduleInputs to a change.
func (o Options) maskModule(b *nn.Builder, t Target, change *graph.Node) *graph.Node {
	if o.ModuleDropout == 0 {
		return change
	}
	return b.G.MulBlocks(change, b.Input(moduleMaskInput(t), 1), 1)
}

// dropElements applies rank dropout as Diag-OFT means it: to every element of m by itself, what is kept scaled up.
func (o Options) dropElements(b *nn.Builder, t Target, m *graph.Node) *graph.Node {
	if o.RankDropout == 0 {
		return m
	}
	return b.G.Dropout(m, b.Input(SeedInput, 3), salt(t), float32(o.RankDropout))
}
