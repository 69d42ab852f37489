#ifndef LYC_GEMM_H
#define LYC_GEMM_H

#include <stdint.h>

struct lyc_cpu;

// One set of functions per instruction set.
typedef struct lyc_gemm_table {
    int lanes;
} lyc_gemm_table;

#endif
