#include "kernels.h"

int64_t lyc_weight_bytes(const lyc_cpu *e, lyc_weight w) { return e->kernels->gemm->weight_bytes(w); }

void lyc_pack(const lyc_cpu *e, lyc_weight w, const void *src) { e->kernels->gemm->pack(e, w, src); }

void lyc_unpack(const lyc_cpu *e, float *dst, lyc_weight w, const float *add) { e->kernels->gemm->unpack(e, dst, w, add); }

void lyc_linear(const lyc_cpu *e, float *y, const float *x, lyc_weight w, int64_t m, lyc_epilogue ep) {
    e->kernels->gemm->linear(e, y, x, w, m, ep);
}

void lyc_linear_grad(const lyc_cpu *e, float *dx, const float *dy, lyc_weight w, int64_t m, const float *add) {
    e->kernels->gemm->linear_grad(e, dx, dy, w, m, add);
}

lyc_bytes lyc_linear_scratch(const lyc_cpu *e) { return e->kernels->gemm->linear_scratch(); }

void lyc_matmul(const lyc_cpu *e, float *c, const float *a, const float *b, lyc_epilogue ep, lyc_matmul_size s) {
    e->kernels->gemm->matmul(e, c, a, b, ep, s);
}

lyc_bytes lyc_matmul_scratch(const lyc_cpu *e, lyc_matmul_size s) { return e->kernels->gemm->matmul_scratch(s); }
