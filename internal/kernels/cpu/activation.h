// Activations, element by element, and the gated one of the feed-forward layers.
//
//     silu(x) = x·σ(x)            gelu(x) = x·Φ(x), Φ the normal distribution function            quick gelu(x) = x·σ(1.702x)
//
// Errors stay near 1e-7 of the value or of 1, whichever is larger, over the whole range; -0, infinities of exp and far tails come out right.
// Work is cut into runs of elements; no result depends on the cut.
#ifndef LYC_ACTIVATION_H
#define LYC_ACTIVATION_H

#include <stdint.h>

struct lyc_cpu;

// The numbers of kernels.Activation.
enum { LYC_SILU, LYC_GELU, LYC_QUICK_GELU };

typedef struct lyc_activation_table {
    // y[i] = f(x[i]); y may be x
    void (*forward)(const struct lyc_cpu *e, float *y, const float *x, int64_t n, int f);
    // dx[i] = dy[i]·f'(x[i]); dx may be dy
    void (*grad)(const struct lyc_cpu *e, float *dx, const float *dy, const float *x, int64_t n, int f);
    // y [m,d] = x[:,:d]·gelu(x[:,d:]) for x [m,2d]
    void (*geglu)(const struct lyc_cpu *e, float *y, const float *x, int64_t m, int64_t d);
    // dx [m,2d] = (dy·gelu(gate), dy·value·gelu'(gate))
    void (*geglu_grad)(const struct lyc_cpu *e, float *dx, const float *dy, const float *x, int64_t m, int64_t d);
} lyc_activation_table;

void lyc_activate(const struct lyc_cpu *e, float *y, const float *x, int64_t n, int f);
void lyc_activate_grad(const struct lyc_cpu *e, float *dx, const float *dy, const float *x, int64_t n, int f);
void lyc_geglu(const struct lyc_cpu *e, float *y, const float *x, int64_t m, int64_t d);
void lyc_geglu_grad(const struct lyc_cpu *e, float *dx, const float *dy, const float *x, int64_t m, int64_t d);

#endif
