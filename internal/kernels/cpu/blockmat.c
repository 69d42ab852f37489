#include "kernels.h"

void lyc_blockmat(const lyc_cpu *e, float *y, const float *x, const float *r, const float *add, lyc_blockmat_size s) {
    e->kernels->blockmat->product(e, y, x, r, add, s);
}

void lyc_blockmat_grad(const lyc_cpu *e, float *dr, const float *dy, const float *x, lyc_blockmat_size s) {
    e->kernels->blockmat->grad(e, dr, dy, x, s);
}

lyc_bytes lyc_blockmat_scratch(const lyc_cpu *e, lyc_blockmat_size s) { return e->kernels->blockmat->scratch(s); }
