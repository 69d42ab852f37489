package ref

import (
	"math"

	"lycoris/internal/rng"
)

// Dropout: element i takes word i mod 4 of Philox 4x32-10 with key (bits of seed[0], bits of seed[1]) and counter (i/4, salt), each two words,
// low word first. It is kept, as x/(1-p), when the word is at least ⌊p·2³²⌋; otherwise it becomes 0 (Srivastava et al., 2014, scaled at training).
func (Backend) Dropout(y, x, seed []float32, salt uint64, p float32) {
	check("Dropout", "y", len(y), len(x))
	check("Dropout", "seed", len(seed), 3)
	require(p >= 0 && p < 1, "Dropout", "p = %v, want 0 or more and below 1", p)
	if seed[2] < 0.5 {
		copy(y, x)
		return
	}
	key := [2]uint32{math.Float32bits(seed[0]), math.Float32bits(seed[1])}
	limit := uint32(float64(p) * (1 << 32))
	var words [4]uint32
	for i, v := range x {
		if i%4 == 0 {
			block := uint64(i / 4)
			words = rng.Philox4x32([4]uint32{uint32(block), uint32(block >> 32), uint32(salt), uint32(salt >> 32)}, key)
		}
		y[i] = 0
		if words[i%4] >= limit {
			y[i] = float32(float64(v) / (1 - float64(p)))
		}
	}
}
