// Rotations from skew matrices, in double precision throughout: blocks are small, and errors of a rotation grow with the number of stages it passes.
#ifndef LYC_CAYLEY_H
#define LYC_CAYLEY_H

#include "gemm.h"

#include <stdint.h>

// n blocks of s×s. Q = a − aᵀ per block; with limit > 0 and q = ‖Q‖ + 1e-8 over all blocks above it, Q is multiplied by limit/q.
typedef struct lyc_cayley_size {
    int64_t n, s;
    float limit;
} lyc_cayley_size;

typedef struct lyc_cayley_table {
    // r = (I+Q)·(I−Q)⁻¹
    void (*cayley)(const struct lyc_cpu *e, float *r, const float *a, lyc_cayley_size s);
    // da from dr: GQ = 2·Xᵀ·dr·Xᵀ with X = (I+r)/2; where the bound acts on Q0 = a − aᵀ, GQ becomes limit/q·(GQ − ⟨GQ,Q0⟩/(q·‖Q0‖)·Q0); da = GQ − GQᵀ.
    void (*grad)(const struct lyc_cpu *e, float *da, const float *dr, const float *r, const float *a, lyc_cayley_size s);
} lyc_cayley_table;

void lyc_cayley(const struct lyc_cpu *e, float *r, const float *a, lyc_cayley_size s);
void lyc_cayley_grad(const struct lyc_cpu *e, float *da, const float *dr, const float *r, const float *a, lyc_cayley_size s);
lyc_bytes lyc_cayley_scratch(lyc_cayley_size s);

#endif
