#ifndef LYC_ATTENTION_H
#define LYC_ATTENTION_H

#include <stdint.h>

struct lyc_cpu;

// One set of functions per instruction set.
typedef struct lyc_attention_table {
    int lanes;
} lyc_attention_table;

#endif
