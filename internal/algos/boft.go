package algos

import (
	"math/bits"

	"lycoris/internal/fault"
	"lycoris/internal/rng"
	"lycoris/internal/tensor"
)

// BOFT rotates the outputs by a butterfly (Liu et al., 2024, BOFT): stages of blocks that reach further and further, so that every output comes to depend on
// every row. The dim is the largest size of a block.
var BOFT = Algorithm{
	Name:  "boft",
	Doc:   "orthogonal rotation of the outputs, by a butterfly of blocks",
	Takes: []string{"dim", "constraint", "rescaled"},
	Keys:  []string{keyOFT, keyRescale, keyAlpha},
	Is:    func(shape func(string) []int) bool { return len(shape(keyOFT)) == 4 },
	New:   newBOFT,
	Load:  loadBOFT,
}

// powerOfTwoBlocks splits width into count blocks of size rows, count a power of two and size the largest even number up to limit (-1: no limit); ok is
// false where there is none. It is upstream's power2factorization.
func powerOfTwoBlocks(width, limit int) (size, count int, ok bool) {
	if limit == -1 {
		limit = width
	}
	odd := width >> bits.TrailingZeros(uint(width))
	for size := width; size >= 2*odd; size /= 2 {
		if size <= limit {
			return size, width / size, true
		}
	}
	return 0, 0, false
}

func newBOFT(t Target, o Options, _ *rng.Stream) (Adapter, error) {
	size, count, ok := powerOfTwoBlocks(t.Out(), o.Rank)
	if !ok {
		return nil, undecomposable(t, o.Rank)
	}
	r := rotation{stages: bits.Len(uint(count)), count: count, size: size, butterfly: true}
	return newRotation(r, t, o, keyOFT, nil, nil), nil
}

func undecomposable(t Target, dim int) error {
	width := t.Out()
	if width%2 == 1 {
		return fault.BadUsage("dim", "boft can't split the %d outputs of %s: the number is odd", width, t.Path).
			Advise("leave the layer out with exclude, or give it another algorithm")
	}
	least := 2 * (width >> bits.TrailingZeros(uint(width)))
	return fault.BadUsage("dim", "%d is too small for boft to split the %d outputs of %s into blocks whose number is a power of two", dim, width, t.Path).
		Advise("the smallest dim that works there is %d", least)
}

func loadBOFT(t Target, tensors map[string]tensor.Tensor, o Options) (Adapter, error) {
	blocks, ok := tensors[keyOFT]
	if !ok {
		return nil, fault.BadInput("", "%q has no %s", t.Name, keyOFT)
	}
	s := blocks.Shape
	if len(s) != 4 || s[2] != s[3] || s[2]%2 == 1 || s[2] < 2 || bits.OnesCount(uint(s[1])) != 1 || s[0] < 1 || s[0] > bits.Len(uint(s[1])) {
		return nil, fault.BadInput("", "%q: %s has shape %v, want stages of 2ⁿ square blocks of even size, at most n+1 stages", t.Name, keyOFT, s)
	}
	return loadRotation(rotation{stages: s[0], count: s[1], size: s[2], butterfly: true}, t, tensors, o, keyOFT)
}
