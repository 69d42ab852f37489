// Products with block-diagonal matrices. Contract: blockmat.h.

typedef struct {
    float *y; // the output: y, or dr
    const float *x, *r, *add, *dy;
    lyc_blockmat_size s;
    const lyc_cpu *e;
    float *dense; // [shares][panels][depth][NR]
    int64_t panels, depth, shares, share_m;
} blockmat_job;

enum { BLOCKMAT_ROWS = 48 }; // rows of a task, a multiple of MR

// A panel: columns [c0,c0+cols) of y, input columns [k0,k0+k) of the blocks [b0,..) that they touch.
typedef struct {
    int64_t c0, cols, b0, k0, k;
} blockmat_panel;

static blockmat_panel panel_of(const blockmat_job *g, int64_t p) {
    const lyc_blockmat_size *s = &g->s;
    int64_t c0 = p * NR, left = s->n * s->t - c0, cols = left < NR ? left : NR, b0 = c0 / s->t, b1 = (c0 + cols - 1) / s->t + 1;
    return (blockmat_panel){c0, cols, b0, b0 * s->s, (b1 - b0) * s->s};
}

// The most input columns of a panel.
static int64_t blockmat_depth(const lyc_blockmat_size *s) {
    int64_t blocks = (NR + s->t - 2) / s->t + 1;
    return (blocks < s->n ? blocks : s->n) * s->s;
}

LYC_INLINE int64_t block_at(const lyc_blockmat_size *s, int64_t b, int64_t i, int64_t j) {
    return s->trans ? (b * s->t + j) * s->s + i : (b * s->s + i) * s->t + j;
}

static void blockmat_dense_task(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const blockmat_job *g = arg;
    for (int64_t p = begin; p < end; p++) {
        blockmat_panel q = panel_of(g, p);
        float *dst = g->dense + p * g->depth * NR;
        memset(dst, 0, (size_t)(q.k * NR) * sizeof *dst);
        for (int64_t c = 0; c < q.cols; c++) {
            int64_t b = (q.c0 + c) / g->s.t, j = (q.c0 + c) % g->s.t;
            float *d = dst + (b - q.b0) * g->s.s * NR + c;
            for (int64_t i = 0; i < g->s.s; i++) d[i * NR] = g->r[block_at(&g->s, b, i, j)];
        }
    }
}

static void blockmat_task(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const blockmat_job *g = arg;
    int64_t ldx = g->s.n * g->s.s, ldy = g->s.n * g->s.t;
    for (int64_t t = begin; t < end; t++) {
        int64_t i = t * BLOCKMAT_ROWS, m = g->s.m - i < BLOCKMAT_ROWS ? g->s.m - i : BLOCKMAT_ROWS;
        for (int64_t p = 0; p < g->panels; p++) {
            blockmat_panel q = panel_of(g, p);
            gemm_a a = {g->x + i * ldx + q.k0, ldx, 1, MR * ldx};
            panel_rows(m, q.cols, q.k, a, g->dense + p * g->depth * NR, NR, g->y + i * ldy + q.c0, ldy, g->add ? g->add + i * ldy + q.c0 : 0, ldy,
                       0, 1);
        }
    }
}

static void blockmat(const lyc_cpu *e, float *y, const float *x, const float *r, const float *add, lyc_blockmat_size s) {
    blockmat_job g = {.y = y, .x = x, .r = r, .add = add, .s = s, .e = e, .dense = lyc_shared(e->pool), .panels = (s.n * s.t + NR - 1) / NR,
                      .depth = blockmat_depth(&s)};
    lyc_parallel(e->pool, g.panels, 1 + 32768 / (g.depth * NR), blockmat_dense_task, &g);
    lyc_parallel(e->pool, (s.m + BLOCKMAT_ROWS - 1) / BLOCKMAT_ROWS, 1, blockmat_task, &g);
}

// The gradient: the dense product of a panel's input columns and its columns of dy, of which the blocks are kept. Rows are cut into shares where there are
// few panels, and within a share into blocks of MC that are copied together; the sums follow in the order of the shares.
static int64_t blockmat_shares(const lyc_blockmat_size *s) {
    int64_t panels = (s->n * s->t + NR - 1) / NR, want = (16 + panels - 1) / panels, most = (s->m + 255) / 256;
    if (want > most) want = most;
    return want < 1 ? 1 : want;
}

static void blockmat_grad_task(void *arg, int64_t begin, int64_t end, int thread) {
    const blockmat_job *g = arg;
    int64_t ldx = g->s.n * g->s.s, ldy = g->s.n * g->s.t;
    float *buf = lyc_scratch(g->e->pool, thread), *rows = buf + MC * NR;
    for (int64_t t = begin; t < end; t++) {
        blockmat_panel q = panel_of(g, t % g->panels);
        float *dst = g->dense + t * g->depth * NR;
        int64_t first = t / g->panels * g->share_m, last = first + g->share_m < g->s.m ? first + g->share_m : g->s.m;
        if (first >= last) memset(dst, 0, (size_t)(q.k * NR) * sizeof *dst);
        for (int64_t i = first; i < last; i += MC) {
            int64_t m = last - i < MC ? last - i : MC;
            for (int64_t r = 0; r < m; r++) {
                const float *dy = g->dy + (i + r) * ldy + q.c0;
                float *d = buf + r * NR;
                if (q.cols == NR) {
                    v_store(d, v_load(dy));
                    v_store(d + LYC_VL, v_load(dy + LYC_VL));
                } else {
                    for (int64_t j = 0; j < NR; j++) d[j] = j < q.cols ? dy[j] : 0;
                }
            }
            for (int64_t k0 = 0; k0 < q.k; k0 += KC) {
                int64_t k = q.k - k0 < KC ? q.k - k0 : KC;
                for (int64_t r = 0; r < m; r++) memcpy(rows + r * LDA, g->x + (i + r) * ldx + q.k0 + k0, (size_t)k * sizeof *rows);
                float *c = dst + k0 * NR;
                panel_rows(k, NR, m, (gemm_a){rows, 1, LDA, MR}, buf, NR, c, NR, i > first ? c : 0, NR, 0, 1);
            }
        }
    }
}

static void blockmat_sum_task(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const blockmat_job *g = arg;
    int64_t step = g->panels * g->depth * NR;
    for (int64_t c = begin; c < end; c++) { // a column of y
        int64_t b = c / g->s.t, j = c % g->s.t;
        const float *src = g->dense + c / NR * g->depth * NR + (b - c / NR * NR / g->s.t) * g->s.s * NR + c % NR;
        for (int64_t i = 0; i < g->s.s; i++) {
            float x = src[i * NR];
            for (int64_t share = 1; share < g->shares; share++) x += src[share * step + i * NR];
            g->y[block_at(&g->s, b, i, j)] = x;
        }
    }
}

static void blockmat_grad(const lyc_cpu *e, float *dr, const float *dy, const float *x, lyc_blockmat_size s) {
    blockmat_job g = {.y = dr, .x = x, .dy = dy, .s = s, .e = e, .dense = lyc_shared(e->pool), .panels = (s.n * s.t + NR - 1) / NR,
                      .depth = blockmat_depth(&s), .shares = blockmat_shares(&s)};
    g.share_m = (s.m + g.shares - 1) / g.shares;
    lyc_parallel(e->pool, g.panels * g.shares, 1, blockmat_grad_task, &g);
    lyc_parallel(e->pool, s.n * s.t, 1 + 32768 / (s.s * g.shares), blockmat_sum_task, &g);
}

static lyc_bytes blockmat_scratch(lyc_blockmat_size s) {
    return (lyc_bytes){4 * blockmat_shares(&s) * ((s.n * s.t + NR - 1) / NR) * blockmat_depth(&s) * NR, GEMM_THREAD_BYTES};
}

static const lyc_blockmat_table LYC_NAME(lyc_blockmat) = {.product = blockmat, .grad = blockmat_grad, .scratch = blockmat_scratch};
