#ifndef LYC_CONV_H
#define LYC_CONV_H

#include <stdint.h>

struct lyc_cpu;

// One set of functions per instruction set.
typedef struct lyc_conv_table {
    int lanes;
} lyc_conv_table;

#endif
