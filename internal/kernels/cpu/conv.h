// 2-D convolutions of channels-last images.
//
// 3×3 with stride 1 and padding 1 goes by Winograd's F(4×4,3×3) (Lavin and Gray, 2016), all three products, weights transformed on the fly from their stored
// precision; the points 0, ±3/4, ±3/2, ∞ keep the error near 4e-6 of the largest output. 1×1 is a matrix product. The rest gathers
// rows of the input block by block (im2col) for the matrix kernel. All accumulate in float.
#ifndef LYC_CONV_H
#define LYC_CONV_H

#include <stdint.h>

#include "gemm.h"

struct lyc_cpu;

// Sizes: input [n,h,w,c] before the upsampling, kernel [o,c,kh,kw], output [n,oh,ow,o]. pad_t and pad_l are the zeros above and to the left;
// what lies beyond the input is zero. upsample: the input is doubled by nearest neighbour first. direct: don't use Winograd's method.
typedef struct lyc_conv_size {
    int64_t n, h, w, c, o, kh, kw, stride, pad_t, pad_l, oh, ow;
    int32_t upsample, direct;
} lyc_conv_size;

typedef struct lyc_conv_table {
    // y = conv(x, w) + epilogue
    void (*forward)(const struct lyc_cpu *e, float *y, const float *x, lyc_weight w, lyc_conv_size s, lyc_epilogue ep, float *shared);
    // dx = the gradient with respect to x + add
    void (*grad)(const struct lyc_cpu *e, float *dx, const float *dy, lyc_weight w, lyc_conv_size s, const float *add, float *shared);
    // dw [o,c,kh,kw] = the gradient with respect to the kernel
    void (*weight_grad)(const struct lyc_cpu *e, float *dw, const float *dy, const float *x, lyc_conv_size s);
    // whether forward and grad take a kernel as it lies (LYC_ROWS)
    int (*forward_rows)(lyc_conv_size s);
    int (*grad_rows)(lyc_conv_size s);
    lyc_bytes (*forward_scratch)(lyc_conv_size s);
    lyc_bytes (*grad_scratch)(lyc_conv_size s);
    lyc_bytes (*weight_grad_scratch)(lyc_conv_size s);
} lyc_conv_table;

void lyc_conv(const struct lyc_cpu *e, float *y, const float *x, lyc_weight w, lyc_conv_size s, lyc_epilogue ep);
void lyc_conv_grad(const struct lyc_cpu *e, float *dx, const float *dy, lyc_weight w, lyc_conv_size s, const float *add);
// The same with a kernel that is not frozen: w is row-major [o,c,kh,kw], and laid out in scratch first but for Winograd's products.
void lyc_conv_free(const struct lyc_cpu *e, float *y, const float *x, const float *w, lyc_conv_size s, lyc_epilogue ep);
void lyc_conv_free_grad(const struct lyc_cpu *e, float *dx, const float *dy, const float *w, lyc_conv_size s, const float *add);
void lyc_conv_weight_grad(const struct lyc_cpu *e, float *dw, const float *dy, const float *x, lyc_conv_size s);

// Scratch of lyc_conv, lyc_conv_grad, of the two free ones, and of lyc_conv_weight_grad.
lyc_bytes lyc_conv_scratch(const struct lyc_cpu *e, lyc_conv_size s);
lyc_bytes lyc_conv_grad_scratch(const struct lyc_cpu *e, lyc_conv_size s);
lyc_bytes lyc_conv_free_scratch(const struct lyc_cpu *e, lyc_conv_size s);
lyc_bytes lyc_conv_weight_grad_scratch(const struct lyc_cpu *e, lyc_conv_size s);

#endif
