#include "kernels.h"

void lyc_groupnorm(const lyc_cpu *e, float *y, float *stats, const float *x, const float *gamma, const float *beta, lyc_groupnorm_size s) {
    e->kernels->norm->group(e, y, stats, x, gamma, beta, s);
}

void lyc_groupnorm_grad(const lyc_cpu *e, float *dx, const float *dy, const float *x, const float *stats, const float *gamma,
                        const float *beta, const float *add, lyc_groupnorm_size s) {
    e->kernels->norm->group_grad(e, dx, dy, x, stats, gamma, beta, add, s);
}

void lyc_groupnorm_param_grad(const lyc_cpu *e, float *dgamma, float *dbeta, const float *dy, const float *x, const float *stats,
                              const float *gamma, const float *beta, lyc_groupnorm_size s) {
    e->kernels->norm->group_param_grad(e, dgamma, dbeta, dy, x, stats, gamma, beta, s);
}

lyc_bytes lyc_groupnorm_scratch(const lyc_cpu *e, lyc_groupnorm_size s) { return e->kernels->norm->group_scratch(s); }

void lyc_layernorm(const lyc_cpu *e, float *y, float *stats, const float *x, const float *gamma, const float *beta, lyc_layernorm_size s) {
    e->kernels->norm->layer(e, y, stats, x, gamma, beta, s);
}

void lyc_layernorm_grad(const lyc_cpu *e, float *dx, const float *dy, const float *x, const float *stats, const float *gamma,
                        const float *add, lyc_layernorm_size s) {
    e->kernels->norm->layer_grad(e, dx, dy, x, stats, gamma, add, s);
}

void lyc_layernorm_param_grad(const lyc_cpu *e, float *dgamma, float *dbeta, const float *dy, const float *x, const float *stats,
                              lyc_layernorm_size s) {
    e->kernels->norm->layer_param_grad(e, dgamma, dbeta, dy, x, stats, s);
}

lyc_bytes lyc_layernorm_scratch(const lyc_cpu *e, lyc_layernorm_size s) { return e->kernels->norm->layer_scratch(s); }
