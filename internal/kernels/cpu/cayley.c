#include "kernels.h"

void lyc_cayley(const lyc_cpu *e, float *r, const float *a, lyc_cayley_size s) { e->kernels->cayley->cayley(e, r, a, s); }

void lyc_cayley_grad(const lyc_cpu *e, float *da, const float *dr, const float *r, const float *a, lyc_cayley_size s) {
    e->kernels->cayley->grad(e, da, dr, r, a, s);
}

// Shared: a partial sum of each block. Each thread: three blocks.
lyc_bytes lyc_cayley_scratch(lyc_cayley_size s) { return (lyc_bytes){8 * s.n, 24 * s.s * s.s}; }
