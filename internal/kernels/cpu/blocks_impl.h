// Broadcasts over blocks and sums. Contract: blocks.h.

// Doubles, half as many lanes as floats, and the floats that become them.
typedef double vd __attribute__((vector_size(LYC_VL * 4)));
typedef float vf_half __attribute__((vector_size(LYC_VL * 2)));
typedef float vf_half_any __attribute__((vector_size(LYC_VL * 2), aligned(4), may_alias));
enum { VD = LYC_VL / 2 };

// ---- y = x·s and y = x + s.

typedef struct {
    float *y;
    const float *x, *s;
    lyc_blocks_size z;
    int64_t n;
    int add;
} broadcast_job;

LYC_INLINE void broadcast_part(const int add, const int column, float *y, const float *x, const float *s, int64_t n) {
    vf v = load_part(x, n), f = column ? load_part(s, n) : v_set(*s);
    store_part(y, add ? v + f : v * f, n);
}

// One run of elements that either lie in one block (s is its element) or side by side in blocks of one element (s is a part of the vector).
LYC_INLINE void broadcast_run(const int add, const int column, float *y, const float *x, const float *s, int64_t n) {
    int64_t i = 0;
    for (; i + LYC_VL <= n; i += LYC_VL) broadcast_part(add, column, y + i, x + i, column ? s + i : s, LYC_VL);
    if (i < n) broadcast_part(add, column, y + i, x + i, column ? s + i : s, n - i);
}

LYC_INLINE void broadcast(const broadcast_job *g, const int add, int64_t i, int64_t last) {
    const int64_t len = g->z.len, inner = g->z.inner;
    if (inner == 1) {
        while (i < last) {
            int64_t j = i % len, n = len - j < last - i ? len - j : last - i;
            broadcast_run(add, 1, g->y + i, g->x + i, g->s + j, n);
            i += n;
        }
        return;
    }
    while (i < last) {
        int64_t block = i / inner, n = (block + 1) * inner - i;
        if (n > last - i) n = last - i;
        broadcast_run(add, 0, g->y + i, g->x + i, g->s + block % len, n);
        i += n;
    }
}

static void broadcast_task(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const broadcast_job *g = arg;
    int64_t last = end * RUN < g->n ? end * RUN : g->n;
    if (g->add)
        broadcast(g, 1, begin * RUN, last);
    else
        broadcast(g, 0, begin * RUN, last);
}

static void broadcast_over(const lyc_cpu *e, float *y, const float *x, const float *s, lyc_blocks_size z, int add) {
    broadcast_job g = {y, x, s, z, z.outer * z.len * z.inner, add};
    lyc_parallel(e->pool, (g.n + RUN - 1) / RUN, 1, broadcast_task, &g);
}

static void mul_blocks(const lyc_cpu *e, float *y, const float *x, const float *s, lyc_blocks_size z) { broadcast_over(e, y, x, s, z, 0); }
static void add_blocks(const lyc_cpu *e, float *y, const float *x, const float *s, lyc_blocks_size z) { broadcast_over(e, y, x, s, z, 1); }

// ---- Sums. A piece of a sum is computed by one thread; its result is a double (runs) or a row of floats (columns).

enum {
    SUM_ROWS = 128,  // columns: rows that are summed in float
    SUM_COLS = 4096, // columns: those of a piece
    SUM_RUN = 8192,  // elements of a piece otherwise, about
};

// run_sum returns Σ a, Σ a·b or Σ (a-b)², each operation in double, by four sums of VD lanes.
enum { SUM_ONE, SUM_PRODUCT, SUM_DIFFERENCE };
LYC_INLINE vd widen(const float *p) { return __builtin_convertvector(*(const vf_half_any *)p, vd); }
LYC_INLINE vd sum_part(const int op, vd s, const float *a, const float *b) {
    vd x = widen(a);
    if (op == SUM_ONE) return s + x;
    vd y = widen(b);
    if (op == SUM_PRODUCT) return s + x * y;
    return s + (x - y) * (x - y);
}

LYC_INLINE double run_sum_of(const int op, const float *a, const float *b, int64_t n) {
    vd s[4] = {{0}, {0}, {0}, {0}};
    int64_t i = 0;
    for (; i + 4 * VD <= n; i += 4 * VD) LYC_UNROLL for (int k = 0; k < 4; k++) s[k] = sum_part(op, s[k], a + i + k * VD, b + i + k * VD);
    for (; i + VD <= n; i += VD) s[0] = sum_part(op, s[0], a + i, b + i);
    vd all = (s[0] + s[1]) + (s[2] + s[3]);
    double sum = 0;
    for (int k = 0; k < VD; k++) sum += all[k];
    for (; i < n; i++) {
        double x = a[i], y = b[i];
        sum += op == SUM_ONE ? x : op == SUM_PRODUCT ? x * y : (x - y) * (x - y);
    }
    return sum;
}

static double run_sum(int op, const float *a, const float *b, int64_t n) {
    switch (op) {
    case SUM_ONE: return run_sum_of(SUM_ONE, a, a, n);
    case SUM_PRODUCT: return run_sum_of(SUM_PRODUCT, a, b, n);
    default: return run_sum_of(SUM_DIFFERENCE, a, b, n);
    }
}

typedef struct {
    float *s;
    const float *a, *b;
    lyc_blocks_size z;
    int64_t rows, pieces; // outer·len blocks, or for short ones rows of a piece; pieces of a block
    int64_t run;          // elements of a piece
    void *part;
    int op;
} sum_job;

// Columns (inner 1): piece t is rows [SUM_ROWS·r..) of columns [SUM_COLS·c..).
LYC_INLINE void column_part(float *sum, const float *a, const float *b, int64_t n) {
    vf v = load_part(a, n), s = load_part(sum, n);
    store_part(sum, b ? v_fma(v, load_part(b, n), s) : s + v, n);
}

static void column_task(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const sum_job *g = arg;
    int64_t len = g->z.len, strips = (len + SUM_COLS - 1) / SUM_COLS;
    for (int64_t t = begin; t < end; t++) {
        int64_t block = t / strips, j0 = t % strips * SUM_COLS, n = len - j0 < SUM_COLS ? len - j0 : SUM_COLS;
        int64_t r = block * SUM_ROWS, last = r + SUM_ROWS < g->z.outer ? r + SUM_ROWS : g->z.outer;
        float *sum = (float *)g->part + block * len + j0;
        memset(sum, 0, 4 * (size_t)n);
        for (; r < last; r++) {
            const float *a = g->a + r * len + j0, *b = g->b ? g->b + r * len + j0 : 0;
            int64_t j = 0;
            for (; j + LYC_VL <= n; j += LYC_VL) column_part(sum + j, a + j, b ? b + j : 0, LYC_VL);
            if (j < n) column_part(sum + j, a + j, b ? b + j : 0, n - j);
        }
    }
}

static void column_join(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const sum_job *g = arg;
    int64_t blocks = (g->z.outer + SUM_ROWS - 1) / SUM_ROWS;
    for (int64_t j = begin; j < end; j++) {
        double sum = 0;
        for (int64_t b = 0; b < blocks; b++) sum += ((const float *)g->part)[b * g->z.len + j];
        g->s[j] = (float)sum;
    }
}

// Long blocks: each is cut into pieces of g->run elements.
static void long_task(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const sum_job *g = arg;
    for (int64_t t = begin; t < end; t++) {
        int64_t block = t / g->pieces, i = t % g->pieces * g->run, n = g->z.inner - i < g->run ? g->z.inner - i : g->run;
        i += block * g->z.inner;
        ((double *)g->part)[t] = run_sum(g->op, g->a + i, g->b ? g->b + i : 0, n);
    }
}

// Short blocks: piece t is `rows` rows of len·inner elements each, and has a sum for each element of s.
static void short_task(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const sum_job *g = arg;
    int64_t len = g->z.len, inner = g->z.inner;
    for (int64_t t = begin; t < end; t++) {
        int64_t o = t * g->rows, last = o + g->rows < g->z.outer ? o + g->rows : g->z.outer;
        double *sum = (double *)g->part + t * len;
        memset(sum, 0, 8 * (size_t)len);
        for (; o < last; o++)
            for (int64_t j = 0; j < len; j++) {
                int64_t i = (o * len + j) * inner;
                sum[j] += run_sum(g->op, g->a + i, g->b ? g->b + i : 0, inner);
            }
    }
}

// join adds what belongs to s[j]: part [outer][len][pieces].
static void join(float *s, const double *part, int64_t outer, int64_t len, int64_t pieces) {
    for (int64_t j = 0; j < len; j++) {
        double sum = 0;
        for (int64_t o = 0; o < outer; o++)
            for (int64_t p = 0; p < pieces; p++) sum += part[(o * len + j) * pieces + p];
        s[j] = (float)sum;
    }
}

// sum_long tells whether blocks are long enough to be pieces by themselves; short_rows returns the rows of a piece of short ones.
LYC_INLINE int sum_long(lyc_blocks_size z) { return z.inner >= 512; }
LYC_INLINE int64_t long_pieces(lyc_blocks_size z) { return (z.inner + SUM_RUN - 1) / SUM_RUN; }
LYC_INLINE int64_t short_rows(lyc_blocks_size z) {
    int64_t rows = SUM_RUN / (z.len * z.inner);
    return rows < 16 ? 16 : rows;
}

static lyc_bytes sum_scratch(lyc_blocks_size z) {
    if (z.inner == 1) return (lyc_bytes){4 * ((z.outer + SUM_ROWS - 1) / SUM_ROWS) * z.len, 0};
    if (sum_long(z)) return (lyc_bytes){8 * z.outer * z.len * long_pieces(z), 0};
    return (lyc_bytes){8 * ((z.outer + short_rows(z) - 1) / short_rows(z)) * z.len, 0};
}

static void sum_blocks(const lyc_cpu *e, float *s, const float *a, const float *b, lyc_blocks_size z) {
    sum_job g = {.s = s, .a = a, .b = b, .z = z, .part = lyc_shared(e->pool), .op = b ? SUM_PRODUCT : SUM_ONE};
    if (z.inner == 1) {
        int64_t rows = z.outer < SUM_ROWS ? z.outer : SUM_ROWS, cols = z.len < SUM_COLS ? z.len : SUM_COLS;
        int64_t tasks = (z.outer + SUM_ROWS - 1) / SUM_ROWS * ((z.len + SUM_COLS - 1) / SUM_COLS);
        lyc_parallel(e->pool, tasks, 1 + SUM_RUN / (rows * cols), column_task, &g);
        lyc_parallel(e->pool, z.len, 256, column_join, &g);
        return;
    }
    if (sum_long(z)) {
        g.pieces = long_pieces(z);
        g.run = ((z.inner + g.pieces - 1) / g.pieces + 15) / 16 * 16;
        g.pieces = (z.inner + g.run - 1) / g.run;
        lyc_parallel(e->pool, z.outer * z.len * g.pieces, 1 + SUM_RUN / g.run, long_task, &g);
        join(s, g.part, z.outer, z.len, g.pieces);
        return;
    }
    g.rows = short_rows(z);
    int64_t tasks = (z.outer + g.rows - 1) / g.rows;
    lyc_parallel(e->pool, tasks, 1, short_task, &g);
    join(s, g.part, tasks, z.len, 1);
}

// ---- The loss.

static lyc_bytes squared_error_scratch(int64_t n, int64_t per) { return (lyc_bytes){8 * n * ((per + SUM_RUN - 1) / SUM_RUN), 0}; }

static void squared_error(const lyc_cpu *e, float *loss, const float *pred, const float *target, int64_t n, int64_t per) {
    sum_job g = {.a = pred, .b = target, .z = {1, n, per}, .part = lyc_shared(e->pool), .op = SUM_DIFFERENCE, .run = SUM_RUN};
    g.pieces = (per + SUM_RUN - 1) / SUM_RUN;
    lyc_parallel(e->pool, n * g.pieces, 1, long_task, &g);
    const double *part = g.part;
    for (int64_t i = 0; i < n; i++) {
        double sum = 0;
        for (int64_t p = 0; p < g.pieces; p++) sum += part[i * g.pieces + p];
        loss[i] = (float)(sum / (double)per);
    }
}

typedef struct {
    float *dpred;
    const float *dloss, *pred, *target;
    int64_t n, per;
} error_job;

static void error_grad_task(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const error_job *g = arg;
    int64_t i = begin * RUN, last = end * RUN < g->n ? end * RUN : g->n;
    while (i < last) {
        int64_t item = i / g->per, stop = (item + 1) * g->per < last ? (item + 1) * g->per : last;
        float f = (float)(2.0 * g->dloss[item] / (double)g->per);
        for (; i + LYC_VL <= stop; i += LYC_VL) v_store(g->dpred + i, (v_load(g->pred + i) - v_load(g->target + i)) * f);
        for (; i < stop; i++) g->dpred[i] = (g->pred[i] - g->target[i]) * f;
    }
}

static void squared_error_grad(const lyc_cpu *e, float *dpred, const float *dloss, const float *pred, const float *target, int64_t n, int64_t per) {
    error_job g = {dpred, dloss, pred, target, n * per, per};
    lyc_parallel(e->pool, (g.n + RUN - 1) / RUN, 1, error_grad_task, &g);
}

// ---- Σ x². At most SQUARE_PIECES pieces, so that their sums fit on the stack.
enum { SQUARE_PIECES = 1024 };

static double sum_squares(const lyc_cpu *e, const float *x, int64_t n) {
    double part[SQUARE_PIECES], sum = 0;
    int64_t run = (n + SQUARE_PIECES - 1) / SQUARE_PIECES;
    sum_job g = {.a = x, .b = x, .z = {1, 1, n}, .part = part, .op = SUM_PRODUCT, .run = run < SUM_RUN ? SUM_RUN : run};
    g.pieces = (n + g.run - 1) / g.run;
    lyc_parallel(e->pool, g.pieces, 1, long_task, &g);
    for (int64_t p = 0; p < g.pieces; p++) sum += part[p];
    return sum;
}

static const lyc_blocks_table LYC_NAME(lyc_blocks) = {
    .mul = mul_blocks,
    .add = add_blocks,
    .sum = sum_blocks,
    .sum_scratch = sum_scratch,
    .squared_error = squared_error,
    .squared_error_scratch = squared_error_scratch,
    .squared_error_grad = squared_error_grad,
    .sum_squares = sum_squares,
};
