#include "kernels.h"

void lyc_linear_changed(const lyc_cpu *e, float *y, const float *x, lyc_weight w, const float *d, int64_t m, lyc_epilogue ep) {
    e->kernels->changed->linear(e, y, x, w, d, m, ep);
}

void lyc_adamw_changed(const lyc_cpu *e, float *p, float *m, float *v, const float *g, lyc_adamw_step s, lyc_weight w, float origin) {
    e->kernels->changed->adamw(e, p, m, v, g, s, w, origin);
}
