package kernelstest

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"lycoris/internal/kernels"
	"lycoris/internal/tensor"
)

// lengths are those of element-wise cases: none, odd ones, and the borders of vectors and of chunks.
var lengths = []int{0, 1, 3, 5, 7, 15, 16, 17, 31, 32, 33, 64, 65, 1000, 4096, 20001}

// activation checks Activate, GEGLU and their gradients, over their whole range.
func activation(s *suite) {
	for _, f := range []kernels.Activation{kernels.SiLU, kernels.GELU, kernels.QuickGELU} {
		for _, n := range lengths {
			x, dy := s.normal(n, 0, 3), s.standard(n)
			out := output{n: n, tol: s.tol.Function, floor: 1}
			s.check(opCase{name: fmt.Sprintf("Activate %d n=%d", f, n), out: []output{out}, in: [][]float32{x},
				run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) { b.Activate(out[0], in[0], f) }})
			s.check(opCase{name: fmt.Sprintf("ActivateGrad %d n=%d", f, n), out: []output{out}, in: [][]float32{dy, x},
				run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) {
					b.ActivateGrad(out[0], in[0], in[1], f)
				}})
			onto := out
			onto.init = x
			s.check(opCase{name: fmt.Sprintf("Activate %d onto itself n=%d", f, n), out: []output{onto},
				run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) { b.Activate(out[0], out[0], f) }})
			onto.init = dy
			s.check(opCase{name: fmt.Sprintf("ActivateGrad %d onto itself n=%d", f, n), out: []output{onto}, in: [][]float32{x},
				run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) {
					b.ActivateGrad(out[0], out[0], in[0], f)
				}})
		}
		// One value at a time: its own error, not that of the largest, and no NaN far out.
		for _, v := range []float32{0, float32(math.Copysign(0, -1)), 1e-20, -1e-3, 0.5, -0.75, 3, -3, -5, 9, -9, 30, -30, 88, -88, 89, -89, 200, -200, 1e30, -1e30} {
			x, one := slices.Repeat([]float32{v}, 17), slices.Repeat([]float32{1}, 17)
			out := output{n: 17, tol: s.tol.Function, floor: 1}
			s.check(opCase{name: fmt.Sprintf("Activate %d x=%v", f, v), out: []output{out}, in: [][]float32{x},
				run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) { b.Activate(out[0], in[0], f) }})
			s.check(opCase{name: fmt.Sprintf("ActivateGrad %d x=%v", f, v), out: []output{out}, in: [][]float32{one, x},
				run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) {
					b.ActivateGrad(out[0], in[0], in[1], f)
				}})
		}
	}
	for _, size := range []struct{ m, d int }{{0, 4}, {1, 1}, {3, 5}, {5, 17}, {7, 31}, {2, 33}, {33, 64}, {17, 640}} {
		x, dy := s.normal(2*size.m*size.d, 0, 2), s.standard(size.m*size.d)
		name := fmt.Sprintf("m=%d d=%d", size.m, size.d)
		s.check(opCase{name: "GEGLU " + name, out: []output{{n: len(dy), tol: s.tol.Function, floor: 1}}, in: [][]float32{x},
			run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) { b.GEGLU(out[0], in[0], size.m, size.d) }})
		s.check(opCase{name: "GEGLUGrad " + name, out: []output{{n: len(x), tol: s.tol.Function, floor: 1}}, in: [][]float32{dy, x},
			run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) {
				b.GEGLUGrad(out[0], in[0], in[1], size.m, size.d)
			}})
	}
}

// elementwise checks Combine, Scale, Mul, Axpy and SumSquares.
func elementwise(s *suite) {
	for _, n := range lengths {
		a, b := s.standard(n), s.standard(n)
		name := fmt.Sprintf("n=%d", n)
		near, exact := output{n: n, tol: s.tol.Rounding, floor: 1}, output{n: n}
		startA := func(o output) []output { o.init = a; return []output{o} }

		combine := func(b kernels.Backend, y, x, z []float32) { b.Combine(y, x, 0.7, z, -1.3) }
		s.check(opCase{name: "Combine " + name, out: []output{near}, in: [][]float32{a, b},
			run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) { combine(b, out[0], in[0], in[1]) }})
		s.check(opCase{name: "Combine onto a " + name, out: startA(near), in: [][]float32{b},
			run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) { combine(b, out[0], out[0], in[0]) }})
		s.check(opCase{name: "Combine onto b " + name, out: startA(near), in: [][]float32{b},
			run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) { combine(b, out[0], in[0], out[0]) }})
		s.check(opCase{name: "Scale " + name, out: []output{exact}, in: [][]float32{a},
			run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) { b.Scale(out[0], in[0], 0.3) }})
		s.check(opCase{name: "Scale onto itself " + name, out: startA(exact),
			run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) { b.Scale(out[0], out[0], -2.7) }})
		s.check(opCase{name: "Mul " + name, out: []output{exact}, in: [][]float32{a, b},
			run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) { b.Mul(out[0], in[0], in[1]) }})
		s.check(opCase{name: "Mul onto a " + name, out: startA(exact), in: [][]float32{b},
			run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) { b.Mul(out[0], out[0], in[0]) }})
		s.check(opCase{name: "Mul onto b " + name, out: startA(exact), in: [][]float32{b},
			run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) { b.Mul(out[0], in[0], out[0]) }})
		s.check(opCase{name: "Axpy " + name, out: startA(near), in: [][]float32{b},
			run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) { b.Axpy(out[0], in[0], 0.9) }})
		s.sumSquares(a)
	}
}

// sumSquares compares the float64 sums: they differ by the order of addition only.
func (s *suite) sumSquares(x []float32) {
	s.t.Helper()
	want := s.want.SumSquares(x)
	var got [2]float64
	for shift := range got {
		f := s.place(x, shift)
		got[shift] = s.b.SumSquares(f.inside)
		s.take("SumSquares", f)
	}
	if got[0] != got[1] {
		s.t.Errorf("SumSquares n=%d: %v, then %v", len(x), got[0], got[1])
	}
	if e := math.Abs(got[0] - want); !(e <= 1e-13*want) {
		s.t.Errorf("SumSquares n=%d: %v, want %v", len(x), got[0], want)
	}
}

// blocks checks MulBlocks, AddBlocks and SumBlocks: scaling columns, rows and items.
func blocks(s *suite) {
	for _, z := range []struct{ outer, n, inner int }{
		{0, 3, 2}, {1, 1, 1}, {3, 5, 1}, {7, 17, 1}, {33, 31, 1}, {5, 64, 1}, {1, 7, 33}, {1, 33, 16}, {1, 3, 1001}, {3, 5, 7}, {2, 17, 31}, {64, 320, 1}, {1, 5, 64}, {300, 3, 1}, {1, 1, 5000},
	} {
		x, a, b := s.standard(z.outer*z.n*z.inner), s.standard(z.n), s.standard(z.outer*z.n*z.inner)
		name := fmt.Sprintf("outer=%d len(s)=%d inner=%d", z.outer, z.n, z.inner)
		fresh, onto := []output{{n: len(x)}}, []output{{n: len(x), init: x}}
		if len(x) == 0 {
			onto = fresh
		}
		s.check(opCase{name: "MulBlocks " + name, out: fresh, in: [][]float32{x, a},
			run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) {
				b.MulBlocks(out[0], in[0], in[1], z.inner)
			}})
		s.check(opCase{name: "MulBlocks onto itself " + name, out: onto, in: [][]float32{a},
			run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) {
				b.MulBlocks(out[0], out[0], in[0], z.inner)
			}})
		s.check(opCase{name: "AddBlocks " + name, out: fresh, in: [][]float32{x, a},
			run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) {
				b.AddBlocks(out[0], in[0], in[1], z.inner)
			}})
		s.check(opCase{name: "AddBlocks onto itself " + name, out: onto, in: [][]float32{a},
			run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) {
				b.AddBlocks(out[0], out[0], in[0], z.inner)
			}})
		sum := []output{{n: z.n, tol: s.tol.Sum, floor: math.Sqrt(float64(max(1, z.outer*z.inner)))}}
		for _, b := range [][]float32{nil, b} {
			s.check(opCase{name: fmt.Sprintf("SumBlocks %s b=%t", name, b != nil), out: sum, in: [][]float32{x, b},
				run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) {
					b.SumBlocks(out[0], in[0], in[1], z.inner)
				}})
		}
	}
}

// dropout checks Dropout, whose drawn words are part of its definition, and that it drops the share it should.
func dropout(s *suite) {
	on := []float32{math.Float32frombits(0x12345678), math.Float32frombits(0xff9abcde), 1} // the second is a NaN: a bit pattern like any other
	off := []float32{on[0], on[1], 0}
	for _, n := range lengths {
		x := s.standard(n)
		for _, p := range []float32{0, 0.1, 0.5, 0.9} {
			for _, seed := range [][]float32{on, off} {
				for _, salt := range []uint64{0, 7, 1<<40 + 3} {
					out := []output{{n: n, tol: s.tol.Rounding}}
					if seed[2] == 0 {
						out[0].tol = 0
					}
					name := fmt.Sprintf("Dropout n=%d p=%v salt=%d on=%v", n, p, salt, seed[2])
					s.check(opCase{name: name, out: out, in: [][]float32{x, seed},
						run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) {
							b.Dropout(out[0], in[0], in[1], salt, p)
						}})
					out[0].init = x
					s.check(opCase{name: name + " onto itself", out: out, in: [][]float32{seed},
						run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) {
							b.Dropout(out[0], out[0], in[0], salt, p)
						}})
				}
			}
		}
	}
	s.dropShare(s.t, on)
}

// dropShare counts zeros among n ones: p·n, give or take five deviations of a binomial count.
func (s *suite) dropShare(t testing.TB, seed []float32) {
	t.Helper()
	const n, p = 100000, 0.3
	ones, y := slices.Repeat([]float32{1}, n), make([]float32, n)
	s.want.Dropout(y, ones, seed, 5, p)
	zeros := 0
	for _, v := range y {
		if v == 0 {
			zeros++
		}
	}
	if d := math.Abs(float64(zeros) - p*n); d > 5*math.Sqrt(n*p*(1-p)) {
		t.Errorf("Dropout p=%v: %d of %d dropped", p, zeros, n)
	}
}

// loss checks SquaredError and its gradient.
func loss(s *suite) {
	for _, z := range []struct{ n, per int }{{1, 1}, {1, 5}, {3, 7}, {2, 33}, {5, 64}, {1, 4096}, {4, 1025}} {
		pred, target, dloss := s.standard(z.n*z.per), s.standard(z.n*z.per), s.standard(z.n)
		name := fmt.Sprintf("n=%d per=%d", z.n, z.per)
		s.check(opCase{name: "SquaredError " + name, out: []output{{n: z.n, tol: s.tol.Sum}}, in: [][]float32{pred, target},
			run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) {
				b.SquaredError(out[0], in[0], in[1], z.n)
			}})
		s.check(opCase{name: "SquaredErrorGrad " + name, out: []output{{n: len(pred), tol: 2 * s.tol.Rounding}}, in: [][]float32{dloss, pred, target},
			run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) {
				b.SquaredErrorGrad(out[0], in[0], in[1], in[2], z.n)
			}})
	}
}

// adamW checks AdamW from zero and from a running state.
func adamW(s *suite) {
	for _, n := range lengths {
		for _, a := range []kernels.AdamW{
			{LR: 1e-3, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, Decay: 0.01, Step: 1, GradScale: 1},
			{LR: 1e-4, Beta1: 0.9, Beta2: 0.99, Eps: 1e-8, Step: 2, GradScale: 0.25},
			{LR: 0.1, Beta1: 0.8, Beta2: 0.999, Eps: 1e-6, Decay: 0.1, Step: 1000, GradScale: 3},
		} {
			g := s.normal(n, 0, 0.01)
			p, m, v := s.standard(n), s.normal(n, 0, 0.01), s.normal(n, 0, 0.01)
			for i := range v {
				v[i] = v[i]*v[i] + 1e-6
			}
			if a.Step == 1 { // from zero, so that p is the update itself
				p, m, v = make([]float32, n), make([]float32, n), make([]float32, n)
			}
			tol := 4 * s.tol.Rounding // moments, root, quotient and step round one after the other
			s.check(opCase{name: fmt.Sprintf("AdamW n=%d step=%d", n, a.Step), in: [][]float32{g},
				out: []output{{n: n, init: p, tol: tol}, {n: n, init: m, tol: tol}, {n: n, init: v, tol: tol}},
				run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) {
					b.AdamW(out[0], out[1], out[2], in[0], a)
				}})
		}
	}
	for _, shape := range [][]int{{1, 1}, {5, 7}, {33, 17}, {65, 40}, {17, 9, 3, 3}, {32, 16, 3, 3}} {
		for _, dtype := range dtypes {
			n := tensor.Elems(shape)
			p, m, v, g := s.standard(n), s.normal(n, 0, 0.01), s.normal(n, 0, 0.01), s.normal(n, 0, 0.01)
			for i := range v {
				v[i] = v[i]*v[i] + 1e-6
			}
			tol := 4 * s.tol.Rounding
			for _, decay := range []float64{0, 0.3} {
				s.check(opCase{name: fmt.Sprintf("AdamW of a difference to %s %v, decay %g", dtype, shape, decay), weight: s.weight(dtype, shape...), in: [][]float32{g},
					out: []output{{n: n, init: p, tol: tol, floor: 1}, {n: n, init: m, tol: tol}, {n: n, init: v, tol: tol}},
					run: func(b kernels.Backend, w kernels.Weight, out, in [][]float32) {
						b.AdamW(out[0], out[1], out[2], in[0], kernels.AdamW{LR: 0.1, Beta1: 0.9, Beta2: 0.99, Eps: 1e-8, Decay: decay, Step: 3, GradScale: 0.5, Origin: w})
					}})
			}
		}
	}
}
