package kernelstest

import (
	"fmt"
	"math"

	"lycoris/internal/kernels"
	"lycoris/internal/tensor"
)

// linear checks Linear and LinearGrad at odd sizes and at the borders of tiles of 6×16 and 12×32 and of depth 256 and 384.
func linear(s *suite) {
	for _, size := range []kernels.LinearSize{
		{M: 0, O: 16, I: 8}, {M: 1, O: 1, I: 1}, {M: 3, O: 5, I: 7}, {M: 5, O: 3, I: 17}, {M: 7, O: 17, I: 31}, {M: 17, O: 33, I: 3}, {M: 31, O: 7, I: 33}, {M: 33, O: 31, I: 5},
		{M: 6, O: 16, I: 32}, {M: 12, O: 32, I: 64}, {M: 5, O: 15, I: 383}, {M: 7, O: 17, I: 385}, {M: 13, O: 33, I: 257}, {M: 11, O: 31, I: 255},
		{M: 64, O: 64, I: 64}, {M: 65, O: 63, I: 65}, {M: 2, O: 320, I: 320}, {M: 77, O: 48, I: 96}, {M: 200, O: 40, I: 48}, {M: 1, O: 130, I: 770},
	} {
		if n := s.b.ScratchBytes(size); n < 0 {
			s.t.Errorf("%+v: scratch of %d bytes", size, n)
		}
		for _, dtype := range dtypes {
			w := s.weight(dtype, size.O, size.I)
			name := fmt.Sprintf("%s m=%d o=%d i=%d", dtype, size.M, size.O, size.I)
			s.linearForward(name, w, size)
			s.linearGrad(name, w, size)
		}
	}
	// A 1×1 kernel counts as a matrix.
	w := s.weight(dtypes[1], 17, 9, 1, 1)
	s.linearForward("1×1 kernel", w, kernels.LinearSize{M: 5, O: 17, I: 9})
}

// epilogues returns each combination of an epilogue's fields that occurs in the models, and all of them.
func (s *suite) epilogues(rows, outputs, items int) []struct {
	name string
	kernels.Epilogue
} {
	bias, perItem, add := s.standard(outputs), s.standard(items*outputs), s.standard(rows*outputs)
	return []struct {
		name string
		kernels.Epilogue
	}{
		{"plain", kernels.Epilogue{}},
		{"bias", kernels.Epilogue{Bias: bias}},
		{"bias and per item", kernels.Epilogue{Bias: bias, PerItem: perItem}},
		{"per item", kernels.Epilogue{PerItem: perItem}},
		{"add", kernels.Epilogue{Add: add}},
		{"all", kernels.Epilogue{Bias: bias, PerItem: perItem, Add: add}},
	}
}

// itemsOf returns a number of items that divides m rows.
func itemsOf(m int) int {
	for _, n := range []int{3, 2} {
		if m > 0 && m%n == 0 {
			return n
		}
	}
	return 1
}

// operands returns the epilogue's fields in the order in which fields takes them.
func operands(x []float32, e kernels.Epilogue) [][]float32 {
	return [][]float32{x, e.Bias, e.PerItem, e.Add}
}

// fields rebuilds an epilogue from operands in a backend's memory.
func fields(in [][]float32) kernels.Epilogue {
	return kernels.Epilogue{Bias: in[1], PerItem: in[2], Add: in[3]}
}

func (s *suite) linearForward(name string, w *tensor.Tensor, size kernels.LinearSize) {
	s.t.Helper()
	x := s.standard(size.M * size.I)
	out := output{n: size.M * size.O, tol: s.tol.Linear, floor: math.Sqrt(float64(size.I))}
	for _, e := range s.epilogues(size.M, size.O, itemsOf(size.M)) {
		s.check(opCase{name: "Linear " + name + " " + e.name, weight: w, out: []output{out}, in: operands(x, e.Epilogue),
			run: func(b kernels.Backend, w kernels.Weight, out, in [][]float32) {
				b.Linear(out[0], in[0], w, size.M, fields(in))
			}})
	}
	out.init = s.standard(out.n)
	s.check(opCase{name: "Linear " + name + " onto itself", weight: w, out: []output{out}, in: [][]float32{x},
		run: func(b kernels.Backend, w kernels.Weight, out, in [][]float32) {
			b.Linear(out[0], in[0], w, size.M, kernels.Epilogue{Add: out[0]})
		}})
}

func (s *suite) linearGrad(name string, w *tensor.Tensor, size kernels.LinearSize) {
	s.t.Helper()
	dy, add := s.standard(size.M*size.O), s.standard(size.M*size.I)
	out := output{n: size.M * size.I, tol: s.tol.Linear, floor: math.Sqrt(float64(size.O))}
	for _, add := range [][]float32{nil, add} {
		s.check(opCase{name: fmt.Sprintf("LinearGrad %s add=%t", name, add != nil), weight: w, out: []output{out}, in: [][]float32{dy, add},
			run: func(b kernels.Backend, w kernels.Weight, out, in [][]float32) {
				b.LinearGrad(out[0], in[0], w, size.M, in[1])
			}})
	}
	out.init = add
	s.check(opCase{name: "LinearGrad " + name + " onto itself", weight: w, out: []output{out}, in: [][]float32{dy},
		run: func(b kernels.Backend, w kernels.Weight, out, in [][]float32) {
			b.LinearGrad(out[0], in[0], w, size.M, out[0])
		}})
}

// expand checks Expand for matrices and kernels, alone and with an operand that is the output itself.
func expand(s *suite) {
	for _, shape := range [][]int{{1, 1}, {5, 7}, {33, 17}, {16, 32}, {65, 40}, {7, 5, 1, 1}, {17, 9, 3, 3}, {32, 16, 3, 3}} {
		for _, dtype := range dtypes {
			w := s.weight(dtype, shape...)
			n := tensor.Elems(shape)
			for _, add := range [][]float32{nil, s.standard(n)} {
				s.check(opCase{name: fmt.Sprintf("Expand %s %v add=%v", dtype, shape, add != nil), weight: w, out: []output{{n: n}}, in: [][]float32{add},
					run: func(b kernels.Backend, w kernels.Weight, out, in [][]float32) { b.Expand(out[0], w, in[0]) }})
			}
		}
	}
}
