// Arithmetic element by element, and the optimizer's step.
//
// One pass through memory each, cut into runs of elements; no result depends on the cut. y may be any operand of its own length, exactly; a partial
// overlap is not allowed.
#ifndef LYC_ELEMENTWISE_H
#define LYC_ELEMENTWISE_H

#include <stdint.h>

struct lyc_cpu;

// The constants of one AdamW step, computed in double and rounded once: keep = 1 - lr·decay, step = lr/(1-beta1^t), root = sqrt(1-beta2^t),
// rest1 = 1-beta1, rest2 = 1-beta2.
typedef struct lyc_adamw_step {
    float grad_scale, keep, beta1, rest1, beta2, rest2, step, root, eps;
} lyc_adamw_step;

typedef struct lyc_elementwise_table {
    // y = alpha·a + beta·b
    void (*combine)(const struct lyc_cpu *e, float *y, const float *a, float alpha, const float *b, float beta, int64_t n);
    // y = alpha·x
    void (*scale)(const struct lyc_cpu *e, float *y, const float *x, float alpha, int64_t n);
    // y = a·b
    void (*mul)(const struct lyc_cpu *e, float *y, const float *a, const float *b, int64_t n);
    // y += alpha·x
    void (*axpy)(const struct lyc_cpu *e, float *y, const float *x, float alpha, int64_t n);
    // f = mu·(d/(sqrt(ss) + eps) - 1) + 1, and its gradients: dd = df·mu/n with n = sqrt(ss) + eps, dss = -df·mu·d/(2·n²·sqrt(ss)), 0 where ss is 0; either may be NULL
    void (*norm_ratio)(const struct lyc_cpu *e, float *f, const float *d, const float *ss, float eps, float mu, int64_t n);
    void (*norm_ratio_grad)(const struct lyc_cpu *e, float *dd, float *dss, const float *df, const float *d, const float *ss, float eps, float mu, int64_t n);
    // g = grad_scale·g; m = beta1·m + rest1·g; v = beta2·v + rest2·g²; p = keep·p - step·m/(sqrt(v)/root + eps)
    void (*adamw)(const struct lyc_cpu *e, float *p, float *m, float *v, const float *g, int64_t n, lyc_adamw_step s);
} lyc_elementwise_table;

void lyc_combine(const struct lyc_cpu *e, float *y, const float *a, float alpha, const float *b, float beta, int64_t n);
void lyc_scale(const struct lyc_cpu *e, float *y, const float *x, float alpha, int64_t n);
void lyc_mul(const struct lyc_cpu *e, float *y, const float *a, const float *b, int64_t n);
void lyc_axpy(const struct lyc_cpu *e, float *y, const float *x, float alpha, int64_t n);
void lyc_norm_ratio(const struct lyc_cpu *e, float *f, const float *d, const float *ss, float eps, float mu, int64_t n);
void lyc_norm_ratio_grad(const struct lyc_cpu *e, float *dd, float *dss, const float *df, const float *d, const float *ss, float eps, float mu, int64_t n);
void lyc_adamw(const struct lyc_cpu *e, float *p, float *m, float *v, const float *g, int64_t n, lyc_adamw_step s);

#endif
