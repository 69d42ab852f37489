// Matrix products: y = x·Wᵀ with a frozen weight, its gradient, and the product of two plain matrices.
//
// One kernel serves everything: C[MR,NR] = alpha·A·B with A read in place through two strides, B a panel of NR columns in the first-level cache,
// and the accumulators in registers. Rows are blocked by MC (A stays in the second-level cache), the inner axis by KC; what is added
// (bias, residual) enters with the first block of the inner axis, later blocks add to the output.
#ifndef LYC_GEMM_H
#define LYC_GEMM_H

#include <stdint.h>

struct lyc_cpu;

// Element types of a weight in memory. LYC_ROWS: floats, but not in panels: row-major [out,in,taps], for Winograd's products only.
enum { LYC_F32, LYC_F16, LYC_BF16, LYC_ROWS };

// A frozen weight [out,in,taps] (taps = kh·kw, 1 for a linear layer), stored as panels [ceil(out/NR)][in][taps][NR] in its file's element type, with
// zeros behind the last output. NR is twice the lanes of the instruction set it was packed for.
typedef struct lyc_weight {
    void *data;
    int32_t dtype, taps;
    int64_t out, in;
} lyc_weight;

// What a product adds before it stores; any pointer may be NULL.
typedef struct lyc_epilogue {
    const float *bias;     // [n]
    const float *per_item; // [m/item_rows, n], one row of it for each item_rows rows of the output
    const float *add;      // like the output, which it may be
    int64_t item_rows;
} lyc_epilogue;

// c[b] = alpha·op(a[b])·op(b[b]) + epilogue, row-major; op(a) is [m,k], op(b) is [k,n]. sum: c [m,n] = alpha·Σ op(a[b])·op(b[b]) + epilogue.
typedef struct lyc_matmul_size {
    int64_t batch, m, n, k, stride_a, stride_b;
    int32_t trans_a, trans_b, sum;
    float alpha;
} lyc_matmul_size;

// Bytes of scratch an op needs: once, and for each thread.
typedef struct lyc_bytes {
    int64_t shared, per_thread;
} lyc_bytes;

// One set of functions per instruction set. Sizes have been checked; scratch is reserved.
typedef struct lyc_gemm_table {
    int nr;
    // pack lays a row-major [out,in,taps] source (any alignment) out in w.data, which has weight_bytes(w) bytes. unpack is its inverse, in floats, + add (NULL for none; may be dst).
    int64_t (*weight_bytes)(lyc_weight w);
    void (*pack)(const struct lyc_cpu *e, lyc_weight w, const void *src);
    void (*unpack)(const struct lyc_cpu *e, float *dst, lyc_weight w, const float *add);
    // y [m,out] = x [m,in]·wᵀ + epilogue
    void (*linear)(const struct lyc_cpu *e, float *y, const float *x, lyc_weight w, int64_t m, lyc_epilogue ep);
    // dx [m,in] = dy [m,out]·w + add
    void (*linear_grad)(const struct lyc_cpu *e, float *dx, const float *dy, lyc_weight w, int64_t m, const float *add);
    lyc_bytes (*linear_scratch)(void);
    void (*matmul)(const struct lyc_cpu *e, float *c, const float *a, const float *b, lyc_epilogue ep, lyc_matmul_size s);
    lyc_bytes (*matmul_scratch)(lyc_matmul_size s);
} lyc_gemm_table;

int64_t lyc_weight_bytes(const struct lyc_cpu *e, lyc_weight w);
void lyc_pack(const struct lyc_cpu *e, lyc_weight w, const void *src);
void lyc_unpack(const struct lyc_cpu *e, float *dst, lyc_weight w, const float *add);
void lyc_linear(const struct lyc_cpu *e, float *y, const float *x, lyc_weight w, int64_t m, lyc_epilogue ep);
void lyc_linear_grad(const struct lyc_cpu *e, float *dx, const float *dy, lyc_weight w, int64_t m, const float *add);
lyc_bytes lyc_linear_scratch(const struct lyc_cpu *e);
void lyc_matmul(const struct lyc_cpu *e, float *c, const float *a, const float *b, lyc_epilogue ep, lyc_matmul_size s);
lyc_bytes lyc_matmul_scratch(const struct lyc_cpu *e, lyc_matmul_size s);

#endif
