//go:build cgo

package cpu

import (
	"fmt"
	"math"
	"testing"

	"lycoris/internal/kernels"
	"lycoris/internal/tensor"
)

var halves = []tensor.DType{tensor.F32, tensor.F16, tensor.BF16}

func TestPackUnpack(t *testing.T) {
	forEach(t, Options{}, func(t *testing.T, backends []*Backend) {
		for _, dtype := range halves {
			for _, shape := range [][]int{{1, 1}, {7, 3}, {16, 64}, {33, 65}, {4, 5, 3, 3}, {40, 17, 3, 3}, {31, 2, 1, 1}} {
				src := packed(t, 1, dtype, shape...)
				w, err := backends[1].Pack(src)
				if err != nil {
					t.Fatal(err)
				}
				same(t, fmt.Sprintf("%v %s", shape, dtype), src.Float32(), backends[1].Unpack(w))
				backends[1].Release(w)
			}
		}
	})
}

// Every half-precision value there is must pass the expansion unchanged: as the weights of a layer whose input picks them out.
func TestExpandEveryHalf(t *testing.T) {
	forEach(t, Options{}, func(t *testing.T, backends []*Backend) {
		for _, dtype := range halves[1:] {
			src := tensor.Tensor{DType: dtype, Shape: []int{256, 256}, Data: make([]byte, 1<<17)}
			for i := range 1 << 16 {
				src.Data[2*i], src.Data[2*i+1] = byte(i), byte(i>>8)
			}
			w, err := backends[0].Pack(src)
			if err != nil {
				t.Fatal(err)
			}
			got, want := backends[0].Unpack(w), src.Float32()
			for i := range want {
				if g, w := got[i], want[i]; math.Float32bits(g) != math.Float32bits(w) && (g == g || w == w) {
					t.Fatalf("%s: value %#04x became %g, want %g", dtype, i, g, w)
				}
			}
		}
	})
}

func TestLinear(t *testing.T) {
	sizes := []struct{ m, o, i int }{
		{1, 1, 1}, {1, 4, 20}, {2, 15, 36}, {3, 16, 16}, {5, 17, 24}, {6, 31, 255}, {7, 32, 320}, {11, 33, 321}, {12, 48, 8}, {13, 64, 130},
		{77, 40, 300}, {191, 16, 12}, {192, 20, 36}, {193, 36, 20}, {400, 130, 70}, {64, 320, 520}, {3, 1, 600},
		{50, 512, 288}, {203, 257, 1024}, // rows that are copied, of dy and of x
	}
	forEach(t, Options{}, func(t *testing.T, backends []*Backend) {
		for _, s := range sizes {
			for k, dtype := range halves {
				src := packed(t, 1, dtype, s.o, s.i)
				w, _ := backends[0].Pack(src)
				r, _ := reference.Pack(src)
				x, dy := values(t, 2, s.m*s.i), values(t, 3, s.m*s.o)
				bias, addY, addX := values(t, 4, s.o), values(t, 5, s.m*s.o), values(t, 6, s.m*s.i)
				name := fmt.Sprintf("m=%d o=%d i=%d %s", s.m, s.o, s.i, dtype)

				e := kernels.Epilogue{}
				want := make([]float32, s.m*s.o)
				if k > 0 {
					e.Bias = bias
				}
				if k == 1 {
					e.Add = addY
				}
				if k == 2 {
					items := 1
					for _, d := range []int{2, 3, 7, 8} {
						if s.m%d == 0 {
							items = d
						}
					}
					e.PerItem = values(t, 7, items*s.o)
				}
				reference.Linear(want, x, r, s.m, e)
				check(t, "Linear "+name, backends, want, nil, 2e-6, func(b *Backend, y []float32) { b.Linear(y, x, w, s.m, e) })
				e.Add = addY
				reference.Linear(want, x, r, s.m, e)
				check(t, "Linear, add is y "+name, backends, want, addY, 2e-6, func(b *Backend, y []float32) {
					e.Add = y
					b.Linear(y, x, w, s.m, e)
				})

				want = make([]float32, s.m*s.i)
				reference.LinearGrad(want, dy, r, s.m, nil)
				check(t, "LinearGrad "+name, backends, want, nil, 2e-6, func(b *Backend, dx []float32) { b.LinearGrad(dx, dy, w, s.m, nil) })
				reference.LinearGrad(want, dy, r, s.m, addX)
				check(t, "LinearGrad, add is dx "+name, backends, want, addX, 2e-6, func(b *Backend, dx []float32) { b.LinearGrad(dx, dy, w, s.m, dx) })
			}
		}
	})
}

func TestMatMul(t *testing.T) {
	sizes := []struct{ batch, m, n, k int }{
		{1, 1, 1, 1}, {1, 5, 7, 3}, {3, 6, 16, 8}, {2, 7, 17, 9}, {1, 12, 32, 256}, {1, 13, 33, 257}, {2, 16, 40, 255}, {1, 4, 64, 2048},
		{1, 70, 4, 1300}, {1, 193, 20, 36}, {2, 61, 61, 61}, {1, 16, 50, 3000}, {5, 1, 3, 2},
	}
	forEach(t, Options{}, func(t *testing.T, backends []*Backend) {
		for _, z := range sizes {
			for mode := range 16 {
				s := kernels.MatMul{Batch: z.batch, M: z.m, N: z.n, K: z.k, TransA: mode&1 != 0, TransB: mode&2 != 0, Alpha: 1}
				s.StrideA, s.StrideB = z.m*z.k, z.n*z.k
				if mode&4 != 0 { // one b for all items, a with room between its items
					s.StrideB = 0
					s.StrideA += 3
					s.Alpha = -0.375
				}
				a := values(t, 1, (s.Batch-1)*s.StrideA+s.M*s.K)
				b := values(t, 2, (s.Batch-1)*s.StrideB+s.K*s.N)
				var add []float32
				if mode&8 != 0 {
					add = values(t, 3, s.Batch*s.M*s.N)
				}
				want := make([]float32, s.Batch*s.M*s.N)
				reference.MatMul(want, a, b, kernels.Epilogue{Add: add}, s)
				check(t, fmt.Sprintf("%+v add=%v", s, add != nil), backends, want, add, 2e-6, func(e *Backend, c []float32) {
					if add == nil {
						e.MatMul(c, a, b, kernels.Epilogue{}, s)
					} else {
						e.MatMul(c, a, b, kernels.Epilogue{Add: c}, s)
					}
				})
			}
		}
	})
}
