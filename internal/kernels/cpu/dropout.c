#include "kernels.h"

void lyc_dropout(const lyc_cpu *e, float *y, const float *x, int64_t n, uint32_t key0, uint32_t key1, uint64_t salt, uint32_t limit, float scale) {
    const uint32_t key[2] = {key0, key1};
    e->kernels->dropout->apply(e, y, x, n, key, salt, limit, scale);
}
