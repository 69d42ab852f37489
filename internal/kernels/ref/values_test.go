package ref_test

import (
	"math"
	"testing"

	"lycoris/internal/kernels"
	"lycoris/internal/kernels/ref"
	"lycoris/internal/rng"
	"lycoris/internal/testutil"
)

// The tests here pin forward values down that were worked out by hand: gradient checks can't see a wrong forward op whose gradient is wrong alike.

func TestLinearValues(t *testing.T) {
	b, y := ref.Open(), make([]float32, 4)
	w := packed(t, []float32{1, 2, 3, 4, 5, 6}, 2, 3)
	e := kernels.Epilogue{Bias: []float32{10, 20}, PerItem: []float32{100, 200, 300, 400}, Add: []float32{0.5, 1.5, 2.5, 3.5}}
	b.Linear(y, []float32{1, 0, -1, 2, 1, 0}, w, 2, e)
	testutil.NearRel(t, "Linear", y, []float32{-2 + 110.5, -2 + 221.5, 4 + 312.5, 13 + 423.5}, 0)
	dx := make([]float32, 3)
	b.LinearGrad(dx, []float32{1, -2}, w, 1, []float32{1, 1, 1})
	testutil.NearRel(t, "LinearGrad", dx, []float32{-6, -7, -8}, 0)
}

// TestConvValues: a 3×3 kernel that is 1 at the centre, 10 to the right and 100 below shows the orientation, the padding, strides and upsampling.
func TestConvValues(t *testing.T) {
	b := ref.Open()
	kernel := []float32{0, 0, 0, 0, 1, 10, 0, 100, 0}
	x := []float32{1, 2, 3, 4} // 2×2
	for _, c := range []struct {
		name string
		size kernels.Conv
		want []float32
	}{
		{"same", kernels.Conv{N: 1, H: 2, W: 2, C: 1, O: 1, KH: 3, KW: 3, Stride: 1, PadT: 1, PadL: 1, OH: 2, OW: 2}, []float32{321, 402, 43, 4}},
		{"stride 2", kernels.Conv{N: 1, H: 2, W: 2, C: 1, O: 1, KH: 3, KW: 3, Stride: 2, PadT: 1, PadL: 1, OH: 1, OW: 1}, []float32{321}},
		{"padded below and to the right", kernels.Conv{N: 1, H: 2, W: 2, C: 1, O: 1, KH: 3, KW: 3, Stride: 2, OH: 1, OW: 1}, []float32{4}},
		{"upsampled", kernels.Conv{N: 1, H: 2, W: 2, C: 1, O: 1, KH: 3, KW: 3, Stride: 1, PadT: 1, PadL: 1, OH: 4, OW: 4, Upsample: true},
			[]float32{111, 121, 222, 202, 311, 321, 422, 402, 333, 343, 444, 404, 33, 43, 44, 4}},
	} {
		y := make([]float32, c.size.Rows())
		b.ConvFree(y, x, kernel, c.size, kernels.Epilogue{})
		testutil.NearRel(t, c.name, y, c.want, 0)
		clear(y)
		b.Conv2d(y, x, packed(t, kernel, 1, 1, 3, 3), c.size, kernels.Epilogue{})
		testutil.NearRel(t, c.name+", frozen", y, c.want, 0)
	}
	// Channels come last in images and before the taps in kernels.
	y, c := make([]float32, 2), kernels.Conv{N: 1, H: 1, W: 2, C: 2, O: 2, KH: 1, KW: 2, Stride: 1, OH: 1, OW: 1}
	b.ConvFree(y, []float32{1, 2, 3, 4}, []float32{1, 10, 100, 1000, 2, 20, 200, 2000}, c, kernels.Epilogue{})
	testutil.NearRel(t, "channels", y, []float32{1 + 30 + 200 + 4000, 2 + 60 + 400 + 8000}, 0)
}

func TestMatMulValues(t *testing.T) {
	b, c := ref.Open(), make([]float32, 4)
	b.MatMul(c, []float32{1, 2, 3, 4}, []float32{5, 6, 7, 8}, kernels.Epilogue{Add: []float32{1, 1, 1, 1}}, kernels.MatMul{Batch: 1, M: 2, N: 2, K: 2, TransA: true, Alpha: 2})
	testutil.NearRel(t, "2·aᵀ·b + 1", c, []float32{53, 61, 77, 89}, 0)
	b.MatMul(c, []float32{1, 2, 3, 4}, []float32{5, 6, 7, 8}, kernels.Epilogue{}, kernels.MatMul{Batch: 1, M: 2, N: 2, K: 2, TransB: true, Alpha: 1})
	testutil.NearRel(t, "a·bᵀ", c, []float32{17, 23, 39, 53}, 0)
}

// TestNormValues: the values 1, 3 have mean 2 and deviation 1; with eps = 3 the divisor is 2.
func TestNormValues(t *testing.T) {
	b, y, stats := ref.Open(), make([]float32, 4), make([]float32, 4)
	b.LayerNorm(y, stats, []float32{1, 3, 7, 5}, []float32{2, 4}, []float32{10, 20}, kernels.LayerNorm{M: 2, D: 2, Eps: 3})
	testutil.NearRel(t, "LayerNorm", y, []float32{9, 22, 11, 18}, 0)
	testutil.NearRel(t, "its stats", stats, []float32{2, 0.5, 6, 0.5}, 0)
	// Two groups of one channel over two pixels: channel 0 is 1, 3 and channel 1 is 7, 5.
	b.GroupNorm(y, stats, []float32{1, 7, 3, 5}, []float32{2, 4}, []float32{10, 20}, kernels.GroupNorm{N: 1, P: 2, C: 2, Groups: 2, Eps: 3})
	testutil.NearRel(t, "GroupNorm", y, []float32{9, 22, 11, 18}, 0)
	testutil.NearRel(t, "its stats", stats, []float32{2, 0.5, 6, 0.5}, 0)
	b.GroupNorm(y, stats, []float32{1, 7, 3, 5}, []float32{2, 4}, []float32{0, 1}, kernels.GroupNorm{N: 1, P: 2, C: 2, Groups: 2, Eps: 3, SiLU: true})
	sigma := func(x float64) float32 { return float32(x / (1 + math.Exp(-x))) }
	testutil.NearRel(t, "with SiLU", y, []float32{sigma(-1), sigma(3), sigma(1), sigma(-1)}, 1e-7)
}

// TestAttentionValues: equal scores average the values, a score of log 3 against 0 weighs 3 to 1, and a causal query sees no later key.
func TestAttentionValues(t *testing.T) {
	b, out, lse := ref.Open(), make([]float32, 2), make([]float32, 2)
	a := kernels.Attention{N: 1, Heads: 1, TQ: 2, TK: 2, D: 1, Scale: 0.5}
	log3 := float32(math.Log(3))
	b.Attention(out, lse, []float32{0, 2}, []float32{log3, 0}, []float32{8, 4}, a)
	testutil.NearRel(t, "out", out, []float32{6, 7}, 1e-7)
	testutil.NearRel(t, "lse", lse, []float32{float32(math.Log(2)), float32(math.Log(4))}, 1e-7)
	a.Causal = true
	b.Attention(out, lse, []float32{2, 2}, []float32{log3, 0}, []float32{8, 4}, a)
	testutil.NearRel(t, "causal", out, []float32{8, 7}, 1e-7)
	// Heads are column ranges.
	b.Attention(out, nil, []float32{1, 1}, []float32{1, 1}, []float32{3, 5}, kernels.Attention{N: 1, Heads: 2, TQ: 1, TK: 1, D: 1, Scale: 1})
	testutil.NearRel(t, "heads", out, []float32{3, 5}, 0)
}

// TestActivationValues: SiLU(1) = σ(1); GELU(1) = Φ(1), GELU(-1) = Φ(1)-1 with Φ(1) = 0.841344746; QuickGELU(1) = σ(1.702).
func TestActivationValues(t *testing.T) {
	b, y := ref.Open(), make([]float32, 3)
	for _, c := range []struct {
		f    kernels.Activation
		want []float32
	}{
		{kernels.SiLU, []float32{0.73105858, 0, -0.26894142}}, {kernels.GELU, []float32{0.84134475, 0, -0.15865525}}, {kernels.QuickGELU, []float32{0.84579577, 0, -0.15420423}},
	} {
		b.Activate(y, []float32{1, 0, -1}, c.f)
		testutil.NearRel(t, "activation", y, c.want, 2e-7)
	}
	b.GEGLU(y[:2], []float32{2, 3, 1, -1}, 1, 2) // values 2, 3 and gates 1, -1
	testutil.NearRel(t, "GEGLU", y[:2], []float32{2 * 0.84134475, 3 * -0.15865525}, 2e-7)
}

func TestElementwiseValues(t *testing.T) {
	b, y := ref.Open(), make([]float32, 4)
	b.Combine(y, []float32{1, 2, 3, 4}, 2, []float32{1, 1, 2, 2}, -1)
	testutil.NearRel(t, "Combine", y, []float32{1, 3, 4, 6}, 0)
	b.Axpy(y, []float32{1, 0, 1, 0}, 3)
	testutil.NearRel(t, "Axpy", y, []float32{4, 3, 7, 6}, 0)
	b.MulBlocks(y, []float32{1, 2, 3, 4}, []float32{10, 100}, 1)
	testutil.NearRel(t, "MulBlocks, columns", y, []float32{10, 200, 30, 400}, 0)
	b.MulBlocks(y, []float32{1, 2, 3, 4}, []float32{10, 100}, 2)
	testutil.NearRel(t, "MulBlocks, rows", y, []float32{10, 20, 300, 400}, 0)
	b.AddBlocks(y, []float32{1, 2, 3, 4}, []float32{10, 100}, 2)
	testutil.NearRel(t, "AddBlocks", y, []float32{11, 12, 103, 104}, 0)
	b.SumBlocks(y[:2], []float32{1, 2, 3, 4}, []float32{1, 1, 1, 2}, 1)
	testutil.NearRel(t, "SumBlocks", y[:2], []float32{4, 10}, 0)
	b.SquaredError(y[:2], []float32{1, 2, 3, 4}, []float32{0, 0, 3, 2}, 2)
	testutil.NearRel(t, "SquaredError", y[:2], []float32{2.5, 2}, 0)
	if got := b.SumSquares([]float32{1, 2, 3}); got != 14 {
		t.Errorf("SumSquares: %v, want 14", got)
	}
}

func TestCopyValues(t *testing.T) {
	b, y := ref.Open(), make([]float32, 6)
	x := []float32{1, 2, 3, 4, 5, 6}
	b.Permute(y, x, []int{1, 2, 3}, []int{2, 0, 1})
	testutil.NearRel(t, "Permute", y, []float32{1, 4, 2, 5, 3, 6}, 0)
	b.GatherRows(y, x, []int32{2, 0, 2}, 2)
	testutil.NearRel(t, "GatherRows", y, []float32{5, 6, 1, 2, 5, 6}, 0)
	b.ScatterRows(y, x, []int32{2, 0, 2}, 2)
	testutil.NearRel(t, "ScatterRows", y, []float32{3, 4, 0, 0, 6, 8}, 0)
	copy(y, []float32{0, 0, 0, 0, 0, 0})
	b.CopyColumns(y, 3, 1, x, 3, 0, 2, 2)
	testutil.NearRel(t, "CopyColumns", y, []float32{0, 1, 2, 0, 4, 5}, 0)
	large := make([]float32, 8)
	b.Upsample(large, []float32{1, 2}, 1, 1, 2, 1)
	testutil.NearRel(t, "Upsample", large, []float32{1, 1, 2, 2, 1, 1, 2, 2}, 0)
}

// TestDropoutValues follows the rule of the op word by word.
func TestDropoutValues(t *testing.T) {
	b, y := ref.Open(), make([]float32, 6)
	seed := []float32{math.Float32frombits(0xa4093822), math.Float32frombits(0x299f31d0), 1}
	b.Dropout(y, []float32{1, 2, 3, 4, 5, 6}, seed, 0x0370734413198a2e, 0.75)
	for i := range y {
		w := rng.Philox4x32([4]uint32{uint32(i / 4), 0, 0x13198a2e, 0x03707344}, [2]uint32{0xa4093822, 0x299f31d0})[i%4]
		want := float32(0)
		if w >= 0xc0000000 {
			want = float32(i+1) * 4
		}
		if y[i] != want {
			t.Errorf("element %d is %v, want %v (word %08x)", i, y[i], want, w)
		}
	}
}

// TestAdamWValues: the first step of Adam moves by lr·g/(|g|+eps) whatever g is, after the decay; the moments are (1-β)·g and (1-β)·g².
func TestAdamWValues(t *testing.T) {
	p, m, v := []float32{1, 1}, []float32{0, 0}, []float32{0, 0}
	ref.Open().AdamW(p, m, v, []float32{4, -0.5}, kernels.AdamW{LR: 0.125, Beta1: 0.75, Beta2: 0.5, Decay: 0.5, Step: 1, GradScale: 0.5})
	testutil.NearRel(t, "p", p, []float32{1 - 0.0625 - 0.125, 1 - 0.0625 + 0.125}, 1e-7)
	testutil.NearRel(t, "m", m, []float32{0.5, -0.0625}, 0)
	testutil.NearRel(t, "v", v, []float32{2, 0.03125}, 0)
	// A second step, by hand: m = 0.375+0.25·2 = 0.875, v = 1+0.5·4 = 3, corrections 1-0.75² = 0.4375 and 1-0.5² = 0.75, m/0.4375 = 2, √(3/0.75) = 2.
	ref.Open().AdamW(p[:1], m[:1], v[:1], []float32{2}, kernels.AdamW{LR: 0.125, Beta1: 0.75, Beta2: 0.5, Step: 2, GradScale: 1})
	testutil.NearRel(t, "second p", p[:1], []float32{0.8125 - 0.125}, 1e-7)
}
