#ifndef LYC_ELEMENTWISE_H
#define LYC_ELEMENTWISE_H

#include <stdint.h>

struct lyc_cpu;

// One set of functions per instruction set.
typedef struct lyc_elementwise_table {
    int lanes;
} lyc_elementwise_table;

#endif
