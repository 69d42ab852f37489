// Linear layers whose weight is a frozen one and a trained difference: y = x·(W+D)ᵀ, without storing W + D: it is added up where a panel of it is read.
#ifndef LYC_CHANGED_H
#define LYC_CHANGED_H

#include "elementwise.h"
#include "gemm.h"

// w is [out,in], one tap; d is row-major [out,in]. Scratch is that of lyc_linear.
typedef struct lyc_changed_table {
    // y [m,out] = x [m,in]·(w+d)ᵀ + epilogue
    void (*linear)(const struct lyc_cpu *e, float *y, const float *x, lyc_weight w, const float *d, int64_t m, lyc_epilogue ep);
    // lyc_adamw of p, row-major like w of any taps, and then p += origin·w, while p is in the cache
    void (*adamw)(const struct lyc_cpu *e, float *p, float *m, float *v, const float *g, lyc_adamw_step s, lyc_weight w, float origin);
} lyc_changed_table;

void lyc_linear_changed(const struct lyc_cpu *e, float *y, const float *x, lyc_weight w, const float *d, int64_t m, lyc_epilogue ep);
void lyc_adamw_changed(const struct lyc_cpu *e, float *p, float *m, float *v, const float *g, lyc_adamw_step s, lyc_weight w, float origin);

#endif
