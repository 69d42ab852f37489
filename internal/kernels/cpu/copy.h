// Ops that move values: exact, but for the sums of the scatter and of the upsampling's gradient. Sources and destinations don't overlap.
#ifndef LYC_COPY_H
#define LYC_COPY_H

#include <stdint.h>

struct lyc_cpu;

// A copy of an array whose axes are taken in another order: size[i] and stride[i] (elements of the source) for axis i of the destination, which is
// contiguous. axes is 1 or more; no size is 0.
typedef struct lyc_permutation {
    int32_t axes;
    int64_t size[6], stride[6];
} lyc_permutation;

typedef struct lyc_copy_table {
    // dst[r·dst_ld + j] = src[r·src_ld + j] for r < rows, j < cols
    void (*columns)(const struct lyc_cpu *e, float *dst, int64_t dst_ld, const float *src, int64_t src_ld, int64_t rows, int64_t cols);
    void (*permute)(const struct lyc_cpu *e, float *y, const float *x, lyc_permutation p);
    // y[i,:] = x[index[i],:], rows of d
    void (*gather)(const struct lyc_cpu *e, float *y, const float *x, const int32_t *index, int64_t n, int64_t d);
    // y [rows,d] = 0, then y[index[i],:] += x[i,:] in the order of i
    void (*scatter)(const struct lyc_cpu *e, float *y, const float *x, const int32_t *index, int64_t n, int64_t rows, int64_t d);
    // y [n,2h,2w,c] = nearest neighbour of x [n,h,w,c], rows = n·h; and its gradient, dx = the sum of four
    void (*upsample)(const struct lyc_cpu *e, float *y, const float *x, int64_t rows, int64_t w, int64_t c);
    void (*upsample_grad)(const struct lyc_cpu *e, float *dx, const float *dy, int64_t rows, int64_t w, int64_t c);
} lyc_copy_table;

void lyc_copy_columns(const struct lyc_cpu *e, float *dst, int64_t dst_ld, const float *src, int64_t src_ld, int64_t rows, int64_t cols);
void lyc_permute(const struct lyc_cpu *e, float *y, const float *x, lyc_permutation p);
void lyc_gather(const struct lyc_cpu *e, float *y, const float *x, const int32_t *index, int64_t n, int64_t d);
void lyc_scatter(const struct lyc_cpu *e, float *y, const float *x, const int32_t *index, int64_t n, int64_t rows, int64_t d);
void lyc_upsample(const struct lyc_cpu *e, float *y, const float *x, int64_t rows, int64_t w, int64_t c);
void lyc_upsample_grad(const struct lyc_cpu *e, float *dx, const float *dy, int64_t rows, int64_t w, int64_t c);

#endif
