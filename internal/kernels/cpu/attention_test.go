//go:build cgo

package cpu

import (
	"fmt"
	"math"
	"testing"

	"lycoris/internal/kernels"
)

// The sizes reach over the borders of key blocks (128), query blocks and parts of the gradient (128), vectors and panels; heads of every width
// class of the gradient's strips, odd ones among them; key counts of one, two and three text windows.
var attentionSizes = []kernels.Attention{
	{N: 1, Heads: 1, TQ: 1, TK: 1, D: 1},
	{N: 2, Heads: 3, TQ: 33, TK: 227, D: 20},
	{N: 1, Heads: 8, TQ: 70, TK: 77, D: 40},
	{N: 1, Heads: 2, TQ: 300, TK: 300, D: 8},
	{N: 1, Heads: 1, TQ: 130, TK: 129, D: 24},
	{N: 1, Heads: 1, TQ: 259, TK: 131, D: 160},
	{N: 1, Heads: 2, TQ: 129, TK: 257, D: 80},
	{N: 1, Heads: 3, TQ: 48, TK: 128, D: 33},
	{N: 2, Heads: 1, TQ: 31, TK: 154, D: 104},
	{N: 1, Heads: 1, TQ: 65, TK: 140, D: 512},
	{N: 2, Heads: 2, TQ: 77, TK: 77, D: 64, Causal: true},
	{N: 1, Heads: 2, TQ: 290, TK: 290, D: 16, Causal: true},
	{N: 1, Heads: 2, TQ: 150, TK: 40, D: 24, Causal: true},
	{N: 1, Heads: 1, TQ: 5, TK: 300, D: 56, Causal: true},
}

func TestAttention(t *testing.T) {
	type sample struct {
		s                                   kernels.Attention
		q, k, v, dout, out, lse, dq, dk, dv []float32
	}
	var samples []sample
	for i, s := range attentionSizes {
		s.Scale = float32(1 / math.Sqrt(float64(s.D)))
		width, seed := s.Heads*s.D, uint64(10*i)
		c := sample{s: s, q: values(t, seed, s.N*s.TQ*width), k: values(t, seed+1, s.N*s.TK*width), v: values(t, seed+2, s.N*s.TK*width)}
		for j := range c.q {
			c.q[j] *= 3 // so that some weights are near 1 and most are small
		}
		c.dout = values(t, seed+3, len(c.q))
		c.out, c.lse = guarded(t, len(c.q)), guarded(t, s.N*s.Heads*s.TQ)
		reference.Attention(c.out, c.lse, c.q, c.k, c.v, s)
		c.dq, c.dk, c.dv = make([]float32, len(c.q)), make([]float32, len(c.k)), make([]float32, len(c.k))
		reference.AttentionGrad(c.dq, c.dk, c.dv, c.dout, c.out, c.lse, c.q, c.k, c.v, s)
		samples = append(samples, c)
	}
	const tol = 5e-6
	forEach(t, Options{}, func(t *testing.T, backends []*Backend) {
		for _, c := range samples {
			name := fmt.Sprintf("%+v", c.s)
			checkAll(t, "Attention "+name, backends, []result{{"out", c.out, nil, tol, 0}, {"lse", c.lse, nil, tol, 1}}, func(b *Backend, out [][]float32) {
				b.Attention(out[0], out[1], c.q, c.k, c.v, c.s)
			})
			checkAll(t, "Attention without lse "+name, backends[:1], []result{{"out", c.out, nil, tol, 0}}, func(b *Backend, out [][]float32) {
				b.Attention(out[0], nil, c.q, c.k, c.v, c.s)
			})
			all := []result{{"dq", c.dq, nil, tol, 1}, {"dk", c.dk, nil, tol, 1}, {"dv", c.dv, nil, tol, 1}}
			checkAll(t, "AttentionGrad "+name, backends, all, func(b *Backend, out [][]float32) {
				b.AttentionGrad(out[0], out[1], out[2], c.dout, c.out, c.lse, c.q, c.k, c.v, c.s)
			})
			for skip := 1; skip < 7; skip++ { // bit i set: output i is nil
				var wanted []result
				for i, r := range all {
					if skip>>i&1 == 0 {
						wanted = append(wanted, r)
					}
				}
				checkAll(t, fmt.Sprintf("AttentionGrad, nil %03b %s", skip, name), backends[1:2], wanted, func(b *Backend, out [][]float32) {
					var g [3][]float32
					for i := range g {
						if skip>>i&1 == 0 {
							g[i], out = out[0], out[1:]
						}
					}
					b.AttentionGrad(g[0], g[1], g[2], c.dout, c.out, c.lse, c.q, c.k, c.v, c.s)
				})
			}
		}
	})
}

// A softmax that sees one key only, by hundreds, must be that key's value exactly, and keep no trace of the others.
func TestAttentionSharp(t *testing.T) {
	s := kernels.Attention{N: 1, Heads: 1, TQ: 40, TK: 200, D: 8, Scale: 1}
	q, k, v := guarded(t, s.TQ*s.D), guarded(t, s.TK*s.D), values(t, 1, s.TK*s.D)
	want := make([]float32, len(q))
	for i := range s.TQ {
		q[i*s.D] = 1
	}
	const key = 150
	k[key*s.D] = 400
	for i := range s.TQ {
		copy(want[i*s.D:], v[key*s.D:(key+1)*s.D])
	}
	lse := make([]float32, s.TQ)
	for i := range lse {
		lse[i] = 400
	}
	forEach(t, Options{}, func(t *testing.T, backends []*Backend) {
		checkAll(t, "Attention", backends, []result{{"out", want, nil, 0, 0}, {"lse", lse, nil, 1e-6, 0}}, func(b *Backend, out [][]float32) {
			b.Attention(out[0], out[1], q, k, v, s)
		})
	})
}

// Scratch stays within what the planner may count on: one panel set per thread, and no more than 64 MiB for the parts.
func TestAttentionScratch(t *testing.T) {
	b, err := Open(Options{Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for _, s := range []kernels.Attention{
		{N: 1, Heads: 8, TQ: 4096, TK: 4096, D: 40}, {N: 4, Heads: 8, TQ: 9216, TK: 9216, D: 40}, {N: 1, Heads: 1, TQ: 4096, TK: 4096, D: 512},
	} {
		perQuery := int64(4 * 8 * (s.D + 8))
		if got, most := b.ScratchBytes(s), int64(64<<20)+2*(perQuery*int64(s.TQ)+4<<20); got <= 0 || got > most {
			t.Errorf("ScratchBytes(%+v) = %d, want 1 to %d", s, got, most)
		}
	}
}

// A result that is not a number must show, in its own query and nowhere else.
func TestAttentionNaN(t *testing.T) {
	s := kernels.Attention{N: 1, Heads: 1, TQ: 20, TK: 150, D: 16, Scale: 0.25}
	q, k, v := values(t, 1, s.TQ*s.D), values(t, 2, s.TK*s.D), values(t, 3, s.TK*s.D)
	q[7*s.D+3] = float32(math.NaN())
	forEach(t, Options{}, func(t *testing.T, backends []*Backend) {
		out := guarded(t, len(q))
		backends[0].Attention(out, nil, q, k, v, s)
		for i, x := range out {
			if isNaN := x != x; isNaN != (i/s.D == 7) {
				t.Fatalf("query %d, element %d: %g", i/s.D, i%s.D, x)
			}
		}
	})
}
