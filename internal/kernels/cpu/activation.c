#include "kernels.h"

void lyc_activate(const lyc_cpu *e, float *y, const float *x, int64_t n, int f) { e->kernels->activation->forward(e, y, x, n, f); }

void lyc_activate_grad(const lyc_cpu *e, float *dx, const float *dy, const float *x, int64_t n, int f) {
    e->kernels->activation->grad(e, dx, dy, x, n, f);
}

void lyc_geglu(const lyc_cpu *e, float *y, const float *x, int64_t m, int64_t d) { e->kernels->activation->geglu(e, y, x, m, d); }

void lyc_geglu_grad(const lyc_cpu *e, float *dx, const float *dy, const float *x, int64_t m, int64_t d) {
    e->kernels->activation->geglu_grad(e, dx, dy, x, m, d);
}
