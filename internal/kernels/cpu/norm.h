#ifndef LYC_NORM_H
#define LYC_NORM_H

#include <stdint.h>

struct lyc_cpu;

// One set of functions per instruction set.
typedef struct lyc_norm_table {
    int lanes;
} lyc_norm_table;

#endif
