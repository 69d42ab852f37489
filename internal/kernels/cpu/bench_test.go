//go:build cgo

package cpu

import (
	"fmt"
	"testing"

	"lycoris/internal/kernels"
	"lycoris/internal/tensor"
)

// bench opens an engine for a benchmark: all processors, the best instruction set.
func bench(b *testing.B, o Options) *Backend {
	e, err := Open(o)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(e.Close)
	return e
}

// rate reports floating-point operations per second of b.N runs of `flop` operations.
func rate(b *testing.B, flop float64) {
	b.ReportMetric(flop*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
}

// The linear layers of SD1.5 at 512 px: attention and feed-forward projections, and those of 77 text tokens.
func BenchmarkLinear(b *testing.B) {
	for _, s := range []struct{ m, o, i int }{
		{4096, 320, 320}, {4096, 2560, 320}, {4096, 320, 1280}, {1024, 640, 640}, {1024, 5120, 640}, {256, 1280, 1280}, {256, 10240, 1280},
		{64, 1280, 1280}, {77, 320, 768}, {77, 3072, 768}, {1, 1280, 1280},
	} {
		for _, threads := range []int{1, 0} {
			for _, grad := range []bool{false, true} {
				b.Run(fmt.Sprintf("m=%d,o=%d,i=%d,threads=%d,grad=%v", s.m, s.o, s.i, threads, grad), func(b *testing.B) {
					e := bench(b, Options{Threads: threads})
					w, _ := e.Pack(packed(b, 1, tensor.F16, s.o, s.i))
					x, y := values(b, 2, s.m*s.i), values(b, 3, s.m*s.o)
					for b.Loop() {
						if grad {
							e.LinearGrad(x, y, w, s.m, nil)
						} else {
							e.Linear(y, x, w, s.m, kernels.Epilogue{})
						}
					}
					rate(b, 2*float64(s.m)*float64(s.o)*float64(s.i))
				})
			}
		}
	}
}

// The products of a LoRA of rank 16: down, up, and the gradients of both factors; and those of a text sequence.
func BenchmarkMatMul(b *testing.B) {
	for _, t := range []struct{ tokens, width int }{{4096, 320}, {1024, 640}, {256, 1280}, {77, 768}} {
		for _, s := range []kernels.MatMul{
			{M: t.tokens, N: 16, K: t.width, TransB: true},
			{M: t.tokens, N: t.width, K: 16, TransB: true},
			{M: 16, N: t.width, K: t.tokens, TransA: true},
			{M: t.width, N: 16, K: t.tokens, TransA: true},
			{M: t.width, N: t.width, K: t.tokens, TransA: true},
		} {
			s.Batch, s.Alpha = 1, 1
			b.Run(fmt.Sprintf("m=%d,n=%d,k=%d,ta=%v,tb=%v", s.M, s.N, s.K, s.TransA, s.TransB), func(b *testing.B) {
				e := bench(b, Options{})
				x, y, c := values(b, 1, s.M*s.K), values(b, 2, s.N*s.K), values(b, 3, s.M*s.N)
				for b.Loop() {
					e.MatMul(c, x, y, kernels.Epilogue{}, s)
				}
				rate(b, 2*float64(s.M)*float64(s.N)*float64(s.K))
			})
		}
	}
}

// The 3×3 convolutions of SD1.5 at 512 px, counted as direct ones: Winograd's method may show more than the machine's peak.
func BenchmarkConv(b *testing.B) {
	for _, s := range []struct {
		size, c, o, stride int
		up                 bool
	}{
		{64, 320, 320, 1, false}, {64, 960, 320, 1, false}, {32, 640, 640, 1, false}, {32, 1920, 640, 1, false}, {16, 1280, 1280, 1, false},
		{16, 2560, 1280, 1, false}, {8, 1280, 1280, 1, false}, {8, 2560, 1280, 1, false}, {64, 4, 320, 1, false}, {64, 320, 4, 1, false},
		{64, 320, 320, 2, false}, {16, 1280, 1280, 2, false}, {16, 1280, 1280, 1, true},
	} {
		c := kernels.Conv{N: 1, H: s.size, W: s.size, C: s.c, O: s.o, KH: 3, KW: 3, Stride: s.stride, PadT: 1, PadL: 1, OH: s.size / s.stride,
			OW: s.size / s.stride, Upsample: s.up}
		if s.up {
			c.OH, c.OW = 2*c.OH, 2*c.OW
		}
		for _, direct := range []bool{false, true} {
			for _, grad := range []bool{false, true} {
				b.Run(fmt.Sprintf("size=%d,c=%d,o=%d,stride=%d,up=%v,direct=%v,grad=%v", s.size, s.c, s.o, s.stride, s.up, direct, grad), func(b *testing.B) {
					e := bench(b, Options{DirectConv: direct})
					w, _ := e.Pack(packed(b, 1, tensor.F16, s.o, s.c, 3, 3))
					x, y := values(b, 2, c.N*c.H*c.W*c.C), values(b, 3, c.Rows()*c.O)
					for b.Loop() {
						if grad {
							e.Conv2dGrad(x, y, w, c, nil)
						} else {
							e.Conv2d(y, x, w, c, kernels.Epilogue{})
						}
					}
					rate(b, 2*9*float64(c.Rows())*float64(c.O)*float64(c.C))
				})
			}
		}
	}
}
