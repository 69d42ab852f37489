#include "kernels.h"

void lyc_combine(const lyc_cpu *e, float *y, const float *a, float alpha, const float *b, float beta, int64_t n) {
    e->kernels->elementwise->combine(e, y, a, alpha, b, beta, n);
}

void lyc_scale(const lyc_cpu *e, float *y, const float *x, float alpha, int64_t n) { e->kernels->elementwise->scale(e, y, x, alpha, n); }

void lyc_mul(const lyc_cpu *e, float *y, const float *a, const float *b, int64_t n) { e->kernels->elementwise->mul(e, y, a, b, n); }

void lyc_axpy(const lyc_cpu *e, float *y, const float *x, float alpha, int64_t n) { e->kernels->elementwise->axpy(e, y, x, alpha, n); }

void lyc_norm_ratio(const lyc_cpu *e, float *f, const float *d, const float *ss, float eps, float mu, int64_t n) {
    e->kernels->elementwise->norm_ratio(e, f, d, ss, eps, mu, n);
}

void lyc_norm_ratio_grad(const lyc_cpu *e, float *dd, float *dss, const float *df, const float *d, const float *ss, float eps, float mu, int64_t n) {
    e->kernels->elementwise->norm_ratio_grad(e, dd, dss, df, d, ss, eps, mu, n);
}

void lyc_adamw(const lyc_cpu *e, float *p, float *m, float *v, const float *g, int64_t n, lyc_adamw_step s) {
    e->kernels->elementwise->adamw(e, p, m, v, g, n, s);
}
