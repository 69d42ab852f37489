// Flash attention. Contract and formulas: attention.h. Products are the tiles of gemm_impl.h; those as wide as a head are here.

enum {
    KEYS = 128,             // keys of a block
    QUERY_PANELS = 16,      // forward: panels of NR queries that share a block of keys
    QUERIES = 128,          // gradient: queries of a block
    LDS = QUERIES + 16,     // row length of a block of scores: not a power of two, or its rows fall on the same cache sets
    SPARE = 16,             // rows behind a block of keys, so that tiles of several rows need no remainder
    PART_QUERIES = 128,     // fewest queries of a part
    GRAD_ITEMS = 32,        // pieces of work that the gradient should have
    PARTS_BYTES = 64 << 20, // most memory for the parts' dK and dV
};

static const double LOG2E = 1.4426950408889634, LN2 = 0.6931471805599453;

LYC_INLINE int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// 2^x within 2e-7 of the value for x up to about 100; exactly 0 from -127 down; not-a-number passes. x = n + r, polynomial in r with the
// coefficients of Cephes' exp2f (Moshier, 1989). At -127 r is 0 and the polynomial 1, whose exponent less 127 is the number 0.
LYC_INLINE vf exp2_low(vf x) {
    const float round = 12582912.0f; // 1.5 * 2^23: adding it rounds to an integer, which then stands in the low bits
    x = v_max(v_set(-127.0f), x);
    vf t = x + round, r = x - (t - round);
    vf p = r * 1.535336188319500e-4f + 1.339887440266574e-3f;
    p = p * r + 9.618437357674640e-3f;
    p = p * r + 5.550332471162809e-2f;
    p = p * r + 2.402264791363012e-1f;
    p = p * r + 6.931472028550421e-1f;
    p = p * r + 1.0f;
    return (vf)((vu)p + ((vu)t << 23));
}

// pack_square and unpack_square move one square between rows (ld apart, `rows` of them, `width` columns) and columns (NR apart). One with fewer rows
// or columns than lanes goes through a whole one in memory.
LYC_INLINE void pack_square(float *dst, const float *src, int64_t ld, int64_t rows, int64_t width, vf factor) {
    float whole[LYC_VL * LYC_VL], *to = dst;
    int64_t to_ld = NR;
    if (__builtin_expect(rows < LYC_VL || width < LYC_VL, 0)) {
        memset(whole, 0, sizeof whole);
        for (int64_t i = 0; i < rows; i++) memcpy(whole + i * LYC_VL, src + i * ld, 4 * (size_t)width);
        src = to = whole, ld = to_ld = LYC_VL;
    }
    vf r[LYC_VL];
    LYC_UNROLL for (int i = 0; i < LYC_VL; i++) r[i] = v_load(src + i * ld) * factor;
    v_transpose(r);
    LYC_UNROLL for (int i = 0; i < LYC_VL; i++) v_store(to + i * to_ld, r[i]);
    if (to == whole)
        for (int64_t i = 0; i < width; i++) memcpy(dst + i * NR, whole + i * LYC_VL, 4 * LYC_VL);
}

LYC_INLINE void unpack_square(float *dst, int64_t ld, const float *src, int64_t rows, int64_t width, vf factor) {
    float whole[LYC_VL * LYC_VL], *to = dst;
    int64_t from_ld = NR, to_ld = ld;
    if (__builtin_expect(rows < LYC_VL || width < LYC_VL, 0)) {
        memset(whole, 0, sizeof whole);
        for (int64_t i = 0; i < width; i++) memcpy(whole + i * LYC_VL, src + i * NR, 4 * LYC_VL);
        src = to = whole, from_ld = to_ld = LYC_VL;
    }
    vf r[LYC_VL];
    LYC_UNROLL for (int i = 0; i < LYC_VL; i++) r[i] = v_load(src + i * from_ld) * factor;
    v_transpose(r);
    LYC_UNROLL for (int i = 0; i < LYC_VL; i++) v_store(to + i * to_ld, r[i]);
    if (to == whole)
        for (int64_t i = 0; i < rows; i++) memcpy(dst + i * ld, whole + i * LYC_VL, 4 * (size_t)width);
}

// pack_panel writes dst [d][NR] = factor·srcᵀ for n <= NR rows of src; columns behind the n-th are zero. unpack_panel writes n rows dst = (src [d][NR] · factor)ᵀ,
// factor one number per column. Where d isn't a multiple of the vector the last square lies over the one before it.
static __attribute__((noinline)) void pack_panel(float *dst, const float *src, int64_t ld, int64_t n, int64_t d, float factor) {
    for (int64_t h = 0; h < NR; h += LYC_VL) {
        int64_t rows = n - h < 0 ? 0 : n - h < LYC_VL ? n - h : LYC_VL;
        for (int64_t j = 0; j < d; j += LYC_VL) {
            int64_t at = d < LYC_VL || j + LYC_VL <= d ? j : d - LYC_VL, width = d < LYC_VL ? d : LYC_VL;
            pack_square(dst + at * NR + h, src + h * ld + at, ld, rows, width, v_set(factor));
        }
    }
}

static __attribute__((noinline)) void unpack_panel(float *dst, int64_t ld, const float *src, int64_t n, int64_t d, const vf factor[2]) {
    for (int64_t h = 0; h < n; h += LYC_VL) {
        int64_t rows = n - h < LYC_VL ? n - h : LYC_VL;
        for (int64_t j = 0; j < d; j += LYC_VL) {
            int64_t at = d < LYC_VL || j + LYC_VL <= d ? j : d - LYC_VL, width = d < LYC_VL ? d : LYC_VL;
            unpack_square(dst + h * ld + at, ld, src + at * NR + h, rows, width, factor[h / LYC_VL]);
        }
    }
}

// panel_product: c [m,NR] = Σk a[i·rs + k·cs]·b[k·bs + ..] + bias, or added to c; the inner axis in blocks that leave b in the first-level cache.
static void panel_product(int64_t m, int64_t k, const float *a, int64_t rs, int64_t cs, const float *b, int64_t bs, float *c, int64_t ldc,
                          const float *bias, int add) {
    for (int64_t k0 = 0; k0 < k; k0 += KC) {
        int64_t kk = k - k0 < KC ? k - k0 : KC;
        panel_rows(m, NR, kk, (gemm_a){a + k0 * cs, rs, cs, MR * rs}, b + k0 * bs, bs, c, ldc, add || k0 ? c : 0, ldc, k0 ? 0 : bias, 1.0f);
    }
}

// gather_rows writes the d first elements of n rows, ld apart, one behind the other: rows that far apart fall on few cache sets and push each other out.
static void gather_rows(float *dst, const float *src, int64_t ld, int64_t n, int64_t d) {
    for (int64_t i = 0; i < n; i++, src += ld, dst += d) {
        int64_t j = 0;
        for (; j + LYC_VL <= d; j += LYC_VL) v_store(dst + j, v_load(src + j));
        for (; j < d; j++) dst[j] = src[j];
    }
}

// hide sets the scores of keys behind the query to minus infinity: rows are keys from k0, columns queries from q0.
static void hide(float *s, int64_t ld, int64_t k0, int64_t keys, int64_t q0) {
    for (int64_t i = 0; i < keys; i++)
        for (int64_t j = 0; j < NR && q0 + j < k0 + i; j++) s[i * ld + j] = -INFINITY;
}

// key_step returns the keys of a block: blocks of one call are equally long.
static int64_t key_step(int64_t tk) {
    int64_t blocks = (tk + KEYS - 1) / KEYS;
    return (tk + blocks - 1) / blocks;
}

// ---- Forward.

typedef struct {
    float *out, *lse;
    const float *q, *k, *v;
    lyc_attention_size s;
    int64_t blocks, step; // of queries; keys of a block
    const lyc_cpu *e;
} attention_job;

// Scratch of a thread, in floats: scores, and for each panel Q^T, O^T, and the largest score and sum of each query; K and V of a block of keys.
LYC_INLINE int64_t forward_floats(int64_t d) { return KEYS * NR + QUERY_PANELS * (2 * d * NR + 2 * NR) + 2 * KEYS * d; }

// soften turns a block of scores [keys][NR] into 2^(score - largest), brings the largest and the sum of each query up to date and returns by what
// earlier results must be multiplied.
LYC_INLINE void soften(float *s, int64_t keys, float *largest, float *sum, vf factor[2]) {
    vf m0 = v_load(largest), m1 = v_load(largest + LYC_VL), a0 = m0, a1 = m1, b0 = m0, b1 = m1;
    int64_t i = 0;
    for (; i + 2 <= keys; i += 2) {
        a0 = v_max(a0, v_load(s + i * NR));
        a1 = v_max(a1, v_load(s + i * NR + LYC_VL));
        b0 = v_max(b0, v_load(s + i * NR + NR));
        b1 = v_max(b1, v_load(s + i * NR + NR + LYC_VL));
    }
    if (i < keys) {
        a0 = v_max(a0, v_load(s + i * NR));
        a1 = v_max(a1, v_load(s + i * NR + LYC_VL));
    }
    a0 = v_max(a0, b0);
    a1 = v_max(a1, b1);
    v_store(largest, a0);
    v_store(largest + LYC_VL, a1);
    vf l0 = v_zero(), l1 = v_zero();
    for (i = 0; i < keys; i++) {
        vf e0 = exp2_low(v_load(s + i * NR) - a0), e1 = exp2_low(v_load(s + i * NR + LYC_VL) - a1);
        v_store(s + i * NR, e0);
        v_store(s + i * NR + LYC_VL, e1);
        l0 += e0;
        l1 += e1;
    }
    factor[0] = exp2_low(m0 - a0);
    factor[1] = exp2_low(m1 - a1);
    v_store(sum, v_load(sum) * factor[0] + l0);
    v_store(sum + LYC_VL, v_load(sum + LYC_VL) * factor[1] + l1);
}

static void attend(const attention_job *g, int64_t item, float *buf) {
    const lyc_attention_size *s = &g->s;
    int64_t d = s->d, ld = s->heads * d, b = item / g->blocks, n = b / s->heads, h = b % s->heads;
    int64_t q0 = item % g->blocks * QUERY_PANELS * NR, nq = s->tq - q0 < QUERY_PANELS * NR ? s->tq - q0 : QUERY_PANELS * NR;
    int64_t panels = (nq + NR - 1) / NR;
    const float *q = g->q + (n * s->tq + q0) * ld + h * d;
    const float *k = g->k + n * s->tk * ld + h * d, *v = g->v + n * s->tk * ld + h * d;
    float *scores = buf, *qt = scores + KEYS * NR, *ot = qt + QUERY_PANELS * d * NR, *largest = ot + QUERY_PANELS * d * NR;
    float *sum = largest + QUERY_PANELS * NR, *kb = sum + QUERY_PANELS * NR, *vb = kb + KEYS * d;
    for (int64_t p = 0; p < panels; p++)
        pack_panel(qt + p * d * NR, q + p * NR * ld, ld, nq - p * NR < NR ? nq - p * NR : NR, d, (float)(s->scale * LOG2E));
    for (int64_t i = 0; i < panels * NR; i++) largest[i] = -1e30f, sum[i] = 0;

    int64_t seen = s->causal && q0 + nq < s->tk ? q0 + nq : s->tk; // no query of the block sees more keys
    for (int64_t k0 = 0; k0 < seen; k0 += g->step) {
        int64_t keys = seen - k0 < g->step ? seen - k0 : g->step;
        gather_rows(kb, k + k0 * ld, ld, keys, d);
        gather_rows(vb, v + k0 * ld, ld, keys, d);
        for (int64_t p = 0; p < panels; p++) {
            float *o = ot + p * d * NR;
            panel_product(keys, d, kb, d, 1, qt + p * d * NR, NR, scores, NR, 0, 0);
            if (s->causal) hide(scores, NR, k0, keys, q0 + p * NR);
            vf factor[2];
            soften(scores, keys, largest + p * NR, sum + p * NR, factor);
            if (k0 && v_top(v_max(1.0f - factor[0], 1.0f - factor[1])) > 0)
                for (int64_t j = 0; j < d; j++) {
                    v_store(o + j * NR, v_load(o + j * NR) * factor[0]);
                    v_store(o + j * NR + LYC_VL, v_load(o + j * NR + LYC_VL) * factor[1]);
                }
            panel_product(d, keys, vb, 1, d, scores, NR, o, NR, 0, k0 > 0);
        }
    }
    for (int64_t p = 0; p < panels; p++) {
        int64_t np = nq - p * NR < NR ? nq - p * NR : NR;
        vf factor[2] = {1.0f / v_load(sum + p * NR), 1.0f / v_load(sum + p * NR + LYC_VL)};
        unpack_panel(g->out + (n * s->tq + q0 + p * NR) * ld + h * d, ld, ot + p * d * NR, np, d, factor);
    }
    if (g->lse)
        for (int64_t i = 0; i < nq; i++) g->lse[b * s->tq + q0 + i] = (float)(largest[i] * LN2 + log(sum[i]));
}

static void attention_task(void *arg, int64_t begin, int64_t end, int thread) {
    attention_job *g = arg;
    for (int64_t i = begin; i < end; i++) attend(g, i, lyc_scratch(g->e->pool, thread));
}

static lyc_bytes attention_scratch(lyc_attention_size s) { return (lyc_bytes){0, 4 * forward_floats(s.d)}; }

static void attention_forward(const lyc_cpu *e, float *out, float *lse, const float *q, const float *k, const float *v, lyc_attention_size s) {
    attention_job g = {out, lse, q, k, v, s, .e = e};
    g.blocks = (s.tq + QUERY_PANELS * NR - 1) / (QUERY_PANELS * NR);
    g.step = key_step(s.tk);
    int64_t flops = 4 * QUERY_PANELS * NR * s.tk * s.d;
    lyc_parallel(e->pool, s.n * s.heads * g.blocks, 1 + 2000000 / flops, attention_task, &g);
}

// ---- Gradient.

enum { STRIP_ROWS = 12, STRIP_WIDTH = 5 }; // at most

// keep returns x and makes the compiler hold it in a register instead of loading it anew for each use: loads, not products, bound a strip of two rows.
LYC_INLINE vf keep(vf x) {
#if defined(LYC_AVX512) || defined(LYC_AVX2) && LYC_VL == 8
    __asm__("" : "+v"(x));
#endif
    return x;
}

// strip_of: c [m, w vectors] = Σk a[i·LDS + k]·b[k·ld + ..], or added to c. Rows of a are keys, k is queries, b and c have rows as long as a head.
LYC_INLINE void strip_of(const int m, const int w, int64_t k, const float *a, const float *b, float *c, int64_t ld, int add) {
    vf s[STRIP_ROWS][STRIP_WIDTH]; // not [m][w]: an array of variable length stays in memory
    LYC_UNROLL for (int i = 0; i < m; i++) LYC_UNROLL for (int j = 0; j < w; j++) s[i][j] = v_zero();
    for (; k > 0; k--) {
        // The shorter side of the tile is held in registers, the other passes one by one.
        vf held[STRIP_ROWS];
        if (m > w) {
            LYC_UNROLL for (int j = 0; j < w; j++) held[j] = v_load(b + j * LYC_VL);
            LYC_UNROLL for (int i = 0; i < m; i++) {
                vf x = v_set(a[i * LDS]);
                LYC_UNROLL for (int j = 0; j < w; j++) s[i][j] = v_fma(x, held[j], s[i][j]);
            }
        } else {
            LYC_UNROLL for (int i = 0; i < m; i++) held[i] = v_set(a[i * LDS]);
            LYC_UNROLL for (int j = 0; j < w; j++) {
                vf y = keep(v_load(b + j * LYC_VL));
                LYC_UNROLL for (int i = 0; i < m; i++) s[i][j] = v_fma(held[i], y, s[i][j]);
            }
        }
        a++;
        b += ld;
    }
    LYC_UNROLL for (int i = 0; i < m; i++) LYC_UNROLL for (int j = 0; j < w; j++) {
        float *to = c + i * ld + j * LYC_VL;
        v_store(to, add ? v_load(to) + s[i][j] : s[i][j]);
    }
}

// strip_N has N vectors in a row and as many rows as the registers hold. A macro, for C has no templates.
#define STRIP(w, m)                                                                                                            \
    static __attribute__((noinline)) void strip_##w(int64_t rows, int64_t k, const float *a, const float *b, float *c, int64_t ld, int add) { \
        for (int64_t i = 0; i < rows; i += m) strip_of(m, w, k, a + i * LDS, b, c + i * ld, ld, add);                         \
    }
#if LYC_VL == 16
STRIP(1, 12) STRIP(2, 12) STRIP(3, 8) STRIP(4, 6) STRIP(5, 5)
#else
STRIP(1, 8) STRIP(2, 6) STRIP(3, 4) STRIP(4, 3) STRIP(5, 2)
#endif
#undef STRIP
static void (*const strips[])(int64_t rows, int64_t k, const float *a, const float *b, float *c, int64_t ld, int add) = {
    0, strip_1, strip_2, strip_3, strip_4, strip_5};

// key_product: c [keys, ld] = a [keys, k]·b [k, ld], or added to c; ld is a multiple of the vector. Up to SPARE rows behind are written.
static void key_product(int64_t keys, int64_t k, const float *a, const float *b, float *c, int64_t ld, int add) {
    for (int64_t left = ld / LYC_VL; left > 0;) {
        int64_t w = left % 5 == 0 ? 5 : left % 4 == 0 ? 4 : left % 3 == 0 ? 3 : left < 4 ? left : 4, j = ld - left * LYC_VL;
        strips[w](keys, k, a, b + j, c + j, ld, add);
        left -= w;
    }
}

typedef struct {
    float *dq, *dk, *dv;
    const float *dout, *out, *lse, *q, *k, *v;
    lyc_attention_size s;
    int64_t parts, part; // number, and queries of each
    int64_t step;        // keys of a block
    float *partial;      // [parts-1][2][n,tk,heads·d]: dK and dV of the parts behind the first
    const lyc_cpu *e;
} attention_grad_job;

// grad_parts returns the queries of a part, a multiple of NR.
static int64_t grad_parts(lyc_attention_size s) {
    int64_t items = s.n * s.heads, bytes = 8 * s.n * s.tk * s.heads * s.d;
    int64_t parts = (GRAD_ITEMS + items - 1) / items, room = 1 + PARTS_BYTES / bytes, most = (s.tq + PART_QUERIES - 1) / PART_QUERIES;
    if (parts > room) parts = room;
    if (parts > most) parts = most;
    return round_up((s.tq + parts - 1) / parts, NR);
}

// Scratch of a thread, in floats.
typedef struct {
    int64_t qt, gt, dqt;         // Q^T, dO^T and dQ^T, panels [d][NR]
    int64_t qr, gr;              // Q and dO, rows of dp
    int64_t lse, dot;            // -lse·log2 e and -D of each query
    int64_t scores, slopes;      // P^T and dS^T [KEYS+SPARE][LDS]
    int64_t dk, dv;              // [KEYS+SPARE][dp]
    int64_t k, v;                // [KEYS][d]
    int64_t floats, dp, queries; // in all; d and the part's queries rounded up
} grad_layout;

static grad_layout layout_of(int64_t d, int64_t part) {
    grad_layout l = {.dp = round_up(d, LYC_VL), .queries = round_up(part, NR)};
    int64_t at = 0, panels = round_up(l.queries * d, 16), rows = round_up(l.queries * l.dp, 16), line = round_up(l.queries, 16);
    int64_t tile = (KEYS + SPARE) * LDS, sums = (KEYS + SPARE) * l.dp;
    l.qt = at, at += panels;
    l.gt = at, at += panels;
    l.dqt = at, at += panels;
    l.qr = at, at += rows;
    l.gr = at, at += rows;
    l.lse = at, at += line;
    l.dot = at, at += line;
    l.scores = at, at += tile;
    l.slopes = at, at += tile;
    l.dk = at, at += sums;
    l.dv = at, at += sums;
    l.k = at, at += round_up(KEYS * d, 16);
    l.v = at, at += round_up(KEYS * d, 16);
    l.floats = at;
    return l;
}

static lyc_bytes attention_grad_scratch(lyc_attention_size s) {
    if (s.n * s.heads * s.tq * s.tk * s.d == 0) return (lyc_bytes){0, 0};
    int64_t part = grad_parts(s), parts = (s.tq + part - 1) / part;
    return (lyc_bytes){(parts - 1) * 8 * s.n * s.tk * s.heads * s.d, 4 * layout_of(s.d, part).floats};
}

// row_dot returns Σ x·y of d elements.
static float row_dot(const float *x, const float *y, int64_t d) {
    vf sum = v_zero();
    int64_t j = 0;
    for (; j + LYC_VL <= d; j += LYC_VL) sum = v_fma(v_load(x + j), v_load(y + j), sum);
    if (j < d) sum = v_fma(v_load_n(x + j, d - j), v_load_n(y + j, d - j), sum);
    return v_sum(sum);
}

// copy_row copies d elements and zeroes the rest of a row of dp.
static void copy_row(float *dst, const float *src, int64_t d, int64_t dp) {
    int64_t j = 0;
    for (; j + LYC_VL <= d; j += LYC_VL) v_store(dst + j, v_load(src + j));
    for (; j < d; j++) dst[j] = src[j];
    for (; j < dp; j++) dst[j] = 0;
}

// store_keys writes factor times the first `keys` rows of a tile [..][dp] to rows ld apart.
static void store_keys(float *dst, int64_t ld, const float *src, int64_t keys, int64_t d, int64_t dp, float factor) {
    for (int64_t i = 0; i < keys; i++) {
        int64_t j = 0;
        for (; j + LYC_VL <= d; j += LYC_VL) v_store(dst + i * ld + j, v_load(src + i * dp + j) * factor);
        for (; j < d; j++) dst[i * ld + j] = src[i * dp + j] * factor;
    }
}

// attend_grad does one part of one head: all its keys, and the queries of the part.
static void attend_grad(const attention_grad_job *g, int64_t item, float *buf) {
    const lyc_attention_size *s = &g->s;
    int64_t d = s->d, ld = s->heads * d, part = item % g->parts, b = item / g->parts, n = b / s->heads, h = b % s->heads;
    int64_t q0 = part * g->part, nq = s->tq - q0 < g->part ? s->tq - q0 : g->part, np = round_up(nq, NR);
    int64_t qat = (n * s->tq + q0) * ld + h * d, kat = n * s->tk * ld + h * d, keys_size = s->n * s->tk * ld;
    const float *k = g->k + kat, *v = g->v + kat;
    float *dk_to = g->dk, *dv_to = g->dv;
    if (part > 0) {
        if (dk_to) dk_to = g->partial + (part - 1) * 2 * keys_size;
        if (dv_to) dv_to = g->partial + (part - 1) * 2 * keys_size + keys_size;
    }
    grad_layout l = layout_of(d, g->part);
    float *scores = buf + l.scores, *slopes = buf + l.slopes, *kb = buf + l.k, *vb = buf + l.v;
    int need_slopes = g->dq || g->dk;

    for (int64_t q = 0; q < np; q += NR) {
        int64_t rows = nq - q < NR ? nq - q : NR;
        pack_panel(buf + l.qt + q * d, g->q + qat + q * ld, ld, rows, d, (float)(s->scale * LOG2E));
        pack_panel(buf + l.gt + q * d, g->dout + qat + q * ld, ld, rows, d, 1.0f);
    }
    for (int64_t q = 0; q < nq; q++) {
        copy_row(buf + l.qr + q * l.dp, g->q + qat + q * ld, d, l.dp);
        copy_row(buf + l.gr + q * l.dp, g->dout + qat + q * ld, d, l.dp);
        buf[l.dot + q] = -row_dot(g->out + qat + q * ld, g->dout + qat + q * ld, d);
        buf[l.lse + q] = (float)(-LOG2E * g->lse[b * s->tq + q0 + q]);
    }
    // Queries that only fill the last panel have no weight.
    memset(buf + l.qr + nq * l.dp, 0, 4 * (size_t)((np - nq) * l.dp));
    memset(buf + l.gr + nq * l.dp, 0, 4 * (size_t)((np - nq) * l.dp));
    for (int64_t q = nq; q < np; q++) buf[l.dot + q] = 0, buf[l.lse + q] = -1e30f;

    for (int64_t k0 = 0; k0 < s->tk; k0 += g->step) {
        int64_t keys = s->tk - k0 < g->step ? s->tk - k0 : g->step;
        int64_t first = 0; // queries before see none of the block
        if (s->causal && k0 > q0) first = (k0 - q0) / NR * NR;
        if (first > np) first = np;
        gather_rows(kb, k + k0 * ld, ld, keys, d);
        gather_rows(vb, v + k0 * ld, ld, keys, d);
        memset(scores + keys * LDS, 0, 4 * SPARE * LDS);
        memset(slopes + keys * LDS, 0, 4 * SPARE * LDS);
        for (int64_t qb = first; qb < np; qb += QUERIES) {
            int64_t count = np - qb < QUERIES ? np - qb : QUERIES;
            for (int64_t p = 0; p < count; p += NR) {
                int64_t q = qb + p;
                float *sp = scores + p, *xp = slopes + p;
                panel_product(keys, d, kb, d, 1, buf + l.qt + q * d, NR, sp, LDS, buf + l.lse + q, 0);
                if (s->causal) hide(sp, LDS, k0, keys, q0 + q);
                if (!need_slopes) {
                    for (int64_t i = 0; i < keys; i++) {
                        v_store(sp + i * LDS, exp2_low(v_load(sp + i * LDS)));
                        v_store(sp + i * LDS + LYC_VL, exp2_low(v_load(sp + i * LDS + LYC_VL)));
                    }
                    continue;
                }
                panel_product(keys, d, vb, d, 1, buf + l.gt + q * d, NR, xp, LDS, buf + l.dot + q, 0);
                for (int64_t i = 0; i < keys; i++) {
                    vf e0 = exp2_low(v_load(sp + i * LDS)), e1 = exp2_low(v_load(sp + i * LDS + LYC_VL));
                    v_store(sp + i * LDS, e0);
                    v_store(sp + i * LDS + LYC_VL, e1);
                    v_store(xp + i * LDS, e0 * v_load(xp + i * LDS));
                    v_store(xp + i * LDS + LYC_VL, e1 * v_load(xp + i * LDS + LYC_VL));
                }
                if (g->dq) panel_product(d, keys, kb, 1, d, xp, LDS, buf + l.dqt + q * d, NR, 0, k0 > 0);
            }
            if (dv_to) key_product(keys, count, scores, buf + l.gr + qb * l.dp, buf + l.dv, l.dp, qb > first);
            if (dk_to) key_product(keys, count, slopes, buf + l.qr + qb * l.dp, buf + l.dk, l.dp, qb > first);
        }
        if (first >= np) { // no query of the part sees these keys
            memset(buf + l.dk, 0, 4 * (size_t)(keys * l.dp));
            memset(buf + l.dv, 0, 4 * (size_t)(keys * l.dp));
        }
        if (dv_to) store_keys(dv_to + kat + k0 * ld, ld, buf + l.dv, keys, d, l.dp, 1.0f);
        if (dk_to) store_keys(dk_to + kat + k0 * ld, ld, buf + l.dk, keys, d, l.dp, s->scale);
    }
    if (g->dq) {
        vf factor[2] = {v_set(s->scale), v_set(s->scale)};
        for (int64_t q = 0; q < nq; q += NR)
            unpack_panel(g->dq + qat + q * ld, ld, buf + l.dqt + q * d, nq - q < NR ? nq - q : NR, d, factor);
    }
}

static void attention_grad_task(void *arg, int64_t begin, int64_t end, int thread) {
    attention_grad_job *g = arg;
    for (int64_t i = begin; i < end; i++) attend_grad(g, i, lyc_scratch(g->e->pool, thread));
}

enum { PARTS_CHUNK = 8192 };

// add_parts adds the parts behind the first to dK and dV, in their order.
static void add_parts(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    attention_grad_job *g = arg;
    int64_t size = g->s.n * g->s.tk * g->s.heads * g->s.d;
    float *to[2] = {g->dk, g->dv};
    for (int64_t c = begin; c < end; c++) {
        int64_t i0 = c * PARTS_CHUNK, i1 = i0 + PARTS_CHUNK < size ? i0 + PARTS_CHUNK : size;
        for (int which = 0; which < 2; which++) {
            float *y = to[which];
            if (!y) continue;
            for (int64_t p = 0; p < g->parts - 1; p++) {
                const float *x = g->partial + (2 * p + which) * size;
                int64_t i = i0;
                for (; i + LYC_VL <= i1; i += LYC_VL) v_store(y + i, v_load(y + i) + v_load(x + i));
                for (; i < i1; i++) y[i] += x[i];
            }
        }
    }
}

static void attention_grad(const lyc_cpu *e, float *dq, float *dk, float *dv, const float *dout, const float *out, const float *lse,
                           const float *q, const float *k, const float *v, lyc_attention_size s) {
    attention_grad_job g = {dq, dk, dv, dout, out, lse, q, k, v, s, .e = e, .partial = lyc_shared(e->pool)};
    g.part = grad_parts(s);
    g.parts = (s.tq + g.part - 1) / g.part;
    g.step = key_step(s.tk);
    lyc_parallel(e->pool, s.n * s.heads * g.parts, 1, attention_grad_task, &g);
    if (g.parts > 1 && (dk || dv)) {
        int64_t size = s.n * s.tk * s.heads * s.d;
        lyc_parallel(e->pool, (size + PARTS_CHUNK - 1) / PARTS_CHUNK, 1, add_parts, &g);
    }
}

static const lyc_attention_table LYC_NAME(lyc_attention) = {
    .forward = attention_forward,
    .grad = attention_grad,
    .forward_scratch = attention_scratch,
    .grad_scratch = attention_grad_scratch,
};
