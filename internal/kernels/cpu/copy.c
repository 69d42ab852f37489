#include "kernels.h"

void lyc_copy_columns(const lyc_cpu *e, float *dst, int64_t dst_ld, const float *src, int64_t src_ld, int64_t rows, int64_t cols) {
    e->kernels->copy->columns(e, dst, dst_ld, src, src_ld, rows, cols);
}

void lyc_permute(const lyc_cpu *e, float *y, const float *x, lyc_permutation p) { e->kernels->copy->permute(e, y, x, p); }

void lyc_gather(const lyc_cpu *e, float *y, const float *x, const int32_t *index, int64_t n, int64_t d) {
    e->kernels->copy->gather(e, y, x, index, n, d);
}

void lyc_scatter(const lyc_cpu *e, float *y, const float *x, const int32_t *index, int64_t n, int64_t rows, int64_t d) {
    e->kernels->copy->scatter(e, y, x, index, n, rows, d);
}

void lyc_upsample(const lyc_cpu *e, float *y, const float *x, int64_t rows, int64_t w, int64_t c) { e->kernels->copy->upsample(e, y, x, rows, w, c); }

void lyc_upsample_grad(const lyc_cpu *e, float *dx, const float *dy, int64_t rows, int64_t w, int64_t c) {
    e->kernels->copy->upsample_grad(e, dx, dy, rows, w, c);
}
