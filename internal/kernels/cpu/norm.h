// Group and layer normalisation of channels-last data, with gradients.
//
//     xhat = (x - mean)·inverse, inverse = 1/sqrt(var + eps)        z = gamma·xhat + beta        y = z, or silu(z)
//     h = gamma·dz, dz = dy or dy·silu'(z)                          dx = (h - mean(h) - xhat·mean(h·xhat))·inverse + add
//     dgamma = Σ dz·xhat                                            dbeta = Σ dz
//
// Variances are sums of squared distances from a mean: of each channel in a block of pixels first, then joined in double (Chan, Golub and LeVeque, 1979),
// so large means cost no digits. Blocks follow from the sizes, and are joined in their order.
#ifndef LYC_NORM_H
#define LYC_NORM_H

#include <stdint.h>

#include "gemm.h"

struct lyc_cpu;

// x [n,p,c] (p pixels), groups of c/groups channels; stats [n,groups,2] (mean, inverse), gamma and beta [c]. None of the sizes is 0.
typedef struct lyc_groupnorm_size {
    int64_t n, p, c, groups;
    float eps;
    int32_t silu;
} lyc_groupnorm_size;

// x [m,d], each row by itself; stats [m,2], gamma and beta [d]. Neither is 0.
typedef struct lyc_layernorm_size {
    int64_t m, d;
    float eps;
} lyc_layernorm_size;

// One set of functions per instruction set. Outputs are assigned; dx may be add and nothing else overlaps. add, dgamma and dbeta may be NULL.
typedef struct lyc_norm_table {
    void (*group)(const struct lyc_cpu *e, float *y, float *stats, const float *x, const float *gamma, const float *beta, lyc_groupnorm_size s);
    void (*group_grad)(const struct lyc_cpu *e, float *dx, const float *dy, const float *x, const float *stats, const float *gamma,
                       const float *beta, const float *add, lyc_groupnorm_size s);
    void (*group_param_grad)(const struct lyc_cpu *e, float *dgamma, float *dbeta, const float *dy, const float *x, const float *stats,
                             const float *gamma, const float *beta, lyc_groupnorm_size s);
    lyc_bytes (*group_scratch)(lyc_groupnorm_size s); // of any of the three
    void (*layer)(const struct lyc_cpu *e, float *y, float *stats, const float *x, const float *gamma, const float *beta, lyc_layernorm_size s);
    void (*layer_grad)(const struct lyc_cpu *e, float *dx, const float *dy, const float *x, const float *stats, const float *gamma,
                       const float *add, lyc_layernorm_size s);
    void (*layer_param_grad)(const struct lyc_cpu *e, float *dgamma, float *dbeta, const float *dy, const float *x, const float *stats,
                             lyc_layernorm_size s);
    lyc_bytes (*layer_scratch)(lyc_layernorm_size s); // of layer_param_grad; the others need none
} lyc_norm_table;

void lyc_groupnorm(const struct lyc_cpu *e, float *y, float *stats, const float *x, const float *gamma, const float *beta, lyc_groupnorm_size s);
void lyc_groupnorm_grad(const struct lyc_cpu *e, float *dx, const float *dy, const float *x, const float *stats, const float *gamma,
                        const float *beta, const float *add, lyc_groupnorm_size s);
void lyc_groupnorm_param_grad(const struct lyc_cpu *e, float *dgamma, float *dbeta, const float *dy, const float *x, const float *stats,
                              const float *gamma, const float *beta, lyc_groupnorm_size s);
lyc_bytes lyc_groupnorm_scratch(const struct lyc_cpu *e, lyc_groupnorm_size s);
void lyc_layernorm(const struct lyc_cpu *e, float *y, float *stats, const float *x, const float *gamma, const float *beta, lyc_layernorm_size s);
void lyc_layernorm_grad(const struct lyc_cpu *e, float *dx, const float *dy, const float *x, const float *stats, const float *gamma,
                        const float *add, lyc_layernorm_size s);
void lyc_layernorm_param_grad(const struct lyc_cpu *e, float *dgamma, float *dbeta, const float *dy, const float *x, const float *stats,
                              lyc_layernorm_size s);
lyc_bytes lyc_layernorm_scratch(const struct lyc_cpu *e, lyc_layernorm_size s);

#endif
