// Ops that move values. Contract: copy.h.

enum { MOVE = 16384 }; // elements that a piece of work moves, about

typedef struct {
    float *y;
    const float *x;
    const int32_t *index;
    int64_t y_ld, x_ld, rows, cols, n;
    lyc_permutation p;
} copy_job;

static void columns_task(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const copy_job *g = arg;
    for (int64_t r = begin; r < end; r++) memcpy(g->y + r * g->y_ld, g->x + r * g->x_ld, 4 * (size_t)g->cols);
}

static void copy_columns(const lyc_cpu *e, float *dst, int64_t dst_ld, const float *src, int64_t src_ld, int64_t rows, int64_t cols) {
    copy_job g = {.y = dst, .x = src, .y_ld = dst_ld, .x_ld = src_ld, .cols = cols};
    if (dst_ld == cols && src_ld == cols) { // one long row, cut for the threads
        int64_t n = rows * cols, whole = n / MOVE;
        g.y_ld = g.x_ld = g.cols = MOVE;
        lyc_parallel(e->pool, whole, 1, columns_task, &g);
        memcpy(dst + whole * MOVE, src + whole * MOVE, 4 * (size_t)(n - whole * MOVE));
        return;
    }
    lyc_parallel(e->pool, rows, 1 + MOVE / cols, columns_task, &g);
}

// ---- Permute. Axes that stay together have been joined by the caller. If the last axis of y is that of x, rows are copied. Else two axes
// matter, that of y's neighbours and that of x's: squares between them are transposed in registers.

// source returns the offset in x, and *to that in y, of index i over the axes but a and b; y_stride are y's strides.
static int64_t source(const lyc_permutation *p, const int64_t *y_stride, int a, int b, int64_t i, int64_t *to) {
    int64_t from = 0;
    *to = 0;
    for (int axis = p->axes - 1; axis >= 0; axis--) {
        if (axis == a || axis == b) continue;
        int64_t k = i % p->size[axis];
        i /= p->size[axis];
        from += k * p->stride[axis];
        *to += k * y_stride[axis];
    }
    return from;
}

static void y_strides(const lyc_permutation *p, int64_t stride[6]) {
    int64_t n = 1;
    for (int axis = p->axes - 1; axis >= 0; axis--) stride[axis] = n, n *= p->size[axis];
}

static void permute_rows_task(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const copy_job *g = arg;
    const lyc_permutation *p = &g->p;
    int64_t stride[6], last = p->axes - 1, n = p->size[last];
    y_strides(p, stride);
    for (int64_t i = begin; i < end; i++) {
        int64_t to, from = source(p, stride, (int)last, (int)last, i, &to);
        memcpy(g->y + to, g->x + from, 4 * (size_t)n);
    }
}

// transpose copies y[j·y_ld + i] = x[i·x_ld + j] for i < m, j < n.
static void transpose(float *y, int64_t y_ld, const float *x, int64_t x_ld, int64_t m, int64_t n) {
    for (int64_t i = 0; i < m; i += LYC_VL)
        for (int64_t j = 0; j < n; j += LYC_VL) {
            if (i + LYC_VL <= m && j + LYC_VL <= n) {
                vf r[LYC_VL];
                LYC_UNROLL for (int k = 0; k < LYC_VL; k++) r[k] = v_load(x + (i + k) * x_ld + j);
                v_transpose(r);
                LYC_UNROLL for (int k = 0; k < LYC_VL; k++) v_store(y + (j + k) * y_ld + i, r[k]);
                continue;
            }
            for (int64_t jj = j; jj < j + LYC_VL && jj < n; jj++)
                for (int64_t ii = i; ii < i + LYC_VL && ii < m; ii++) y[jj * y_ld + ii] = x[ii * x_ld + jj];
        }
}

enum { SQUARE = 64 }; // rows of x and of y that a piece transposes between

// Axis 0 of a piece's number is the other axes, then blocks of y's rows (x's neighbours, g->cols of them), then blocks of x's rows.
static void permute_squares_task(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const copy_job *g = arg;
    const lyc_permutation *p = &g->p;
    int last = p->axes - 1, near = (int)g->n;
    int64_t stride[6], m = p->size[last], n = p->size[near], mb = (m + SQUARE - 1) / SQUARE, nb = (n + SQUARE - 1) / SQUARE;
    y_strides(p, stride);
    for (int64_t t = begin; t < end; t++) {
        int64_t to, from = source(p, stride, last, near, t / (mb * nb), &to);
        int64_t i = t % mb * SQUARE, j = t / mb % nb * SQUARE;
        transpose(g->y + to + j * stride[near] + i, stride[near], g->x + from + i * p->stride[last] + j, p->stride[last],
                  m - i < SQUARE ? m - i : SQUARE, n - j < SQUARE ? n - j : SQUARE);
    }
}

static void permute(const lyc_cpu *e, float *y, const float *x, lyc_permutation p) {
    copy_job g = {.y = y, .x = x, .p = p};
    int64_t n = 1;
    for (int i = 0; i < p.axes; i++) n *= p.size[i];
    int last = p.axes - 1;
    if (p.stride[last] == 1) {
        lyc_parallel(e->pool, n / p.size[last], 1 + MOVE / p.size[last], permute_rows_task, &g);
        return;
    }
    for (int i = 0; i < last; i++)
        if (p.stride[i] == 1) g.n = i;
    int64_t mb = (p.size[last] + SQUARE - 1) / SQUARE, nb = (p.size[g.n] + SQUARE - 1) / SQUARE, rest = n / (p.size[last] * p.size[g.n]);
    int64_t pieces = rest * mb * nb;
    lyc_parallel(e->pool, pieces, 1 + MOVE / (n / pieces + 1), permute_squares_task, &g);
}

// ---- Rows by index.

static void gather_task(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const copy_job *g = arg;
    for (int64_t i = begin; i < end; i++) memcpy(g->y + i * g->cols, g->x + g->index[i] * g->cols, 4 * (size_t)g->cols);
}

static void gather(const lyc_cpu *e, float *y, const float *x, const int32_t *index, int64_t n, int64_t d) {
    copy_job g = {.y = y, .x = x, .index = index, .cols = d};
    lyc_parallel(e->pool, n, 1 + MOVE / d, gather_task, &g);
}

// The scatter is split over columns, so that each sum keeps the order of i.
static void scatter_task(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const copy_job *g = arg;
    int64_t d = g->cols, j0 = begin * SQUARE, j1 = end * SQUARE < d ? end * SQUARE : d;
    for (int64_t r = 0; r < g->rows; r++) memset(g->y + r * d + j0, 0, 4 * (size_t)(j1 - j0));
    for (int64_t i = 0; i < g->n; i++) {
        float *y = g->y + g->index[i] * d;
        const float *x = g->x + i * d;
        int64_t j = j0;
        for (; j + LYC_VL <= j1; j += LYC_VL) v_store(y + j, v_load(y + j) + v_load(x + j));
        for (; j < j1; j++) y[j] += x[j];
    }
}

static void scatter(const lyc_cpu *e, float *y, const float *x, const int32_t *index, int64_t n, int64_t rows, int64_t d) {
    copy_job g = {.y = y, .x = x, .index = index, .n = n, .rows = rows, .cols = d};
    lyc_parallel(e->pool, (d + SQUARE - 1) / SQUARE, 1, scatter_task, &g);
}

// ---- Upsampling, one row of small pixels at a time: g->n pixels of g->cols channels.

static void upsample_task(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const copy_job *g = arg;
    int64_t w = g->n, c = g->cols;
    for (int64_t r = begin; r < end; r++) {
        float *y = g->y + r * 4 * w * c;
        for (int64_t j = 0; j < w; j++) {
            memcpy(y + 2 * j * c, g->x + (r * w + j) * c, 4 * (size_t)c);
            memcpy(y + (2 * j + 1) * c, g->x + (r * w + j) * c, 4 * (size_t)c);
        }
        memcpy(y + 2 * w * c, y, 8 * (size_t)(w * c));
    }
}

static void upsample(const lyc_cpu *e, float *y, const float *x, int64_t rows, int64_t w, int64_t c) {
    copy_job g = {.y = y, .x = x, .n = w, .cols = c};
    lyc_parallel(e->pool, rows, 1 + MOVE / (4 * w * c), upsample_task, &g);
}

LYC_INLINE void upsample_grad_part(float *dx, const float *p, const float *q, int64_t c, int64_t n) {
    store_part(dx, (load_part(p, n) + load_part(p + c, n)) + (load_part(q, n) + load_part(q + c, n)), n);
}

static void upsample_grad_task(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const copy_job *g = arg;
    int64_t w = g->n, c = g->cols;
    for (int64_t r = begin; r < end; r++)
        for (int64_t j = 0; j < w; j++) {
            const float *p = g->x + r * 4 * w * c + 2 * j * c, *q = p + 2 * w * c;
            float *dx = g->y + (r * w + j) * c;
            int64_t k = 0;
            for (; k + LYC_VL <= c; k += LYC_VL) upsample_grad_part(dx + k, p + k, q + k, c, LYC_VL);
            if (k < c) upsample_grad_part(dx + k, p + k, q + k, c, c - k);
        }
}

static void upsample_grad(const lyc_cpu *e, float *dx, const float *dy, int64_t rows, int64_t w, int64_t c) {
    copy_job g = {.y = dx, .x = dy, .n = w, .cols = c};
    lyc_parallel(e->pool, rows, 1 + MOVE / (4 * w * c), upsample_grad_task, &g);
}

static const lyc_copy_table LYC_NAME(lyc_copy) = {
    .columns = copy_columns,
    .permute = permute,
    .gather = gather,
    .scatter = scatter,
    .upsample = upsample,
    .upsample_grad = upsample_grad,
};
