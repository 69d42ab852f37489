//go:build cgo

package cpu

// #include "kernels.h"
import "C"

import (
	"fmt"

	"lycoris/internal/kernels"
)

// Attention writes out [N,TQ,Heads·D] = softmax(scale·q·kᵀ)·v per head and lse [N,Heads,TQ], the log of each query's sum of exponentials; a nil
// lse is skipped.
func (b *Backend) Attention(out, lse, q, k, v []float32, s kernels.Attention) {
	mustAttention("Attention", out, q, k, v, s)
	mustLenOrNil("Attention", "lse", lse, s.N*s.Heads*s.TQ)
	if len(out) == 0 {
		return
	}
	size := attentionSize(s)
	b.reserveBytes(C.lyc_attention_scratch(b.c, size))
	C.lyc_attention(b.c, ptr(out), ptr(lse), ptr(q), ptr(k), ptr(v), size)
}

// AttentionGrad writes the gradients of Attention at its results out and lse; any of dq, dk and dv may be nil.
func (b *Backend) AttentionGrad(dq, dk, dv, dout, out, lse, q, k, v []float32, s kernels.Attention) {
	mustAttention("AttentionGrad", out, q, k, v, s)
	mustLen("AttentionGrad", "lse", lse, s.N*s.Heads*s.TQ)
	mustLen("AttentionGrad", "dout", dout, len(q))
	mustLenOrNil("AttentionGrad", "dq", dq, len(q))
	mustLenOrNil("AttentionGrad", "dk", dk, len(k))
	mustLenOrNil("AttentionGrad", "dv", dv, len(v))
	if len(out) == 0 { // no query: nothing flows to the keys
		clear(dk)
		clear(dv)
		return
	}
	if dq == nil && dk == nil && dv == nil {
		return
	}
	size := attentionSize(s)
	b.reserveBytes(C.lyc_attention_grad_scratch(b.c, size))
	C.lyc_attention_grad(b.c, ptr(dq), ptr(dk), ptr(dv), ptr(dout), ptr(out), ptr(lse), ptr(q), ptr(k), ptr(v), size)
}

// attentionScratch returns the scratch that Attention and AttentionGrad of this size need at once, all threads together.
func (b *Backend) attentionScratch(s kernels.Attention) int64 {
	size := attentionSize(s)
	return max(b.total(C.lyc_attention_scratch(b.c, size)), b.total(C.lyc_attention_grad_scratch(b.c, size)))
}

func attentionSize(s kernels.Attention) C.lyc_attention_size {
	return C.lyc_attention_size{n: C.int64_t(s.N), heads: C.int64_t(s.Heads), tq: C.int64_t(s.TQ), tk: C.int64_t(s.TK), d: C.int64_t(s.D),
		scale: C.float(s.Scale), causal: flag(s.Causal)}
}

// mustAttention checks the operands that both ops have.
func mustAttention(op string, out, q, k, v []float32, s kernels.Attention) {
	width := s.Heads * s.D
	mustLen(op, "q", q, s.N*s.TQ*width)
	mustLen(op, "k", k, s.N*s.TK*width)
	mustLen(op, "v", v, s.N*s.TK*width)
	mustLen(op, "out", out, len(q))
	if s.TK < 1 && len(q) > 0 {
		panic(fmt.Sprintf("cpu: %s: %d queries and no keys", op, s.TQ))
	}
}
