// Softmax attention per head, forward and gradient, in tiles that never form the whole score matrix.
//
// After Dao et al., FlashAttention (2022), algorithms 1 and 4, everything transposed: a panel of NR queries is the vector dimension, so that
// the softmax is vertical arithmetic without shuffles and the probabilities are the panel operand of the next product as they lie.
//
//     S^T = K_block (c Q)^T            m' = max(m, colmax S^T), P^T = 2^(S^T - m')        c = scale·log2 e
//     O^T = 2^(m - m') O^T + V_block^T P^T                       sum = 2^(m - m') sum + colsum P^T
//
// and, with D = rowsum(dO o O), for the gradient
//
//     P^T = 2^(S^T - lse·log2 e)       dS^T = P^T o (V dO^T - D)
//     dV += P^T dO                     dK += scale dS^T Q           dQ^T += scale K^T dS^T
//
// K and V are read in place. The forward pass is split over batch, heads and blocks of queries. The gradient is split over batch, heads and, where those are few,
// parts of the queries: parts depend on the sizes only, each has its own dK and dV, and they are added in their order.
#ifndef LYC_ATTENTION_H
#define LYC_ATTENTION_H

#include <stdint.h>

#include "gemm.h"

struct lyc_cpu;

// Sizes: q, out and their gradients [n,tq,heads·d], k, v and theirs [n,tk,heads·d], lse [n,heads,tq]; head h is columns [h·d,(h+1)·d).
// tk >= 1. causal: query i sees keys 0..i.
typedef struct lyc_attention_size {
    int64_t n, heads, tq, tk, d;
    float scale;
    int32_t causal;
} lyc_attention_size;

// One set of functions per instruction set. Sizes have been checked; scratch is reserved. Outputs are assigned and overlap nothing.
typedef struct lyc_attention_table {
    // out = softmax(scale·q·kᵀ)·v and lse = the log of each query's sum of exponentials (NULL skips it)
    void (*forward)(const struct lyc_cpu *e, float *out, float *lse, const float *q, const float *k, const float *v, lyc_attention_size s);
    // the gradients of forward at its results out and lse; dq, dk or dv may be NULL
    void (*grad)(const struct lyc_cpu *e, float *dq, float *dk, float *dv, const float *dout, const float *out, const float *lse,
                 const float *q, const float *k, const float *v, lyc_attention_size s);
    lyc_bytes (*forward_scratch)(lyc_attention_size s);
    lyc_bytes (*grad_scratch)(lyc_attention_size s);
} lyc_attention_table;

void lyc_attention(const struct lyc_cpu *e, float *out, float *lse, const float *q, const float *k, const float *v, lyc_attention_size s);
void lyc_attention_grad(const struct lyc_cpu *e, float *dq, float *dk, float *dv, const float *dout, const float *out, const float *lse,
                        const float *q, const float *k, const float *v, lyc_attention_size s);
lyc_bytes lyc_attention_scratch(const struct lyc_cpu *e, lyc_attention_size s);
lyc_bytes lyc_attention_grad_scratch(const struct lyc_cpu *e, lyc_attention_size s);

#endif
