package kernelstest

import (
	"fmt"
	"math"

	"lycoris/internal/kernels"
	"lycoris/internal/tensor"
)

// convSizes returns convolutions at odd sizes, at the borders of Winograd's 4×4 tiles and of channel panels, and every kind the models have.
func convSizes() []kernels.Conv {
	var sizes []kernels.Conv
	add := func(n, h, w, c, o, kh, kw, stride, padT, padL, padB, padR int, up bool) {
		s := kernels.Conv{N: n, H: h, W: w, C: c, O: o, KH: kh, KW: kw, Stride: stride, PadT: padT, PadL: padL, Upsample: up}
		if up {
			h, w = 2*h, 2*w
		}
		s.OH, s.OW = (h+padT+padB-kh)/stride+1, (w+padL+padR-kw)/stride+1
		sizes = append(sizes, s)
	}
	for _, z := range []struct{ n, h, w, c, o int }{ // 3×3, stride 1
		{1, 1, 1, 1, 1}, {1, 1, 5, 3, 5}, {1, 3, 1, 5, 3}, {2, 3, 3, 4, 7}, {1, 4, 4, 16, 16}, {1, 5, 7, 17, 33}, {2, 8, 8, 32, 32},
		{1, 9, 4, 33, 31}, {1, 7, 17, 4, 32}, {1, 16, 12, 32, 4}, {3, 4, 5, 8, 65}, {1, 6, 6, 72, 16}, {1, 33, 31, 3, 3}, {1, 4, 4, 330, 17},
	} {
		add(z.n, z.h, z.w, z.c, z.o, 3, 3, 1, 1, 1, 1, 1, false)
	}
	for _, z := range []struct{ n, h, w, c, o int }{ // upsampled, then 3×3
		{1, 1, 1, 3, 5}, {1, 2, 3, 17, 16}, {2, 4, 4, 32, 32}, {1, 3, 5, 8, 33},
	} {
		add(z.n, z.h, z.w, z.c, z.o, 3, 3, 1, 1, 1, 1, 1, true)
	}
	for _, z := range []struct{ n, h, w, c, o int }{ // stride 2: padded all around (UNet), and below and to the right only (VAE)
		{1, 1, 1, 3, 5}, {1, 7, 5, 17, 16}, {2, 8, 8, 32, 33}, {1, 6, 10, 8, 7},
	} {
		add(z.n, z.h, z.w, z.c, z.o, 3, 3, 2, 1, 1, 1, 1, false)
		if z.h > 1 {
			add(z.n, z.h, z.w, z.c, z.o, 3, 3, 2, 0, 0, 1, 1, false)
		}
	}
	add(1, 5, 7, 17, 33, 1, 1, 1, 0, 0, 0, 0, false) // 1×1
	add(2, 4, 4, 32, 16, 1, 1, 1, 0, 0, 0, 0, false)
	add(1, 5, 5, 3, 4, 1, 1, 2, 0, 0, 0, 0, false)
	add(1, 6, 5, 3, 4, 5, 3, 1, 2, 1, 2, 1, false) // other kernels
	add(1, 5, 6, 4, 3, 1, 3, 1, 0, 1, 0, 1, false)
	add(1, 6, 6, 5, 7, 3, 3, 1, 0, 0, 0, 0, false)
	add(1, 5, 4, 6, 5, 3, 3, 1, 2, 0, 0, 2, false)
	add(2, 8, 8, 3, 17, 4, 4, 4, 0, 0, 0, 0, false)
	return sizes
}

// conv checks Conv2d and ConvFree with their gradients.
func conv(s *suite) {
	for i, c := range convSizes() {
		if n := s.b.ScratchBytes(c); n < 0 {
			s.t.Errorf("%+v: scratch of %d bytes", c, n)
		}
		tol := s.tol.Linear
		if c.KH == 3 && c.KW == 3 && c.Stride == 1 {
			tol = s.tol.Winograd
		}
		forward := output{n: c.Rows() * c.O, tol: tol, floor: math.Sqrt(float64(c.C * c.KH * c.KW))}
		backward := output{n: c.N * c.H * c.W * c.C, tol: tol, floor: math.Sqrt(float64(c.O * c.KH * c.KW))}
		x, dy := s.standard(backward.n), s.standard(forward.n)
		sizes := fmt.Sprintf("%+v", c)

		for j, dtype := range dtypes {
			if j != i%3 && i%4 != 0 {
				continue // every size in one precision, every fourth in all
			}
			w := s.weight(dtype, c.O, c.C, c.KH, c.KW)
			if c.KH*c.KW == 1 && j > 0 {
				w.Shape = []int{c.O, c.C}
			}
			name := dtype.String() + " " + sizes
			s.convCases(name, w, c, forward, backward, x, dy)
		}
		s.convFreeCases(sizes, c, forward, backward, x, dy)
	}
}

func (s *suite) convCases(name string, w *tensor.Tensor, c kernels.Conv, forward, backward output, x, dy []float32) {
	s.t.Helper()
	for _, e := range s.epilogues(c.Rows(), c.O, c.N) {
		s.check(opCase{name: "Conv2d " + name + " " + e.name, weight: w, out: []output{forward}, in: operands(x, e.Epilogue),
			run: func(b kernels.Backend, w kernels.Weight, out, in [][]float32) {
				b.Conv2d(out[0], in[0], w, c, fields(in))
			}})
	}
	forward.init = s.standard(forward.n)
	s.check(opCase{name: "Conv2d " + name + " onto itself", weight: w, out: []output{forward}, in: [][]float32{x},
		run: func(b kernels.Backend, w kernels.Weight, out, in [][]float32) {
			b.Conv2d(out[0], in[0], w, c, kernels.Epilogue{Add: out[0]})
		}})
	add := s.standard(backward.n)
	for _, add := range [][]float32{nil, add} {
		s.check(opCase{name: fmt.Sprintf("Conv2dGrad %s add=%t", name, add != nil), weight: w, out: []output{backward}, in: [][]float32{dy, add},
			run: func(b kernels.Backend, w kernels.Weight, out, in [][]float32) {
				b.Conv2dGrad(out[0], in[0], w, c, in[1])
			}})
	}
	backward.init = add
	s.check(opCase{name: "Conv2dGrad " + name + " onto itself", weight: w, out: []output{backward}, in: [][]float32{dy},
		run: func(b kernels.Backend, w kernels.Weight, out, in [][]float32) {
			b.Conv2dGrad(out[0], in[0], w, c, out[0])
		}})
}

func (s *suite) convFreeCases(name string, c kernels.Conv, forward, backward output, x, dy []float32) {
	s.t.Helper()
	w := s.standard(c.O * c.C * c.KH * c.KW)
	all := s.epilogues(c.Rows(), c.O, c.N)
	for _, e := range []kernels.Epilogue{{}, all[len(all)-1].Epilogue} {
		s.check(opCase{name: fmt.Sprintf("ConvFree %s epilogue=%t", name, e.Bias != nil), out: []output{forward}, in: append(operands(x, e), w),
			run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) {
				b.ConvFree(out[0], in[0], in[4], c, fields(in))
			}})
	}
	for _, add := range [][]float32{nil, s.standard(backward.n)} {
		s.check(opCase{name: fmt.Sprintf("ConvFreeGrad %s add=%t", name, add != nil), out: []output{backward}, in: [][]float32{dy, w, add},
			run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) {
				b.ConvFreeGrad(out[0], in[0], in[1], c, in[2])
			}})
	}
	s.check(opCase{name: "ConvWeightGrad " + name, out: []output{{n: len(w), tol: forward.tol, floor: math.Sqrt(float64(c.Rows()))}}, in: [][]float32{dy, x},
		run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) {
			b.ConvWeightGrad(out[0], in[0], in[1], c)
		}})
}
