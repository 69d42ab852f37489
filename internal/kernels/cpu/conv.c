#include "kernels.h"

static float *shared(const lyc_cpu *e) { return lyc_shared(e->pool); }

void lyc_conv(const lyc_cpu *e, float *y, const float *x, lyc_weight w, lyc_conv_size s, lyc_epilogue ep) {
    e->kernels->conv->forward(e, y, x, w, s, ep, shared(e));
}

void lyc_conv_grad(const lyc_cpu *e, float *dx, const float *dy, lyc_weight w, lyc_conv_size s, const float *add) {
    e->kernels->conv->grad(e, dx, dy, w, s, add, shared(e));
}

// free_weight describes a kernel as it lies, or, where rows is 0, lays it out at the start of the shared scratch and moves `shared` behind it.
static lyc_weight free_weight(const lyc_cpu *e, const float *w, lyc_conv_size s, int rows, float **shared) {
    lyc_weight f = {.data = (void *)w, .dtype = LYC_ROWS, .taps = (int32_t)(s.kh * s.kw), .out = s.o, .in = s.c};
    if (rows) return f;
    f.dtype = LYC_F32;
    f.data = *shared;
    lyc_pack(e, f, w);
    *shared += (lyc_weight_bytes(e, f) + 63) / 64 * 16;
    return f;
}

static int64_t free_bytes(const lyc_cpu *e, lyc_conv_size s) {
    lyc_weight w = {.dtype = LYC_F32, .taps = (int32_t)(s.kh * s.kw), .out = s.o, .in = s.c};
    const lyc_conv_table *t = e->kernels->conv;
    return t->forward_rows(s) && t->grad_rows(s) ? 0 : (lyc_weight_bytes(e, w) + 63) / 64 * 64;
}

void lyc_conv_free(const lyc_cpu *e, float *y, const float *x, const float *w, lyc_conv_size s, lyc_epilogue ep) {
    float *rest = shared(e);
    lyc_weight f = free_weight(e, w, s, e->kernels->conv->forward_rows(s), &rest);
    e->kernels->conv->forward(e, y, x, f, s, ep, rest);
}

void lyc_conv_free_grad(const lyc_cpu *e, float *dx, const float *dy, const float *w, lyc_conv_size s, const float *add) {
    float *rest = shared(e);
    lyc_weight f = free_weight(e, w, s, e->kernels->conv->grad_rows(s), &rest);
    e->kernels->conv->grad(e, dx, dy, f, s, add, rest);
}

void lyc_conv_weight_grad(const lyc_cpu *e, float *dw, const float *dy, const float *x, lyc_conv_size s) {
    e->kernels->conv->weight_grad(e, dw, dy, x, s);
}

lyc_bytes lyc_conv_scratch(const lyc_cpu *e, lyc_conv_size s) { return e->kernels->conv->forward_scratch(s); }

lyc_bytes lyc_conv_grad_scratch(const lyc_cpu *e, lyc_conv_size s) { return e->kernels->conv->grad_scratch(s); }

lyc_bytes lyc_conv_free_scratch(const lyc_cpu *e, lyc_conv_size s) {
    lyc_bytes f = lyc_conv_scratch(e, s), g = lyc_conv_grad_scratch(e, s);
    int64_t shared = f.shared > g.shared ? f.shared : g.shared;
    return (lyc_bytes){shared + free_bytes(e, s), f.per_thread > g.per_thread ? f.per_thread : g.per_thread};
}

lyc_bytes lyc_conv_weight_grad_scratch(const lyc_cpu *e, lyc_conv_size s) { return e->kernels->conv->weight_grad_scratch(s); }
