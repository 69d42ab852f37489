// Products with block-diagonal matrices: the rotations of OFT and BOFT on the channels of a layer's output, in place between its other axes.
//
// A panel of NR output columns needs the input columns of the few blocks it touches. Those blocks are written out as one small dense matrix per panel,
// with zeros between them, for the matrix kernel: a few wasted multiplications where blocks are smaller than a panel, and no packing of x.
#ifndef LYC_BLOCKMAT_H
#define LYC_BLOCKMAT_H

#include "gemm.h"

#include <stdint.h>

struct lyc_cpu;

// x [m,n·s], y [m,n·t]; blocks r [n,s,t], or [n,t,s] with trans.
typedef struct lyc_blockmat_size {
    int64_t m, n, s, t;
    int32_t trans;
} lyc_blockmat_size;

typedef struct lyc_blockmat_table {
    // y[i,k,:] = x[i,k,:]·r[k] (or ·r[k]ᵀ) + add; add may be NULL or y
    void (*product)(const struct lyc_cpu *e, float *y, const float *x, const float *r, const float *add, lyc_blockmat_size s);
    // dr[k] = x[:,k,:]ᵀ·dy[:,k,:], laid out like r
    void (*grad)(const struct lyc_cpu *e, float *dr, const float *dy, const float *x, lyc_blockmat_size s);
    lyc_bytes (*scratch)(lyc_blockmat_size s);
} lyc_blockmat_table;

void lyc_blockmat(const struct lyc_cpu *e, float *y, const float *x, const float *r, const float *add, lyc_blockmat_size s);
void lyc_blockmat_grad(const struct lyc_cpu *e, float *dr, const float *dy, const float *x, lyc_blockmat_size s);
lyc_bytes lyc_blockmat_scratch(const struct lyc_cpu *e, lyc_blockmat_size s);

#endif
