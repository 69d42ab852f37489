package optim

import (
	"math"
	"testing"

	"lycoris/internal/kernels/ref"
)

func TestGlobalNorm(t *testing.T) {
	params := []*Param{{Grad: []float32{3, 0}}, {Grad: nil}, {Grad: []float32{-4, 12}}}
	if got := GlobalNorm(ref.Open(), params); got != 13 {
		t.Errorf("GlobalNorm = %v, want 13", got)
	}
	if got := GlobalNorm(ref.Open(), nil); got != 0 {
		t.Errorf("GlobalNorm of nothing = %v, want 0", got)
	}
}

func TestClipFactor(t *testing.T) {
	for _, c := range []struct{ norm, limit, want float64 }{
		{0, 1, 1},
		{0.5, 1, 1},
		{4, 1, 1 / (4 + 1e-6)},
		{1, 1, 1 / (1 + 1e-6)}, // torch: at the limit already
		{4, 0, 1},              // off
	} {
		if got := ClipFactor(c.norm, c.limit); math.Abs(got-c.want) > 1e-15 {
			t.Errorf("ClipFactor(%v, %v) = %v, want %v", c.norm, c.limit, got, c.want)
		}
	}
	if got := ClipFactor(math.NaN(), 1); !math.IsNaN(got) {
		t.Errorf("ClipFactor of NaN = %v, want NaN: a broken gradient must not be hidden", got)
	}
}
