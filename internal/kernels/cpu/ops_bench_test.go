//go:build cgo

package cpu

import (
	"fmt"
	"testing"

	"lycoris/internal/kernels"
)

// timed runs op on an engine with all processors and reports the rates: of `flop` operations and of `floats` floats moved, where not 0.
func timed(b *testing.B, flop, floats float64, op func(e *Backend)) {
	e, err := Open(Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer e.Close()
	for b.Loop() {
		op(e)
	}
	runs := float64(b.N) / b.Elapsed().Seconds() / 1e9
	if flop > 0 {
		b.ReportMetric(flop*runs, "GFLOP/s")
	}
	if floats > 0 {
		b.ReportMetric(4*floats*runs, "GB/s")
	}
}

// The attentions of SD1.5 at 512 px, SDXL's heads of 64, the text encoder's and the VAE's. Counted as two products forward and five backward.
func BenchmarkAttention(b *testing.B) {
	for _, s := range []kernels.Attention{
		{Heads: 8, TQ: 4096, TK: 4096, D: 40}, {Heads: 8, TQ: 1024, TK: 1024, D: 80}, {Heads: 8, TQ: 256, TK: 256, D: 160}, {Heads: 8, TQ: 64, TK: 64, D: 160},
		{Heads: 8, TQ: 4096, TK: 77, D: 40}, {Heads: 8, TQ: 1024, TK: 77, D: 80}, {Heads: 8, TQ: 256, TK: 77, D: 160},
		{Heads: 10, TQ: 1024, TK: 1024, D: 64}, {Heads: 12, TQ: 77, TK: 77, D: 64, Causal: true}, {Heads: 1, TQ: 1024, TK: 1024, D: 512},
	} {
		s.N, s.Scale = 1, 0.1
		q, k := values(b, 1, s.TQ*s.Heads*s.D), values(b, 2, s.TK*s.Heads*s.D)
		v, dout := values(b, 3, len(k)), values(b, 4, len(q))
		out, lse := values(b, 5, len(q)), values(b, 6, s.Heads*s.TQ)
		dq, dk, dv := values(b, 7, len(q)), values(b, 8, len(k)), values(b, 9, len(k))
		product := 2 * float64(s.Heads*s.TQ*s.TK*s.D)
		name := fmt.Sprintf("heads=%d,tq=%d,tk=%d,d=%d", s.Heads, s.TQ, s.TK, s.D)
		b.Run(name+",grad=false", func(b *testing.B) {
			timed(b, 2*product, 0, func(e *Backend) { e.Attention(out, lse, q, k, v, s) })
		})
		b.Run(name+",grad=true", func(b *testing.B) {
			timed(b, 5*product, 0, func(e *Backend) { e.AttentionGrad(dq, dk, dv, dout, out, lse, q, k, v, s) })
		})
	}
}

// The norms of SD1.5 at 512 px. Floats are those that must move: x twice (statistics, then values) and y; dy and x twice and dx.
func BenchmarkNorm(b *testing.B) {
	for _, s := range []kernels.GroupNorm{{P: 4096, C: 320}, {P: 4096, C: 960}, {P: 1024, C: 640}, {P: 64, C: 1280}} {
		s.N, s.Groups, s.Eps = 1, 32, 1e-5
		for _, s.SiLU = range []bool{false, true} {
			n := s.P * s.C
			x, y, dy := values(b, 1, n), values(b, 2, n), values(b, 3, n)
			gamma, beta, stats := values(b, 4, s.C), values(b, 5, s.C), values(b, 6, 64)
			name := fmt.Sprintf("group,p=%d,c=%d,silu=%v", s.P, s.C, s.SiLU)
			b.Run(name, func(b *testing.B) {
				timed(b, 0, 3*float64(n), func(e *Backend) { e.GroupNorm(y, stats, x, gamma, beta, s) })
			})
			b.Run(name+",grad", func(b *testing.B) {
				timed(b, 0, 5*float64(n), func(e *Backend) { e.GroupNormGrad(y, dy, x, stats, gamma, beta, nil, s) })
			})
			b.Run(name+",param", func(b *testing.B) {
				timed(b, 0, 2*float64(n), func(e *Backend) { e.GroupNormParamGrad(gamma, beta, dy, x, stats, gamma, beta, s) })
			})
		}
	}
	for _, s := range []kernels.LayerNorm{{M: 4096, D: 320}, {M: 256, D: 1280}, {M: 77, D: 768}} {
		s.Eps = 1e-5
		n := s.M * s.D
		x, y, dy := values(b, 1, n), values(b, 2, n), values(b, 3, n)
		gamma, beta, stats := values(b, 4, s.D), values(b, 5, s.D), values(b, 6, 2*s.M)
		name := fmt.Sprintf("layer,m=%d,d=%d", s.M, s.D)
		b.Run(name, func(b *testing.B) {
			timed(b, 0, 2*float64(n), func(e *Backend) { e.LayerNorm(y, stats, x, gamma, beta, s) })
		})
		b.Run(name+",grad", func(b *testing.B) {
			timed(b, 0, 3*float64(n), func(e *Backend) { e.LayerNormGrad(y, dy, x, stats, gamma, nil, s) })
		})
		b.Run(name+",param", func(b *testing.B) {
			timed(b, 0, 2*float64(n), func(e *Backend) { e.LayerNormParamGrad(gamma, beta, dy, x, stats, s) })
		})
	}
}

// What is left, at 64×64 pixels: floats read and written once. "copy" is the machine's own speed.
func BenchmarkMemory(b *testing.B) {
	const m, d = 4096, 1280
	const n = m * d
	x, y, z, w := values(b, 1, 2*n), values(b, 2, 2*n), values(b, 3, 2*n), values(b, 4, n)
	a, c, s := x[:n], z[:n], make([]float32, d)
	seed := []float32{1, 2, 1}
	index := make([]int32, m)
	for i := range index {
		index[i] = int32(i * 7 % m)
	}
	for _, t := range []struct {
		name   string
		floats float64
		op     func(e *Backend)
	}{
		{"copy", 2, func(e *Backend) { e.CopyColumns(y[:n], n, 0, a, n, 0, 1, n) }},
		{"columns", 2, func(e *Backend) { e.CopyColumns(y, 2*d, d, a, d, 0, m, d) }},
		{"combine", 3, func(e *Backend) { e.Combine(y[:n], a, 0.5, c, 0.25) }},
		{"scale", 2, func(e *Backend) { e.Scale(y[:n], a, 0.5) }},
		{"axpy", 3, func(e *Backend) { e.Axpy(y[:n], a, 0.5) }},
		{"mulblocks", 2, func(e *Backend) { e.MulBlocks(y[:n], a, s, 1) }},
		{"sumblocks columns", 2, func(e *Backend) { e.SumBlocks(s, a, c, 1) }},
		{"sumblocks rows", 2, func(e *Backend) { e.SumBlocks(y[:m], a, c, d) }},
		{"sumsquares", 1, func(e *Backend) { e.SumSquares(a) }},
		{"squared error", 2, func(e *Backend) { e.SquaredError(s[:2], a, c, 2) }},
		{"silu", 2, func(e *Backend) { e.Activate(y[:n], a, kernels.SiLU) }},
		{"silu grad", 3, func(e *Backend) { e.ActivateGrad(y[:n], c, a, kernels.SiLU) }},
		{"gelu", 2, func(e *Backend) { e.Activate(y[:n], a, kernels.GELU) }},
		{"gelu grad", 3, func(e *Backend) { e.ActivateGrad(y[:n], c, a, kernels.GELU) }},
		{"geglu", 3, func(e *Backend) { e.GEGLU(y[:n], x, m, d) }},
		{"geglu grad", 5, func(e *Backend) { e.GEGLUGrad(y, c, x, m, d) }},
		{"permute to channels last", 2, func(e *Backend) { e.Permute(y[:n], a, []int{1, d, m}, []int{0, 2, 1}) }},
		{"permute 4 channels", 2, func(e *Backend) { e.Permute(y[:n], a, []int{1, 4, n / 4}, []int{0, 2, 1}) }},
		{"gather", 2, func(e *Backend) { e.GatherRows(y[:n], a, index, d) }},
		{"scatter", 2, func(e *Backend) { e.ScatterRows(y[:n], a, index, d) }},
		{"upsample", 1.25, func(e *Backend) { e.Upsample(y[:n], x[:n/4], 1, 32, 32, d) }},
		{"upsample grad", 1.25, func(e *Backend) { e.UpsampleGrad(y[:n/4], x[:n], 1, 32, 32, d) }},
		{"dropout", 2, func(e *Backend) { e.Dropout(y[:n], a, seed, 3, 0.1) }},
		{"adamw", 7, func(e *Backend) {
			e.AdamW(y[:n], z[:n], w, a, kernels.AdamW{LR: 1e-4, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, Decay: 0.01, Step: 3, GradScale: 1})
		}},
	} {
		b.Run(t.name, func(b *testing.B) { timed(b, 0, t.floats*n, t.op) })
	}
}
