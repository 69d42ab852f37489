// Broadcasts of a short vector over blocks, their gradient, and other sums.
//
// Element i of a long array belongs to block i/inner, and block k to element k mod len of the short one: inner 1 means columns, inner D rows, inner P·C items.
// Sums have pieces that follow from the sizes only; pieces are joined in double, in their order.
#ifndef LYC_BLOCKS_H
#define LYC_BLOCKS_H

#include <stdint.h>

#include "gemm.h"

struct lyc_cpu;

// n elements = outer·len·inner; none of them is 0.
typedef struct lyc_blocks_size {
    int64_t outer, len, inner;
} lyc_blocks_size;

typedef struct lyc_blocks_table {
    // y = x·s and y = x + s, s [len] broadcast; y may be x
    void (*mul)(const struct lyc_cpu *e, float *y, const float *x, const float *s, lyc_blocks_size z);
    void (*add)(const struct lyc_cpu *e, float *y, const float *x, const float *s, lyc_blocks_size z);
    // s[j] = Σ a·b over the blocks of j; b NULL means ones
    void (*sum)(const struct lyc_cpu *e, float *s, const float *a, const float *b, lyc_blocks_size z);
    lyc_bytes (*sum_scratch)(lyc_blocks_size z);
    // loss[i] = mean over item i of (pred - target)², n items of `per` elements
    void (*squared_error)(const struct lyc_cpu *e, float *loss, const float *pred, const float *target, int64_t n, int64_t per);
    lyc_bytes (*squared_error_scratch)(int64_t n, int64_t per);
    // dpred = dloss[i]·2·(pred - target)/per; dpred may be pred or target
    void (*squared_error_grad)(const struct lyc_cpu *e, float *dpred, const float *dloss, const float *pred, const float *target, int64_t n, int64_t per);
    // Σ x², every square and sum in double
    double (*sum_squares)(const struct lyc_cpu *e, const float *x, int64_t n);
} lyc_blocks_table;

void lyc_mul_blocks(const struct lyc_cpu *e, float *y, const float *x, const float *s, lyc_blocks_size z);
void lyc_add_blocks(const struct lyc_cpu *e, float *y, const float *x, const float *s, lyc_blocks_size z);
void lyc_sum_blocks(const struct lyc_cpu *e, float *s, const float *a, const float *b, lyc_blocks_size z);
lyc_bytes lyc_sum_blocks_scratch(const struct lyc_cpu *e, lyc_blocks_size z);
void lyc_squared_error(const struct lyc_cpu *e, float *loss, const float *pred, const float *target, int64_t n, int64_t per);
lyc_bytes lyc_squared_error_scratch(const struct lyc_cpu *e, int64_t n, int64_t per);
void lyc_squared_error_grad(const struct lyc_cpu *e, float *dpred, const float *dloss, const float *pred, const float *target, int64_t n, int64_t per);
double lyc_sum_squares(const struct lyc_cpu *e, const float *x, int64_t n);

#endif
