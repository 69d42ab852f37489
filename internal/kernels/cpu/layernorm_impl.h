// Layer normalisation: a row lies in the first-level cache, so each is gone through as often as the formula asks. Contract: norm.h.

enum { NORM_ROWS = 128 }; // rows whose contributions to dgamma and dbeta are summed in float

typedef struct {
    float *y, *stats_out, *dgamma, *dbeta;
    const float *dy, *x, *stats, *gamma, *beta, *add;
    lyc_layernorm_size s;
    float *part; // [blocks,2,d]: sums of dy·xhat and of dy over NORM_ROWS rows
} layernorm_job;

// row_sum returns Σ (x - shift), and Σ (x - shift)² in *square unless that is NULL, by two sums of LYC_VL lanes.
LYC_INLINE float row_sum(const float *x, int64_t d, float shift, float *square) {
    vf s[2] = {v_zero(), v_zero()}, q[2] = {v_zero(), v_zero()};
    float tail = 0, tail_q = 0;
    int64_t j = 0;
    for (; j + 2 * LYC_VL <= d; j += 2 * LYC_VL)
        LYC_UNROLL for (int i = 0; i < 2; i++) {
            vf v = v_load(x + j + i * LYC_VL) - shift;
            s[i] += v;
            if (square) q[i] = v_fma(v, v, q[i]);
        }
    for (; j < d; j++) {
        float v = x[j] - shift;
        tail += v;
        tail_q += v * v;
    }
    if (square) *square = v_sum(q[0] + q[1]) + tail_q;
    return v_sum(s[0] + s[1]) + tail;
}

LYC_INLINE void layer_apply(float *y, const float *x, float mean, float inverse, const float *gamma, const float *beta, int64_t n) {
    store_part(y, v_fma((load_part(x, n) - mean) * inverse, load_part(gamma, n), load_part(beta, n)), n);
}

static void layer_task(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    layernorm_job *g = arg;
    int64_t d = g->s.d;
    for (int64_t r = begin; r < end; r++) {
        const float *x = g->x + r * d;
        float *y = g->y + r * d;
        float square, rough = row_sum(x, d, 0, 0) / (float)d;
        double lost = row_sum(x, d, rough, &square) / (double)d; // by the first sum, to rounding
        float mean = (float)(rough + lost), inverse = (float)(1 / sqrt(square / (double)d - lost * lost + g->s.eps));
        g->stats_out[2 * r] = mean;
        g->stats_out[2 * r + 1] = inverse;
        int64_t j = 0;
        for (; j + LYC_VL <= d; j += LYC_VL) layer_apply(y + j, x + j, mean, inverse, g->gamma + j, g->beta + j, LYC_VL);
        if (j < d) layer_apply(y + j, x + j, mean, inverse, g->gamma + j, g->beta + j, d - j);
    }
}

static void layernorm(const lyc_cpu *e, float *y, float *stats, const float *x, const float *gamma, const float *beta, lyc_layernorm_size s) {
    layernorm_job g = {.y = y, .stats_out = stats, .x = x, .gamma = gamma, .beta = beta, .s = s};
    lyc_parallel(e->pool, s.m, 1 + RUN / s.d, layer_task, &g);
}

// ---- Gradients.

LYC_INLINE void layer_grad_apply(const layernorm_job *g, int64_t at, int64_t j, float mean, float inverse, float mean_h, float mean_hx, int64_t n) {
    vf xhat = (load_part(g->x + at, n) - mean) * inverse;
    vf v = (load_part(g->gamma + j, n) * load_part(g->dy + at, n) - mean_h - xhat * mean_hx) * inverse;
    if (g->add) v += load_part(g->add + at, n);
    store_part(g->y + at, v, n);
}

static void layer_grad_task(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    layernorm_job *g = arg;
    int64_t d = g->s.d;
    for (int64_t r = begin; r < end; r++) {
        const float *x = g->x + r * d, *dy = g->dy + r * d;
        float mean = g->stats[2 * r], inverse = g->stats[2 * r + 1], tail = 0, tail_x = 0;
        vf s[2] = {v_zero(), v_zero()}, sx[2] = {v_zero(), v_zero()};
        int64_t j = 0;
        for (; j + 2 * LYC_VL <= d; j += 2 * LYC_VL)
            LYC_UNROLL for (int i = 0; i < 2; i++) {
                vf h = v_load(g->gamma + j + i * LYC_VL) * v_load(dy + j + i * LYC_VL);
                s[i] += h;
                sx[i] = v_fma(h, v_load(x + j + i * LYC_VL) - mean, sx[i]);
            }
        for (; j < d; j++) {
            float h = g->gamma[j] * dy[j];
            tail += h;
            tail_x += h * (x[j] - mean);
        }
        float mean_h = (v_sum(s[0] + s[1]) + tail) / (float)d, mean_hx = (v_sum(sx[0] + sx[1]) + tail_x) * inverse / (float)d;
        for (j = 0; j + LYC_VL <= d; j += LYC_VL) layer_grad_apply(g, r * d + j, j, mean, inverse, mean_h, mean_hx, LYC_VL);
        if (j < d) layer_grad_apply(g, r * d + j, j, mean, inverse, mean_h, mean_hx, d - j);
    }
}

static void layernorm_grad(const lyc_cpu *e, float *dx, const float *dy, const float *x, const float *stats, const float *gamma,
                           const float *add, lyc_layernorm_size s) {
    layernorm_job g = {.y = dx, .dy = dy, .x = x, .stats = stats, .gamma = gamma, .add = add, .s = s};
    lyc_parallel(e->pool, s.m, 1 + RUN / s.d, layer_grad_task, &g);
}

static lyc_bytes layernorm_scratch(lyc_layernorm_size s) { return (lyc_bytes){8 * ((s.m + NORM_ROWS - 1) / NORM_ROWS) * s.d, 0}; }

LYC_INLINE void layer_param_sum(float *sum_x, float *sum, const float *dy, const float *x, float mean, float inverse, int64_t n) {
    vf dyv = load_part(dy, n), xhat = (load_part(x, n) - mean) * inverse;
    store_part(sum_x, v_fma(dyv, xhat, load_part(sum_x, n)), n);
    store_part(sum, load_part(sum, n) + dyv, n);
}

static void layer_param_task(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    layernorm_job *g = arg;
    int64_t d = g->s.d;
    for (int64_t t = begin; t < end; t++) {
        float *sum_x = g->part + t * 2 * d, *sum = sum_x + d;
        memset(sum_x, 0, 8 * (size_t)d);
        int64_t last = (t + 1) * NORM_ROWS < g->s.m ? (t + 1) * NORM_ROWS : g->s.m;
        for (int64_t r = t * NORM_ROWS; r < last; r++) {
            const float *x = g->x + r * d, *dy = g->dy + r * d;
            float mean = g->stats[2 * r], inverse = g->stats[2 * r + 1];
            int64_t j = 0;
            for (; j + LYC_VL <= d; j += LYC_VL) layer_param_sum(sum_x + j, sum + j, dy + j, x + j, mean, inverse, LYC_VL);
            if (j < d) layer_param_sum(sum_x + j, sum + j, dy + j, x + j, mean, inverse, d - j);
        }
    }
}

static void layer_param_join(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    layernorm_job *g = arg;
    int64_t d = g->s.d, blocks = (g->s.m + NORM_ROWS - 1) / NORM_ROWS;
    for (int64_t j = begin; j < end; j++) {
        double sum_x = 0, sum = 0;
        for (int64_t b = 0; b < blocks; b++) sum_x += g->part[b * 2 * d + j], sum += g->part[b * 2 * d + d + j];
        if (g->dgamma) g->dgamma[j] = (float)sum_x;
        if (g->dbeta) g->dbeta[j] = (float)sum;
    }
}

static void layernorm_param_grad(const lyc_cpu *e, float *dgamma, float *dbeta, const float *dy, const float *x, const float *stats,
                                 lyc_layernorm_size s) {
    layernorm_job g = {.dgamma = dgamma, .dbeta = dbeta, .dy = dy, .x = x, .stats = stats, .s = s, .part = lyc_shared(e->pool)};
    lyc_parallel(e->pool, (s.m + NORM_ROWS - 1) / NORM_ROWS, 1, layer_param_task, &g);
    lyc_parallel(e->pool, s.d, 64, layer_param_join, &g);
}
