package algos

import (
	"lycoris/internal/fault"
	"lycoris/internal/rng"
	"lycoris/internal/tensor"
)

// DiagOFT rotates the outputs in blocks (Qiu et al., 2023, OFT): W+ΔW = Mᵀ·W block by block, M = μR + (1-μ)I. The dim is the size of a block as
// [Factorization] takes it: up to the root of the outputs.
var DiagOFT = Algorithm{
	Name:    "diag-oft",
	Aliases: []string{"oft"},
	Doc:     "orthogonal rotation of the outputs, in blocks",
	Takes:   []string{"dim", "constraint", "rescaled"},
	Keys:    []string{keyOFT, keyOldOFT, keyRescale, keyAlpha},
	Is:      func(shape func(string) []int) bool { return len(shape(keyOFT)) == 3 || len(shape(keyOldOFT)) == 3 },
	New:     newDiagOFT,
	Load:    loadDiagOFT,
}

func newDiagOFT(t Target, o Options, _ *rng.Stream) (Adapter, error) {
	if o.Rank < 2 && o.Rank != -1 {
		return nil, fault.BadUsage("dim", "%d leaves diag-oft nothing to rotate: a block has 2 outputs or more", o.Rank)
	}
	size, count := Factorization(t.Out(), o.Rank)
	return newRotation(rotation{stages: 1, count: count, size: size}, t, o, keyOFT, nil, nil), nil
}

// loadDiagOFT reads LyCORIS's and kohya's files, whose blocks may be of any size; in the oldest ones they are R itself.
func loadDiagOFT(t Target, tensors map[string]tensor.Tensor, o Options) (Adapter, error) {
	r := rotation{stages: 1}
	key := keyOFT
	blocks, ok := tensors[key]
	if !ok {
		key, r.direct = keyOldOFT, true
		if blocks, ok = tensors[key]; !ok {
			return nil, fault.BadInput("", "%q has no %s", t.Name, keyOFT)
		}
	}
	s := blocks.Shape
	if len(s) != 3 || s[1] != s[2] || s[1] < 1 {
		return nil, fault.BadInput("", "%q: %s has shape %v, want square blocks", t.Name, key, s)
	}
	r.count, r.size = s[0], s[1]
	return loadRotation(r, t, tensors, o, key)
}
