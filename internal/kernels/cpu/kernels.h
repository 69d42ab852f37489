// The kernel tables: one per instruction set, all with the same functions.
//
// A family (gemm, blockmat, conv, attention, norm, activation, elementwise, blocks, copy, cayley, changed, dropout) is NAME.h (contract, table type), NAME_impl.h (the C,
// compiled once per instruction set through kernels_impl.h, ending in the table LYC_NAME(lyc_NAME)), NAME.c (what Go calls: dispatch through the
// table), NAME.go (checks, binding).
#ifndef LYC_KERNELS_H
#define LYC_KERNELS_H

#include "activation.h"
#include "attention.h"
#include "blockmat.h"
#include "blocks.h"
#include "cayley.h"
#include "changed.h"
#include "conv.h"
#include "copy.h"
#include "dropout.h"
#include "elementwise.h"
#include "gemm.h"
#include "norm.h"
#include "pool.h"

typedef struct lyc_kernels {
    const char *name;
    int lanes; // floats in a vector; panels are twice as wide
    const lyc_gemm_table *gemm;
    const lyc_blockmat_table *blockmat;
    const lyc_conv_table *conv;
    const lyc_attention_table *attention;
    const lyc_norm_table *norm;
    const lyc_activation_table *activation;
    const lyc_elementwise_table *elementwise;
    const lyc_blocks_table *blocks;
    const lyc_copy_table *copy;
    const lyc_cayley_table *cayley;
    const lyc_changed_table *changed;
    const lyc_dropout_table *dropout;
} lyc_kernels;

// lyc_cpu is an opened engine: what every op is called with.
typedef struct lyc_cpu {
    const lyc_kernels *kernels;
    lyc_pool *pool;
} lyc_cpu;

// lyc_kernels_for returns the table of an instruction set ("avx512", "avx2", "portable", "wide"), NULL where this build or machine lacks it.
const lyc_kernels *lyc_kernels_for(const char *isa);

#endif
