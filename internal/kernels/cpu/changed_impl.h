// W + D. Contract: changed.h. The panels of the product are those of gemm_impl.h for a plain matrix and for a frozen weight, added up.

LYC_INLINE void add_weights(const int dtype, float *buf, const void *data, int64_t at, int64_t n) {
    for (int64_t i = 0; i < n; i += LYC_VL) v_store(buf + i, load_weight(data, at + i, dtype) + v_load(buf + i));
}

// g->b is D, g->w is W: columns are outputs.
static const float *load_b_changed(const gemm_job *g, int64_t b, int64_t p, int64_t k0, int64_t k, int64_t m, float *buf, int64_t *bs) {
    lyc_weight w = g->w;
    int64_t at = (p * w.in + k0) * NR;
    load_b_columns(g, b, p, k0, k, m, buf, bs);
    switch (w.dtype) {
    case LYC_F32: add_weights(LYC_F32, buf, w.data, at, k * NR); break;
    case LYC_F16: add_weights(LYC_F16, buf, w.data, at, k * NR); break;
    default: add_weights(LYC_BF16, buf, w.data, at, k * NR);
    }
    return buf;
}

static void linear_changed(const lyc_cpu *e, float *y, const float *x, lyc_weight w, const float *d, int64_t m, lyc_epilogue ep) {
    gemm_job g = {.batch = 1, .m = m, .n = w.out, .k = w.in, .alpha = 1, .a = x, .a_rs = w.in, .a_cs = 1, .load_b = load_b_changed,
                  .b = d, .b_ld = w.in, .w = w, .c = y, .ldc = w.out, .ep = ep};
    gemm_run(e, &g, 0);
}

typedef struct {
    adamw_job adamw;
    pack_job origin; // adds to p
} adamw_changed_job;

// A task is a panel of w: NR rows, which lie together in p.
static void adamw_changed_task(void *arg, int64_t begin, int64_t end, int thread) {
    const adamw_changed_job *g = arg;
    int64_t width = g->origin.w.in * g->origin.w.taps, n = g->adamw.n;
    for (int64_t p = begin; p < end; p++) {
        int64_t from = p * NR * width, to = from + NR * width < n ? from + NR * width : n;
        adamw_range(&g->adamw, from, to);
        unpack_panels((void *)&g->origin, p, p + 1, thread);
    }
}

static void adamw_changed(const lyc_cpu *e, float *p, float *m, float *v, const float *g, lyc_adamw_step s, lyc_weight w, float origin) {
    int64_t width = w.in * w.taps;
    adamw_changed_job job = {{p, m, v, g, w.out * width, s}, {.w = w, .dst = p, .alpha = origin, .add = p}};
    lyc_parallel(e->pool, (w.out + NR - 1) / NR, 1 + RUN / (NR * width), adamw_changed_task, &job);
}

static const lyc_changed_table LYC_NAME(lyc_changed) = {
    .linear = linear_changed,
    .adamw = adamw_changed,
};
