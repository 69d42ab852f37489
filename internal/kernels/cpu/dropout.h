// Dropout with counted random numbers.
//
// Element i takes word i mod 4 of Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 4.3) with
//
//     counter = (low word of i/4, high word of i/4, low word of salt, high word of salt)        key = (seed[0], seed[1])
//
// and is kept, as x/(1-p), when that word is at least floor(p·2^32); otherwise it becomes 0. A number depends on its address only, so the
// gradient and a second forward draw the same ones.
#ifndef LYC_DROPOUT_H
#define LYC_DROPOUT_H

#include <stdint.h>

struct lyc_cpu;

typedef struct lyc_dropout_table {
    // y[i] = word(i) >= limit ? x[i]·scale : 0; y may be x
    void (*apply)(const struct lyc_cpu *e, float *y, const float *x, int64_t n, const uint32_t key[2], uint64_t salt, uint32_t limit, float scale);
} lyc_dropout_table;

void lyc_dropout(const struct lyc_cpu *e, float *y, const float *x, int64_t n, uint32_t key0, uint32_t key1, uint64_t salt, uint32_t limit, float scale);

#endif
