#include "kernels.h"

void lyc_mul_blocks(const lyc_cpu *e, float *y, const float *x, const float *s, lyc_blocks_size z) { e->kernels->blocks->mul(e, y, x, s, z); }

void lyc_add_blocks(const lyc_cpu *e, float *y, const float *x, const float *s, lyc_blocks_size z) { e->kernels->blocks->add(e, y, x, s, z); }

void lyc_sum_blocks(const lyc_cpu *e, float *s, const float *a, const float *b, lyc_blocks_size z) { e->kernels->blocks->sum(e, s, a, b, z); }

lyc_bytes lyc_sum_blocks_scratch(const lyc_cpu *e, lyc_blocks_size z) { return e->kernels->blocks->sum_scratch(z); }

void lyc_squared_error(const lyc_cpu *e, float *loss, const float *pred, const float *target, int64_t n, int64_t per) {
    e->kernels->blocks->squared_error(e, loss, pred, target, n, per);
}

lyc_bytes lyc_squared_error_scratch(const lyc_cpu *e, int64_t n, int64_t per) { return e->kernels->blocks->squared_error_scratch(n, per); }

void lyc_squared_error_grad(const lyc_cpu *e, float *dpred, const float *dloss, const float *pred, const float *target, int64_t n, int64_t per) {
    e->kernels->blocks->squared_error_grad(e, dpred, dloss, pred, target, n, per);
}

double lyc_sum_squares(const lyc_cpu *e, const float *x, int64_t n) { return e->kernels->blocks->sum_squares(e, x, n); }
