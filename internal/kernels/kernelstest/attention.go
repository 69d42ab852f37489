package kernelstest

import (
	"fmt"
	"math"

	"lycoris/internal/kernels"
)

// attention checks Attention and AttentionGrad at the models' head sizes, odd sizes, and key blocks of 128 with their borders.
func attention(s *suite) {
	for _, a := range []kernels.Attention{
		{N: 1, Heads: 1, TQ: 1, TK: 1, D: 1}, {N: 1, Heads: 1, TQ: 1, TK: 5, D: 3}, {N: 2, Heads: 3, TQ: 5, TK: 7, D: 5}, {N: 1, Heads: 2, TQ: 17, TK: 17, D: 8},
		{N: 1, Heads: 2, TQ: 31, TK: 33, D: 16}, {N: 1, Heads: 1, TQ: 33, TK: 31, D: 17}, {N: 2, Heads: 2, TQ: 16, TK: 77, D: 40}, {N: 1, Heads: 1, TQ: 64, TK: 128, D: 40},
		{N: 1, Heads: 1, TQ: 127, TK: 129, D: 8}, {N: 1, Heads: 1, TQ: 130, TK: 257, D: 4}, {N: 1, Heads: 2, TQ: 77, TK: 77, D: 64}, {N: 1, Heads: 1, TQ: 65, TK: 64, D: 80},
		{N: 1, Heads: 1, TQ: 15, TK: 20, D: 160}, {N: 1, Heads: 1, TQ: 9, TK: 9, D: 512}, {N: 1, Heads: 8, TQ: 3, TK: 2, D: 40},
	} {
		a.Scale = float32(1 / math.Sqrt(float64(a.D)))
		for _, a.Causal = range []bool{false, true} {
			s.attentionCase(a, 1)
		}
	}
	// Sharp softmaxes: scores of about ±300.
	a := kernels.Attention{N: 1, Heads: 2, TQ: 33, TK: 40, D: 16, Scale: 0.25}
	s.attentionCase(a, 8)
}

func (s *suite) attentionCase(a kernels.Attention, deviation float64) {
	s.t.Helper()
	if n := s.b.ScratchBytes(a); n < 0 {
		s.t.Errorf("%+v: scratch of %d bytes", a, n)
	}
	name := fmt.Sprintf("%+v deviation %v", a, deviation)
	width := a.Heads * a.D
	q, k := s.normal(a.N*a.TQ*width, 0, deviation), s.normal(a.N*a.TK*width, 0, deviation)
	v, dout := s.standard(len(k)), s.standard(len(q))
	out, lse := make([]float32, len(q)), make([]float32, a.N*a.Heads*a.TQ)
	s.want.Attention(out, lse, q, k, v, a)

	s.check(opCase{name: "Attention " + name, in: [][]float32{q, k, v},
		out: []output{{n: len(q), tol: s.tol.Attention, floor: 0.1}, {n: len(lse), tol: s.tol.Attention, floor: 1}},
		run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) {
			b.Attention(out[0], out[1], in[0], in[1], in[2], a)
		}})
	// A score of 300 is known to 300·2^-24, and so is the logarithm of its exponential: sharp softmaxes keep fewer digits.
	tol := s.tol.Attention * max(1, deviation*deviation/4)
	for _, skip := range []int{0, 0b110, 0b001, 0b101} {
		grads := []output{
			{n: len(q), tol: tol, floor: 1, skip: skip&1 != 0}, {n: len(k), tol: tol, floor: 1, skip: skip&2 != 0}, {n: len(v), tol: tol, floor: 1, skip: skip&4 != 0},
		}
		s.check(opCase{name: fmt.Sprintf("AttentionGrad %s nil=%03b", name, skip), out: grads, in: [][]float32{dout, out, lse, q, k, v},
			run: func(b kernels.Backend, _ kernels.Weight, out, in [][]float32) {
				b.AttentionGrad(out[0], out[1], out[2], in[0], in[1], in[2], in[3], in[4], in[5], a)
			}})
	}
}
