//go:build cgo

package cpu

import (
	"fmt"
	"testing"
	"time"

	"lycoris/internal/kernels"
	"lycoris/internal/tensor"
)

// BenchmarkChangedWeight measures a layer computed by a changed weight, which is laid out in every step, next to the frozen layer: forward and input
// gradient as the ratio of the shortest times of interleaved runs, the same with a sum that is never stored (summed), and the weight's gradient against the frozen forward (counted as direct convolution).
func BenchmarkChangedWeight(b *testing.B) {
	for _, s := range []struct{ m, o, i, size int }{
		{4096, 320, 320, 0}, {1024, 640, 640, 0}, {256, 1280, 1280, 0}, {64, 1280, 1280, 0}, {1024, 5120, 640, 0}, {77, 320, 768, 0},
		{4096, 320, 320, 64}, {1024, 640, 640, 32}, {256, 1280, 1280, 16}, {64, 1280, 1280, 8},
	} {
		b.Run(fmt.Sprintf("m=%d,o=%d,i=%d,size=%d", s.m, s.o, s.i, s.size), func(b *testing.B) {
			e := bench(b, Options{})
			shape := []int{s.o, s.i}
			if s.size > 0 {
				shape = append(shape, 3, 3)
			}
			n := tensor.Elems(shape)
			w, _ := e.Pack(packed(b, 1, tensor.F16, shape...))
			x, y, v, dw := values(b, 2, s.m*s.i), values(b, 3, s.m*s.o), values(b, 4, n), values(b, 5, n)
			c := kernels.Conv{N: 1, H: s.size, W: s.size, C: s.i, O: s.o, KH: 3, KW: 3, Stride: 1, PadT: 1, PadL: 1, OH: s.size, OW: s.size}
			mm := kernels.MatMul{Batch: 1, M: s.m, N: s.o, K: s.i, TransB: true, Alpha: 1}
			back := kernels.MatMul{Batch: 1, M: s.m, N: s.i, K: s.o, Alpha: 1}
			down := kernels.MatMul{Batch: 1, M: s.o, N: s.i, K: s.m, TransA: true, Alpha: 1}
			ops := []func(){
				func() { e.Linear(y, x, w, s.m, kernels.Epilogue{}) },
				func() { e.MatMul(y, x, v, kernels.Epilogue{}, mm) },
				func() { e.LinearGrad(x, y, w, s.m, nil) },
				func() { e.MatMul(x, y, v, kernels.Epilogue{}, back) },
				func() { e.MatMul(dw, y, x, kernels.Epilogue{}, down) },
				func() { e.Expand(v, w, dw) },
				func() { e.LinearChanged(y, x, w, dw, s.m, kernels.Epilogue{}) },
			}
			if s.size > 0 {
				ops = []func(){
					func() { e.Conv2d(y, x, w, c, kernels.Epilogue{}) },
					func() { e.ConvFree(y, x, v, c, kernels.Epilogue{}) },
					func() { e.Conv2dGrad(x, y, w, c, nil) },
					func() { e.ConvFreeGrad(x, y, v, c, nil) },
					func() { e.ConvWeightGrad(dw, y, x, c) },
					func() { e.Expand(v, w, dw) },
				}
			}
			best := make([]float64, len(ops))
			for b.Loop() {
				for i, op := range ops {
					start := time.Now()
					op()
					if took := time.Since(start).Seconds(); best[i] == 0 || took < best[i] {
						best[i] = took
					}
				}
				clear(x)
			}
			flop := 2 * float64(s.m) * float64(n)
			b.ReportMetric(flop/best[0]/1e9, "frozen-GFLOP/s")
			b.ReportMetric(best[1]/best[0], "forward-ratio")
			b.ReportMetric(best[3]/best[2], "dx-ratio")
			b.ReportMetric(flop/best[4]/1e9, "dw-GFLOP/s")
			b.ReportMetric(best[5]/best[0], "expand/frozen")
			b.ReportMetric(8*float64(n)/best[5]/1e9, "expand-GB/s")
			if s.size == 0 {
				b.ReportMetric(best[6]/best[0], "summed-forward-ratio")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}
