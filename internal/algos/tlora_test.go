package algos

import "testing"

// lycoris-lora's compute_timestep_mask(t, 1000, 16, least, 1.0).
func TestRankMask(t *testing.T) {
	for _, c := range []struct {
		least, want int
		at          []int
	}{
		{0, 16, []int{0}}, {1, 15, []int{1}}, {1, 12, []int{250}}, {1, 8, []int{500}}, {1, 1, []int{999}},
		{2, 16, []int{0}}, {2, 12, []int{250}}, {2, 9, []int{500}}, {2, 2, []int{999}}, {16, 16, []int{999}}, {40, 16, []int{999}},
		{1, 8, []int{10, 500, 3}}, // one mask for a batch
	} {
		mask, got := make([]float32, 16), 0
		rankMask(mask, c.least, c.at)
		for i, v := range mask {
			if v == 1 && i == got {
				got++
			}
		}
		if got != c.want {
			t.Errorf("at %v, at least %d: %d ranks, want %d", c.at, c.least, got, c.want)
		}
	}
}
