#include "kernels.h"

void lyc_attention(const lyc_cpu *e, float *out, float *lse, const float *q, const float *k, const float *v, lyc_attention_size s) {
    e->kernels->attention->forward(e, out, lse, q, k, v, s);
}

void lyc_attention_grad(const lyc_cpu *e, float *dq, float *dk, float *dv, const float *dout, const float *out, const float *lse,
                        const float *q, const float *k, const float *v, lyc_attention_size s) {
    e->kernels->attention->grad(e, dq, dk, dv, dout, out, lse, q, k, v, s);
}

lyc_bytes lyc_attention_scratch(const lyc_cpu *e, lyc_attention_size s) { return e->kernels->attention->forward_scratch(s); }

lyc_bytes lyc_attention_grad_scratch(const lyc_cpu *e, lyc_attention_size s) { return e->kernels->attention->grad_scratch(s); }
