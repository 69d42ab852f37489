// The matrix kernel, the blocked driver around it, and the products that use it. Contract: gemm.h.

enum {
    NR = 2 * LYC_VL,              // columns of a panel
    MR = LYC_VL == 16 ? 12 : 6,   // rows of a tile: 2·MR accumulators fill the registers
    KC = 320,                     // inner axis of a block: a panel of it lies in the first-level cache, and the widths of SD's layers are multiples of it
    MC = 192,                     // rows of a block: A of it lies in the second-level cache; a multiple of MR
    LDA = KC + 16,                // row length of a copied block of A: not a power of two, or rows fall on the same cache sets
};

// ---- The tile: c[m,NR] = alpha·Σk a[i·rs + k·cs]·b[k·bs + 0..NR) + bias + add. bias and add may be NULL; add may be c.

LYC_INLINE void tile_of(const int m, int64_t k, const float *a, int64_t rs, int64_t cs, const float *b, int64_t bs, float *c, int64_t ldc,
                        const float *add, int64_t ldadd, const float *bias, float alpha) {
    vf s[MR][2];
    LYC_UNROLL for (int i = 0; i < m; i++) s[i][0] = s[i][1] = v_zero();
    for (; k > 0; k--) {
        vf b0 = v_load(b), b1 = v_load(b + LYC_VL);
        LYC_UNROLL for (int i = 0; i < m; i++) {
            vf x = v_set(a[i * rs]);
            s[i][0] = v_fma(x, b0, s[i][0]);
            s[i][1] = v_fma(x, b1, s[i][1]);
        }
        a += cs;
        b += bs;
    }
    vf al = v_set(alpha), q0 = v_zero(), q1 = v_zero();
    if (bias) q0 = v_load(bias), q1 = v_load(bias + LYC_VL);
    if (add) {
        LYC_UNROLL for (int i = 0; i < m; i++) {
            v_store(c + i * ldc, v_fma(al, s[i][0], q0) + v_load(add + i * ldadd));
            v_store(c + i * ldc + LYC_VL, v_fma(al, s[i][1], q1) + v_load(add + i * ldadd + LYC_VL));
        }
    } else {
        LYC_UNROLL for (int i = 0; i < m; i++) {
            v_store(c + i * ldc, v_fma(al, s[i][0], q0));
            v_store(c + i * ldc + LYC_VL, v_fma(al, s[i][1], q1));
        }
    }
}

typedef void (*tile_fn)(int64_t k, const float *a, int64_t rs, int64_t cs, const float *b, int64_t bs, float *c, int64_t ldc,
                        const float *add, int64_t ldadd, const float *bias, float alpha);

// One function per number of rows, each with the two layouts of A that matter compiled apart. A macro, for C has no templates.
#define TILE(m)                                                                                                                         \
    static __attribute__((noinline)) void tile_##m(int64_t k, const float *a, int64_t rs, int64_t cs, const float *b, int64_t bs,       \
                                                   float *c, int64_t ldc, const float *add, int64_t ldadd, const float *bias, float alpha) { \
        if (cs == 1)                                                                                                                    \
            tile_of(m, k, a, rs, 1, b, bs, c, ldc, add, ldadd, bias, alpha);                                                            \
        else if (rs == 1)                                                                                                               \
            tile_of(m, k, a, 1, cs, b, bs, c, ldc, add, ldadd, bias, alpha);                                                            \
        else                                                                                                                            \
            tile_of(m, k, a, rs, cs, b, bs, c, ldc, add, ldadd, bias, alpha);                                                           \
    }
TILE(1) TILE(2) TILE(3) TILE(4) TILE(5) TILE(6)
#if LYC_VL == 16
TILE(7) TILE(8) TILE(9) TILE(10) TILE(11) TILE(12)
static const tile_fn tiles[MR + 1] = {0,      tile_1, tile_2, tile_3, tile_4,  tile_5, tile_6,
                                      tile_7, tile_8, tile_9, tile_10, tile_11, tile_12};
#else
static const tile_fn tiles[MR + 1] = {0, tile_1, tile_2, tile_3, tile_4, tile_5, tile_6};
#endif
#undef TILE

// A block of A: the tile of rows i, i+1, .. (i a multiple of MR) starts at p + i/MR·step.
typedef struct {
    const float *p;
    int64_t rs, cs, step;
} gemm_a;

// panel_rows multiplies m rows of A by one panel of n <= NR columns. Where n < NR, bias, add and c have n columns only.
static void panel_rows(int64_t m, int64_t n, int64_t k, gemm_a a, const float *b, int64_t bs, float *c, int64_t ldc, const float *add,
                       int64_t ldadd, const float *bias, float alpha) {
    float edge[MR * NR];
    for (int64_t i = 0; i < m; i += MR) {
        int64_t mm = m - i < MR ? m - i : MR;
        const float *ai = a.p + i / MR * a.step, *addi = add ? add + i * ldadd : 0;
        float *ci = c + i * ldc;
        if (n == NR) {
            tiles[mm](k, ai, a.rs, a.cs, b, bs, ci, ldc, addi, ldadd, bias, alpha);
            continue;
        }
        tiles[mm](k, ai, a.rs, a.cs, b, bs, edge, NR, 0, 0, 0, alpha);
        for (int64_t r = 0; r < mm; r++)
            for (int64_t j = 0; j < n; j++) {
                float x = edge[r * NR + j];
                if (bias) x += bias[j];
                if (addi) x += addi[r * ldadd + j];
                ci[r * ldc + j] = x;
            }
    }
}

// ---- The blocked driver.

typedef struct gemm_job gemm_job;
struct gemm_job {
    int64_t batch, m, n, k;
    float alpha;
    // A: in place at a + b·a_bs + i·a_rs + k·a_cs, or through load_a, which writes rows [m0,m0+m) x [k0,k0+k) to dst: row-major with row
    // length LDA (a_mixed 0), or tiles of [k][MR] (a_mixed 1).
    const float *a;
    int64_t a_bs, a_rs, a_cs;
    void (*load_a)(const gemm_job *g, int64_t b, int64_t m0, int64_t m, int64_t k0, int64_t k, float *dst);
    int a_mixed;
    // B: load_b returns panel p, rows [k0,k0+k), with row length *bs; it may use buf [KC][NR]. m rows will be multiplied by it.
    const float *(*load_b)(const gemm_job *g, int64_t b, int64_t p, int64_t k0, int64_t k, int64_t m, float *buf, int64_t *bs);
    const float *b;
    int64_t b_bs, b_ld;
    const void *with; // for load_a and load_b: the convolution
    lyc_weight w;
    // C
    float *c;
    int64_t c_bs, ldc;
    lyc_epilogue ep;
    // Work, set by gemm_run.
    const lyc_cpu *e;
    int64_t panels, item_rows, items, mc, mblocks, group, groups, shares, share_k;
    float *partial; // [shares][batch][m][n]
};

enum { SHARE_K = 512, AHEAD = 8 };

// gemm_shares returns into how many parts the inner axis is cut: more than one only where there are too few output tiles to
// occupy many threads. It depends on sizes only, as sums do.
static int64_t gemm_shares(int64_t batch, int64_t m, int64_t n, int64_t k) {
    int64_t units = batch * ((m + 47) / 48) * ((n + NR - 1) / NR);
    if (units >= 32 || k < 2 * SHARE_K) return 1;
    int64_t want = (32 + units - 1) / units, most = k / SHARE_K;
    return want < most ? want : most;
}

// Buffers of a thread: a panel of B and a block of A.
enum { GEMM_B_FLOATS = KC * NR, GEMM_A_FLOATS = MC * LDA, GEMM_THREAD_BYTES = 4 * (GEMM_B_FLOATS + GEMM_A_FLOATS) };

static void gemm_block(const gemm_job *g, int64_t t, float *buf_b, float *buf_a) {
    int64_t per_group = g->items * g->mblocks;
    int64_t mb = t % per_group, rest = t / per_group;
    int64_t group = rest % g->groups;
    rest /= g->groups;
    int64_t batch = rest % g->batch, share = rest / g->batch;
    int64_t item = mb / g->mblocks, first = item * g->item_rows + mb % g->mblocks * g->mc;
    int64_t last = (item + 1) * g->item_rows;
    int64_t m = last - first < g->mc ? last - first : g->mc;
    if (m <= 0) return;
    int64_t p0 = group * g->group, p1 = p0 + g->group < g->panels ? p0 + g->group : g->panels;
    int64_t k_begin = share * g->share_k, k_end = k_begin + g->share_k < g->k ? k_begin + g->share_k : g->k;
    int plain = g->partial != 0; // a share: the epilogue comes when shares are summed
    float *c = plain ? g->partial + ((share * g->batch + batch) * g->m + first) * g->n : g->c + batch * g->c_bs + first * g->ldc;
    int64_t ldc = plain ? g->n : g->ldc;
    const float *add0 = plain || !g->ep.add ? 0 : g->ep.add + batch * g->c_bs + first * g->ldc;
    const float *item_bias = plain || !g->ep.per_item ? 0 : g->ep.per_item + item * g->n;
    const float *bias0 = plain ? 0 : g->ep.bias;
    float mixed[NR];
    for (int64_t k0 = k_begin; k0 < k_end; k0 += KC) {
        int64_t k = k_end - k0 < KC ? k_end - k0 : KC;
        gemm_a a;
        if (g->load_a) {
            g->load_a(g, batch, first, m, k0, k, buf_a);
            a = g->a_mixed ? (gemm_a){buf_a, 1, MR, k * MR} : (gemm_a){buf_a, LDA, 1, MR * LDA};
        } else {
            a = (gemm_a){g->a + batch * g->a_bs + first * g->a_rs + k0 * g->a_cs, g->a_rs, g->a_cs, MR * g->a_rs};
        }
        for (int64_t p = p0; p < p1; p++) {
            int64_t n = g->n - p * NR < NR ? g->n - p * NR : NR, bs = NR;
            const float *b = g->load_b(g, batch, p, k0, k, m, buf_b, &bs);
            const float *add = c + p * NR, *bias = 0;
            int64_t ldadd = ldc;
            if (k0 == k_begin) {
                add = add0 ? add0 + p * NR : 0;
                ldadd = g->ldc;
                bias = bias0 ? bias0 + p * NR : 0;
                if (item_bias) {
                    for (int64_t j = 0; j < n; j++) mixed[j] = item_bias[p * NR + j] + (bias ? bias[j] : 0);
                    bias = mixed;
                }
            }
            panel_rows(m, n, k, a, b, bs, c + p * NR, ldc, add, ldadd, bias, g->alpha);
        }
    }
}

static void gemm_task(void *arg, int64_t begin, int64_t end, int thread) {
    gemm_job *g = arg;
    float *buf = lyc_scratch(g->e->pool, thread);
    for (int64_t t = begin; t < end; t++) gemm_block(g, t, buf, buf + GEMM_B_FLOATS);
}

// gemm_sum adds the shares in their order, and the epilogue.
static void gemm_sum(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    gemm_job *g = arg;
    int64_t stride = g->batch * g->m * g->n;
    for (int64_t row = begin; row < end; row++) {
        int64_t batch = row / g->m, i = row % g->m;
        const float *src = g->partial + row * g->n;
        float *c = g->c + batch * g->c_bs + i * g->ldc;
        const float *add = g->ep.add ? g->ep.add + batch * g->c_bs + i * g->ldc : 0;
        const float *item = g->ep.per_item ? g->ep.per_item + i / g->item_rows * g->n : 0;
        for (int64_t j = 0; j < g->n; j++) {
            float x = src[j];
            for (int64_t s = 1; s < g->shares; s++) x += src[s * stride + j];
            if (g->ep.bias) x += g->ep.bias[j];
            if (item) x += item[j];
            if (add) x += add[j];
            c[j] = x;
        }
    }
}

// gemm_run cuts the job into tasks and runs it. `shared` is scratch for the shares of the inner axis, if there are any.
static void gemm_run(const lyc_cpu *e, gemm_job *g, float *shared) {
    if (g->batch * g->m * g->n == 0) return;
    int64_t threads = lyc_pool_threads(e->pool);
    g->e = e;
    g->panels = (g->n + NR - 1) / NR;
    g->item_rows = g->ep.per_item ? g->ep.item_rows : g->m;
    g->items = g->m / g->item_rows;
    g->shares = shared ? gemm_shares(g->batch, g->m, g->n, g->k) : 1;
    g->share_k = ((g->k + g->shares - 1) / g->shares + KC - 1) / KC * KC;
    g->shares = (g->k + g->share_k - 1) / g->share_k;
    if (g->shares < 1) g->shares = 1;
    g->partial = g->shares > 1 ? shared : 0;
    // Rows: blocks of equal size up to MC; smaller ones where there would be too few tasks.
    int64_t most = MC, enough = 4 * threads, outer = g->batch * g->items * g->shares;
    while (most > 4 * MR && outer * g->panels * ((g->item_rows + most - 1) / most) < enough) most /= 2;
    g->mblocks = (g->item_rows + most - 1) / most;
    g->mc = ((g->item_rows + g->mblocks - 1) / g->mblocks + MR - 1) / MR * MR;
    g->mblocks = (g->item_rows + g->mc - 1) / g->mc;
    // Panels: groups of about 24 MFLOP, at least `enough` tasks.
    int64_t rows = g->mc < g->item_rows ? g->mc : g->item_rows;
    int64_t flops = 2 * rows * NR * (g->shares > 1 ? g->share_k : g->k) + 1; // of one panel
    g->group = 24000000 / flops;
    if (g->group < 1) g->group = 1;
    if (g->load_a && g->group < 8) g->group = 8; // copying A must pay
    int64_t blocks = outer * g->mblocks, cap = g->panels * blocks / enough;
    if (g->group > cap) g->group = cap > 1 ? cap : 1;
    if (g->group > g->panels) g->group = g->panels;
    g->groups = (g->panels + g->group - 1) / g->group;
    g->group = (g->panels + g->groups - 1) / g->groups;
    g->groups = (g->panels + g->group - 1) / g->group;
    int64_t grain = 4000000 / (flops * g->group);
    lyc_parallel(e->pool, blocks * g->groups, grain < 1 ? 1 : grain, gemm_task, g);
    if (g->partial) lyc_parallel(e->pool, g->batch * g->m, 1 + 16384 / (g->n * g->shares), gemm_sum, g);
}

// ---- Frozen weights.

LYC_INLINE int64_t elem_size(int dtype) { return dtype == LYC_F32 ? 4 : 2; }

// LYC_VL weights from element i on, as floats.
LYC_INLINE vf load_weight(const void *data, int64_t i, const int dtype) {
    if (dtype == LYC_F32) return v_load((const float *)data + i);
    if (dtype == LYC_F16) return v_load_f16((const uint16_t *)data + i);
    return v_load_bf16((const uint16_t *)data + i);
}

static int64_t weight_bytes(lyc_weight w) { return (w.out + NR - 1) / NR * NR * w.in * w.taps * elem_size(w.dtype); }

typedef struct {
    lyc_weight w;
    const char *src;
    float *dst, alpha;
    const float *add;
} pack_job;

typedef uint16_t u16_any __attribute__((aligned(1), may_alias));

// pack_floats is pack_panels for floats, squares of LYC_VL turned in registers: changed weights are packed in every step.
static void pack_floats(const pack_job *j, int64_t p) {
    int64_t width = j->w.in * j->w.taps, n = j->w.out - p * NR;
    const float *src = (const float *)j->src + p * NR * width;
    float *dst = (float *)j->w.data + p * NR * width;
    for (int64_t k = 0; k < width; k += LYC_VL)
        for (int h = 0; h < NR; h += LYC_VL) {
            vf r[LYC_VL];
            int64_t left = width - k < LYC_VL ? width - k : LYC_VL;
            for (int i = 0; i < LYC_VL; i++) {
                const float *s = src + (h + i) * width + k;
                r[i] = h + i >= n ? v_zero() : left == LYC_VL ? v_load(s) : v_load_n(s, left);
            }
            v_transpose(r);
            for (int64_t i = 0; i < left; i++) v_store(dst + (k + i) * NR + h, r[i]);
        }
}

// pack_panels turns panels [begin,end): the transpose of each NR rows of the source, 64 columns at a time.
static void pack_panels(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    pack_job *j = arg;
    int64_t width = j->w.in * j->w.taps, size = elem_size(j->w.dtype);
    for (int64_t p = begin; p < end; p++) {
        int64_t n = j->w.out - p * NR < NR ? j->w.out - p * NR : NR;
        if (size == 4) {
            pack_floats(j, p);
            continue;
        }
        const char *src = j->src + p * NR * width * size;
        char *dst = (char *)j->w.data + p * NR * width * size;
        for (int64_t k0 = 0; k0 < width; k0 += 64) {
            int64_t k1 = k0 + 64 < width ? k0 + 64 : width;
            for (int64_t r = 0; r < NR; r++) {
                uint16_t *d = (uint16_t *)dst + r;
                const u16_any *s = (const u16_any *)src + r * width;
                for (int64_t k = k0; k < k1; k++) d[k * NR] = r < n ? s[k] : 0;
            }
        }
    }
}

static void pack(const lyc_cpu *e, lyc_weight w, const void *src) {
    pack_job j = {.w = w, .src = src};
    lyc_parallel(e->pool, (w.out + NR - 1) / NR, 1 + 65536 / (w.in * w.taps * NR), pack_panels, &j);
}

// unpack_panels writes alpha·w + add, squares of LYC_VL turned in registers; a task is a panel.
LYC_INLINE void unpack_as(const int dtype, const pack_job *j, int64_t p) {
    int64_t width = j->w.in * j->w.taps, n = j->w.out - p * NR;
    for (int64_t k = 0; k < width; k += LYC_VL)
        for (int h = 0; h < NR && h < n; h += LYC_VL) {
            vf r[LYC_VL];
            int64_t left = width - k < LYC_VL ? width - k : LYC_VL, rows = n - h < LYC_VL ? n - h : LYC_VL;
            LYC_UNROLL for (int i = 0; i < LYC_VL; i++)
                r[i] = i < left ? load_weight(j->w.data, (p * width + k + i) * NR + h, dtype) : v_zero();
            v_transpose(r);
            for (int64_t i = 0; i < rows; i++) {
                int64_t to = (p * NR + h + i) * width + k;
                if (left == LYC_VL)
                    v_store(j->dst + to, j->add ? r[i] * j->alpha + v_load(j->add + to) : r[i] * j->alpha);
                else
                    v_store_n(j->dst + to, j->add ? r[i] * j->alpha + v_load_n(j->add + to, left) : r[i] * j->alpha, left);
            }
        }
}

static void unpack_panels(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const pack_job *j = arg;
    for (int64_t p = begin; p < end; p++) switch (j->w.dtype) {
        case LYC_F32: unpack_as(LYC_F32, j, p); break;
        case LYC_F16: unpack_as(LYC_F16, j, p); break;
        default: unpack_as(LYC_BF16, j, p);
        }
}

static void unpack(const lyc_cpu *e, float *dst, lyc_weight w, const float *add) {
    pack_job j = {.w = w, .dst = dst, .alpha = 1, .add = add};
    lyc_parallel(e->pool, (w.out + NR - 1) / NR, 1 + 65536 / (w.in * w.taps * NR), unpack_panels, &j);
}

// expand writes rows k0.. of panel p as floats, dst [k][NR]. A row of the product is k = tap·in + c, the order in which a convolution gathers its input.
LYC_INLINE void expand_as(const int dtype, lyc_weight w, int64_t p, int64_t k0, int64_t k, float *dst) {
    while (k > 0) {
        int64_t tap = k0 / w.in, c = k0 % w.in, n = w.in - c < k ? w.in - c : k;
        int64_t at = ((p * w.in + c) * w.taps + tap) * NR, step = w.taps * NR;
        for (int64_t i = 0; i < n; i++, at += step, dst += NR) {
            v_store(dst, load_weight(w.data, at, dtype));
            v_store(dst + LYC_VL, load_weight(w.data, at + LYC_VL, dtype));
        }
        k0 += n;
        k -= n;
    }
}

static const float *load_b_weight(const gemm_job *g, int64_t b, int64_t p, int64_t k0, int64_t k, int64_t m, float *buf, int64_t *bs) {
    (void)b, (void)m, (void)bs;
    lyc_weight w = g->w;
    if (w.dtype == LYC_F32 && w.taps == 1) return (const float *)w.data + (p * w.in + k0) * NR;
    switch (w.dtype) {
    case LYC_F32: expand_as(LYC_F32, w, p, k0, k, buf); break;
    case LYC_F16: expand_as(LYC_F16, w, p, k0, k, buf); break;
    default: expand_as(LYC_BF16, w, p, k0, k, buf);
    }
    return buf;
}

// expand_transposed writes the other orientation of outputs [o0,o1), inputs [c0,c0+NR), one tap: dst [o1-o0][NR], zeros behind the last input.
// Squares of LYC_VL are turned in registers.
LYC_INLINE void expand_transposed_as(const int dtype, lyc_weight w, int64_t tap, int64_t o0, int64_t o1, int64_t c0, float *dst) {
    for (int64_t o = o0 / LYC_VL * LYC_VL; o < o1; o += LYC_VL)
        for (int h = 0; h < NR; h += LYC_VL) {
            vf r[LYC_VL];
            int64_t at = ((o / NR * w.in + c0 + h) * w.taps + tap) * NR + o % NR;
            LYC_UNROLL for (int i = 0; i < LYC_VL; i++)
                r[i] = c0 + h + i < w.in ? load_weight(w.data, at + i * w.taps * NR, dtype) : v_zero();
            v_transpose(r);
            if (o >= o0 && o + LYC_VL <= o1) {
                LYC_UNROLL for (int i = 0; i < LYC_VL; i++) v_store(dst + (o - o0 + i) * NR + h, r[i]);
            } else {
                for (int i = 0; i < LYC_VL; i++)
                    if (o + i >= o0 && o + i < o1) v_store(dst + (o - o0 + i) * NR + h, r[i]);
            }
        }
}

static void expand_transposed(lyc_weight w, int64_t tap, int64_t o0, int64_t o1, int64_t c0, float *dst) {
    switch (w.dtype) {
    case LYC_F32: expand_transposed_as(LYC_F32, w, tap, o0, o1, c0, dst); break;
    case LYC_F16: expand_transposed_as(LYC_F16, w, tap, o0, o1, c0, dst); break;
    default: expand_transposed_as(LYC_BF16, w, tap, o0, o1, c0, dst);
    }
}

// For the gradient: rows k = tap·out + o, columns are inputs.
static const float *load_b_weight_grad(const gemm_job *g, int64_t b, int64_t p, int64_t k0, int64_t k, int64_t m, float *buf, int64_t *bs) {
    (void)b, (void)m, (void)bs;
    float *dst = buf;
    while (k > 0) {
        int64_t tap = k0 / g->w.out, o = k0 % g->w.out, n = g->w.out - o < k ? g->w.out - o : k;
        expand_transposed(g->w, tap, o, o + n, p * NR, dst);
        dst += n * NR;
        k0 += n;
        k -= n;
    }
    return buf;
}

// Rows of a as they lie, copied.
static void load_a_rows(const gemm_job *g, int64_t b, int64_t m0, int64_t m, int64_t k0, int64_t k, float *dst) {
    const float *src = g->a + b * g->a_bs + m0 * g->a_rs + k0;
    for (int64_t i = 0; i < m; i++) memcpy(dst + i * LDA, src + i * g->a_rs, (size_t)k * sizeof *src);
}

// copied_rows is load_a for a row-major A of m rows of width k: NULL leaves it in place. Rows a multiple of 2 KiB apart fall on few cache sets, where a block of them
// doesn't fit.
static void (*copied_rows(int64_t m, int64_t n, int64_t k))(const gemm_job *, int64_t, int64_t, int64_t, int64_t, int64_t, float *) {
    return k % 512 == 0 && m >= 4 * MR && n >= 8 * NR ? load_a_rows : 0;
}

static void linear(const lyc_cpu *e, float *y, const float *x, lyc_weight w, int64_t m, lyc_epilogue ep) {
    gemm_job g = {.batch = 1, .m = m, .n = w.out, .k = w.in, .alpha = 1, .a = x, .a_rs = w.in, .a_cs = 1, .load_a = copied_rows(m, w.out, w.in), .load_b = load_b_weight,
                  .w = w, .c = y, .ldc = w.out, .ep = ep};
    gemm_run(e, &g, 0);
}

static void linear_grad(const lyc_cpu *e, float *dx, const float *dy, lyc_weight w, int64_t m, const float *add) {
    gemm_job g = {.batch = 1, .m = m, .n = w.in, .k = w.out, .alpha = 1, .a = dy, .a_rs = w.out, .a_cs = 1, .load_a = copied_rows(m, w.in, w.out), .load_b = load_b_weight_grad,
                  .w = w, .c = dx, .ldc = w.in, .ep = {.add = add}};
    gemm_run(e, &g, 0);
}

static lyc_bytes linear_scratch(void) { return (lyc_bytes){0, GEMM_THREAD_BYTES}; }

// ---- Plain matrices.

// Rows of b [k,n] as they lie: in place where one tile of rows uses them, else copied, for lines that far apart fall on the same cache sets.
static const float *load_b_rows(const gemm_job *g, int64_t b, int64_t p, int64_t k0, int64_t k, int64_t m, float *buf, int64_t *bs) {
    const float *src = g->b + b * g->b_bs + k0 * g->b_ld + p * NR;
    int64_t n = g->n - p * NR;
    if (n >= NR && m <= MR) {
        *bs = g->b_ld;
        return src;
    }
    if (n >= NR) {
        for (int64_t i = 0; i < k; i++) {
            __builtin_prefetch(src + (i + AHEAD) * g->b_ld);
            v_store(buf + i * NR, v_load(src + i * g->b_ld));
            v_store(buf + i * NR + LYC_VL, v_load(src + i * g->b_ld + LYC_VL));
        }
    } else {
        for (int64_t i = 0; i < k; i++)
            for (int64_t j = 0; j < NR; j++) buf[i * NR + j] = j < n ? src[i * g->b_ld + j] : 0;
    }
    return buf;
}

// Columns of a stored transpose b [n,k]: squares turned in registers.
static const float *load_b_columns(const gemm_job *g, int64_t b, int64_t p, int64_t k0, int64_t k, int64_t m, float *buf, int64_t *bs) {
    (void)m, (void)bs;
    const float *src = g->b + b * g->b_bs + p * NR * g->b_ld + k0;
    int64_t n = g->n - p * NR;
    for (int64_t i = 0; i < k; i += LYC_VL)
        for (int h = 0; h < NR; h += LYC_VL) {
            vf r[LYC_VL];
            int64_t left = k - i < LYC_VL ? k - i : LYC_VL;
            for (int j = 0; j < LYC_VL; j++) {
                const float *s = src + (h + j) * g->b_ld + i;
                r[j] = h + j >= n ? v_zero() : left == LYC_VL ? v_load(s) : v_load_n(s, left);
            }
            v_transpose(r);
            for (int64_t j = 0; j < left; j++) v_store(buf + (i + j) * NR + h, r[j]);
        }
    return buf;
}

// A stored transpose a [k,m]: tiles of [k][MR], a few rows of a at a time, which stay in the first-level cache.
static void load_a_columns(const gemm_job *g, int64_t b, int64_t m0, int64_t m, int64_t k0, int64_t k, float *dst) {
    enum { ROWS = 16 };
    for (int64_t q0 = 0; q0 < k; q0 += ROWS) {
        int64_t q1 = q0 + ROWS < k ? q0 + ROWS : k;
        for (int64_t i = 0; i < m; i += MR) {
            const float *src = g->a + b * g->a_bs + (k0 + q0) * g->a_cs + m0 + i;
            int64_t mm = m - i < MR ? m - i : MR;
            for (int64_t q = q0; q < q1; q++, src += g->a_cs) {
                float *d = dst + i * k + q * MR;
                if (mm == MR)
                    memcpy(d, src, MR * sizeof *src);
                else
                    for (int64_t r = 0; r < mm; r++) d[r] = src[r];
            }
        }
    }
}

// Sums over items: the inner axis is (item, k), and both operands are gathered item by item.
static void load_a_items(const gemm_job *g, int64_t b, int64_t m0, int64_t m, int64_t k0, int64_t k, float *dst) {
    (void)b;
    const lyc_matmul_size *s = g->with;
    for (int64_t q = 0; q < k;) {
        int64_t item = (k0 + q) / s->k, at = (k0 + q) % s->k, n = s->k - at < k - q ? s->k - at : k - q;
        const float *src = g->a + item * s->stride_a + m0 * g->a_rs + at * g->a_cs;
        for (int64_t i = 0; i < m; i++) {
            float *d = dst + i * LDA + q;
            const float *row = src + i * g->a_rs;
            if (g->a_cs == 1)
                for (int64_t j = 0; j < n; j++) d[j] = row[j];
            else
                for (int64_t j = 0; j < n; j++) d[j] = row[j * g->a_cs];
        }
        q += n;
    }
}

static const float *load_b_items(const gemm_job *g, int64_t b, int64_t p, int64_t k0, int64_t k, int64_t m, float *buf, int64_t *bs) {
    (void)b;
    const lyc_matmul_size *s = g->with;
    for (int64_t q = 0; q < k;) {
        int64_t item = (k0 + q) / s->k, at = (k0 + q) % s->k, n = s->k - at < k - q ? s->k - at : k - q;
        if (s->trans_b)
            load_b_columns(g, item, p, at, n, m, buf + q * NR, bs);
        else
            load_b_rows(g, item, p, at, n, MR + 1, buf + q * NR, bs); // more than a tile: copied
        q += n;
    }
    return buf;
}

// Many small products with one A for all: B is read where it lies. Columns behind the last whole panel are done with the last NR, some of them twice, or,
// where an output may be what is added, or there are fewer than NR, from a copy.
static void matmul_items_task(void *arg, int64_t begin, int64_t end, int thread) {
    const gemm_job *g = arg;
    float *buf = lyc_scratch(g->e->pool, thread);
    gemm_a a = {g->a, g->a_rs, g->a_cs, MR * g->a_rs};
    for (int64_t i = begin; i < end; i++) {
        const float *b = g->b + i * g->b_bs, *add = g->ep.add ? g->ep.add + i * g->c_bs : 0;
        float *c = g->c + i * g->c_bs;
        int64_t j = 0;
        for (; j + NR <= g->n; j += NR) panel_rows(g->m, NR, g->k, a, b + j, g->b_ld, c + j, g->ldc, add ? add + j : 0, g->ldc, g->ep.bias ? g->ep.bias + j : 0, g->alpha);
        if (j == g->n) continue;
        if (j > 0 && !add) {
            j = g->n - NR;
            panel_rows(g->m, NR, g->k, a, b + j, g->b_ld, c + j, g->ldc, 0, 0, g->ep.bias ? g->ep.bias + j : 0, g->alpha);
            continue;
        }
        int64_t n = g->n - j;
        for (int64_t k = 0; k < g->k; k++) {
            memset(buf + k * NR, 0, NR * sizeof *buf);
            memcpy(buf + k * NR, b + k * g->b_ld + j, (size_t)n * sizeof *buf);
        }
        panel_rows(g->m, n, g->k, a, buf, NR, c + j, g->ldc, add ? add + j : 0, g->ldc, g->ep.bias ? g->ep.bias + j : 0, g->alpha);
    }
}

static void matmul(const lyc_cpu *e, float *c, const float *a, const float *b, lyc_epilogue ep, lyc_matmul_size s) {
    gemm_job g = {.batch = s.batch, .m = s.m, .n = s.n, .k = s.k, .alpha = s.alpha, .a = a, .a_bs = s.stride_a, .b = b, .b_bs = s.stride_b,
                  .c = c, .c_bs = s.m * s.n, .ldc = s.n, .ep = ep, .e = e};
    g.a_rs = s.trans_a ? 1 : s.k;
    g.a_cs = s.trans_a ? s.m : 1;
    g.b_ld = s.trans_b ? s.k : s.n;
    if (s.sum) {
        g.batch = 1;
        g.k *= s.batch;
        g.load_a = load_a_items;
        g.load_b = load_b_items;
        g.with = &s;
    } else if (s.batch >= 8 && s.stride_a == 0 && !s.trans_b && s.k <= KC && s.m <= MC && s.n <= 256) {
        lyc_parallel(e->pool, s.batch, 1 + 2000000 / (s.m * s.n * s.k), matmul_items_task, &g);
        return;
    } else {
        if (s.trans_a && s.n > NR) g.load_a = load_a_columns, g.a_mixed = 1;
        g.load_b = s.trans_b ? load_b_columns : load_b_rows;
    }
    gemm_run(e, &g, lyc_shared(e->pool));
}

static lyc_bytes matmul_scratch(lyc_matmul_size s) {
    if (s.sum) s.k *= s.batch, s.batch = 1;
    int64_t shares = gemm_shares(s.batch, s.m, s.n, s.k);
    return (lyc_bytes){shares > 1 ? 4 * shares * s.batch * s.m * s.n : 0, GEMM_THREAD_BYTES};
}

static const lyc_gemm_table LYC_NAME(lyc_gemm) = {
    .nr = NR,
    .weight_bytes = weight_bytes,
    .pack = pack,
    .unpack = unpack,
    .linear = linear,
    .linear_grad = linear_grad,
    .linear_scratch = linear_scratch,
    .matmul = matmul,
    .matmul_scratch = matmul_scratch,
};
