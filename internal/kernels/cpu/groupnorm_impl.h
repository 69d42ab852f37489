// Group normalisation. Contract and formulas: norm.h.
//
// Every pass goes through the pixels in memory order, a block of them at a time with one number per channel beside it; what a group needs is joined from
// the blocks' channels in double.

typedef struct {
    float *y, *stats_out, *dgamma, *dbeta;
    const float *dy, *x, *stats, *gamma, *beta, *add;
    lyc_groupnorm_size s;
    int64_t block, blocks; // pixels of a block; blocks of an item
    // Shared scratch. part holds up to three sums for each channel of each block; the others are per channel of each item, their meaning depends on the pass.
    float *part;          // [n,blocks,3,c]
    float *a, *b, *k, *l; // [n,c]
    const lyc_cpu *e;
} groupnorm_job;

// group_block returns the pixels of a block: about 96 KiB of them, so that a second pass over the block finds it in the cache.
static int64_t group_block(int64_t c) {
    int64_t p = 24576 / c;
    return p < 16 ? 16 : p > 128 ? 128 : p;
}

static lyc_bytes groupnorm_scratch(lyc_groupnorm_size s) {
    int64_t block = group_block(s.c), blocks = (s.p + block - 1) / block;
    return (lyc_bytes){4 * s.n * s.c * (3 * blocks + 4), 0};
}

static groupnorm_job groupnorm_job_of(const lyc_cpu *e, lyc_groupnorm_size s) {
    groupnorm_job g = {.s = s, .e = e, .block = group_block(s.c)};
    g.blocks = (s.p + g.block - 1) / g.block;
    g.part = lyc_shared(e->pool);
    g.a = g.part + s.n * g.blocks * 3 * s.c;
    g.b = g.a + s.n * s.c;
    g.k = g.b + s.n * s.c;
    g.l = g.k + s.n * s.c;
    return g;
}

// group_pixels returns the pixels of block t of the whole batch, and the offset of its first one.
LYC_INLINE int64_t group_pixels(const groupnorm_job *g, int64_t t, int64_t *item, int64_t *at) {
    int64_t p = t % g->blocks * g->block;
    *item = t / g->blocks;
    *at = (*item * g->s.p + p) * g->s.c;
    return g->s.p - p < g->block ? g->s.p - p : g->block;
}

// Pass 1 of the forward. First the mean of each channel of the block, as float has it; then Σ d and Σ d² of the distances d from it. Σ d is what the
// mean lost to rounding.
LYC_INLINE void group_sum(float *sum, const float *x, int64_t pixels, int64_t c, int64_t n) {
    vf s = load_part(sum, n);
    LYC_UNROLL for (int64_t p = 0; p < pixels; p++) s += load_part(x + p * c, n);
    store_part(sum, s, n);
}

LYC_INLINE void group_distance(float *sum, float *square, const float *mean, const float *x, int64_t pixels, int64_t c, int64_t n) {
    vf s = load_part(sum, n), q = load_part(square, n), m = load_part(mean, n);
    LYC_UNROLL for (int64_t p = 0; p < pixels; p++) {
        vf d = load_part(x + p * c, n) - m;
        s += d;
        q = v_fma(d, d, q);
    }
    store_part(sum, s, n);
    store_part(square, q, n);
}

// The same for all channels of 4 pixels, or of 1. part is [3,c]: mean, Σ d, Σ d².
LYC_INLINE void group_sums(float *part, const float *x, const int64_t pixels, int64_t c) {
    int64_t j = 0;
    for (; j + LYC_VL <= c; j += LYC_VL) group_sum(part + j, x + j, pixels, c, LYC_VL);
    for (int64_t p = 0; j < c && p < pixels; p++) group_sum(part + j, x + p * c + j, 1, c, c - j);
}

LYC_INLINE void group_distances(float *part, const float *x, const int64_t pixels, int64_t c) {
    int64_t j = 0;
    for (; j + LYC_VL <= c; j += LYC_VL) group_distance(part + c + j, part + 2 * c + j, part + j, x + j, pixels, c, LYC_VL);
    for (int64_t p = 0; j < c && p < pixels; p++) group_distance(part + c + j, part + 2 * c + j, part + j, x + p * c + j, 1, c, c - j);
}

static void group_moments_task(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    groupnorm_job *g = arg;
    for (int64_t t = begin; t < end; t++) {
        int64_t item, at, pixels = group_pixels(g, t, &item, &at), c = g->s.c, p = 0;
        float *part = g->part + t * 3 * c;
        const float *x = g->x + at;
        memset(part, 0, 12 * (size_t)c);
        for (; p + 4 <= pixels; p += 4) group_sums(part, x + p * c, 4, c);
        for (; p < pixels; p++) group_sums(part, x + p * c, 1, c);
        for (int64_t j = 0; j < c; j++) part[j] /= (float)pixels;
        for (p = 0; p + 4 <= pixels; p += 4) group_distances(part, x + p * c, 4, c);
        for (; p < pixels; p++) group_distances(part, x + p * c, 1, c);
    }
}

// Between the passes: the statistics of each group, and mean and gamma·inverse of each channel.
static void group_stats_task(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    groupnorm_job *g = arg;
    int64_t c = g->s.c, size = c / g->s.groups;
    for (int64_t t = begin; t < end; t++) {
        int64_t item = t / g->s.groups, c0 = t % g->s.groups * size;
        const float *part = g->part + item * g->blocks * 3 * c + c0;
        double sum = 0, square = 0, count = (double)(g->s.p * size);
        for (int64_t b = 0; b < g->blocks; b++) {
            int64_t left = g->s.p - b * g->block;
            double pixels = (double)(left < g->block ? left : g->block);
            for (int64_t j = b * 3 * c; j < b * 3 * c + size; j++) sum += pixels * part[j] + part[c + j];
        }
        double mean = sum / count;
        for (int64_t b = 0; b < g->blocks; b++) {
            int64_t left = g->s.p - b * g->block;
            double pixels = (double)(left < g->block ? left : g->block);
            for (int64_t j = b * 3 * c; j < b * 3 * c + size; j++) {
                double d = part[j] - mean; // Σ (x - mean)² of the channel, x - mean being its distance + d
                square += part[2 * c + j] + d * (2 * part[c + j] + pixels * d);
            }
        }
        double inverse = 1 / sqrt(square / count + g->s.eps);
        g->stats_out[2 * t] = (float)mean;
        g->stats_out[2 * t + 1] = (float)inverse;
        for (int64_t j = c0; j < c0 + size; j++) {
            g->a[item * c + j] = (float)mean;
            g->b[item * c + j] = (float)(inverse * g->gamma[j]);
        }
    }
}

LYC_INLINE void group_apply(float *y, const float *x, const float *mean, const float *factor, const float *beta, const int with_silu, int64_t n) {
    vf z = v_fma(load_part(x, n) - load_part(mean, n), load_part(factor, n), load_part(beta, n));
    store_part(y, with_silu ? silu(z) : z, n);
}

LYC_INLINE void group_apply_block(const groupnorm_job *g, int64_t item, int64_t at, int64_t pixels, const int with_silu) {
    int64_t c = g->s.c;
    const float *mean = g->a + item * c, *factor = g->b + item * c;
    for (int64_t p = 0; p < pixels; p++) {
        const float *x = g->x + at + p * c;
        float *y = g->y + at + p * c;
        int64_t j = 0;
        for (; j + LYC_VL <= c; j += LYC_VL) group_apply(y + j, x + j, mean + j, factor + j, g->beta + j, with_silu, LYC_VL);
        if (j < c) group_apply(y + j, x + j, mean + j, factor + j, g->beta + j, with_silu, c - j);
    }
}

static void group_apply_task(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    groupnorm_job *g = arg;
    for (int64_t t = begin; t < end; t++) {
        int64_t item, at, pixels = group_pixels(g, t, &item, &at);
        if (g->s.silu)
            group_apply_block(g, item, at, pixels, 1);
        else
            group_apply_block(g, item, at, pixels, 0);
    }
}

static void groupnorm(const lyc_cpu *e, float *y, float *stats, const float *x, const float *gamma, const float *beta, lyc_groupnorm_size s) {
    groupnorm_job g = groupnorm_job_of(e, s);
    g.y = y, g.stats_out = stats, g.x = x, g.gamma = gamma, g.beta = beta;
    lyc_parallel(e->pool, s.n * g.blocks, 1, group_moments_task, &g);
    lyc_parallel(e->pool, s.n * s.groups, 4, group_stats_task, &g);
    lyc_parallel(e->pool, s.n * g.blocks, 1, group_apply_task, &g);
}

// ---- Gradients. Pass 1: Σ dz and Σ dz·xhat, per channel of the block; a and b are mean and inverse of each channel.

LYC_INLINE vf group_dz(const float *dy, vf xhat, const float *gamma, const float *beta, const int with_silu, int64_t n) {
    vf dz = load_part(dy, n);
    if (with_silu) dz *= silu_slope(v_fma(xhat, load_part(gamma, n), load_part(beta, n)));
    return dz;
}

LYC_INLINE void group_grad_sum(float *sum, float *sum_x, const float *dy, const float *x, const float *mean, const float *inverse,
                               const float *gamma, const float *beta, const int with_silu, const int64_t pixels, int64_t c, int64_t n) {
    vf s = load_part(sum, n), sx = load_part(sum_x, n), m = load_part(mean, n), r = load_part(inverse, n);
    LYC_UNROLL for (int64_t p = 0; p < pixels; p++) {
        vf xhat = (load_part(x + p * c, n) - m) * r;
        vf dz = group_dz(dy + p * c, xhat, gamma, beta, with_silu, n);
        s += dz;
        sx = v_fma(dz, xhat, sx);
    }
    store_part(sum, s, n);
    store_part(sum_x, sx, n);
}

LYC_INLINE void group_grad_sums(const groupnorm_job *g, float *sum, int64_t item, int64_t at, const int64_t pixels, const int with_silu) {
    int64_t c = g->s.c, j = 0;
    const float *m = g->a + item * c, *r = g->b + item * c, *x = g->x + at, *dy = g->dy + at;
    for (; j + LYC_VL <= c; j += LYC_VL)
        group_grad_sum(sum + j, sum + c + j, dy + j, x + j, m + j, r + j, g->gamma + j, g->beta + j, with_silu, pixels, c, LYC_VL);
    for (int64_t p = 0; j < c && p < pixels; p++)
        group_grad_sum(sum + j, sum + c + j, dy + p * c + j, x + p * c + j, m + j, r + j, g->gamma + j, g->beta + j, with_silu, 1, c, c - j);
}

LYC_INLINE void group_grad_sum_block(const groupnorm_job *g, float *sum, int64_t item, int64_t at, int64_t pixels, const int with_silu) {
    int64_t p = 0;
    memset(sum, 0, 8 * (size_t)g->s.c);
    for (; p + 4 <= pixels; p += 4) group_grad_sums(g, sum, item, at + p * g->s.c, 4, with_silu);
    for (; p < pixels; p++) group_grad_sums(g, sum, item, at + p * g->s.c, 1, with_silu);
}

static void group_grad_sum_task(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    groupnorm_job *g = arg;
    for (int64_t t = begin; t < end; t++) {
        int64_t item, at, pixels = group_pixels(g, t, &item, &at);
        float *sum = g->part + t * 2 * g->s.c;
        if (g->s.silu)
            group_grad_sum_block(g, sum, item, at, pixels, 1);
        else
            group_grad_sum_block(g, sum, item, at, pixels, 0);
    }
}

static void group_grad_pass1(groupnorm_job *g) {
    int64_t c = g->s.c, size = c / g->s.groups;
    for (int64_t i = 0; i < g->s.n * c; i++) {
        int64_t group = i / c * g->s.groups + i % c / size;
        g->a[i] = g->stats[2 * group];
        g->b[i] = g->stats[2 * group + 1];
    }
    lyc_parallel(g->e->pool, g->s.n * g->blocks, 1, group_grad_sum_task, g);
}

// Between the passes: mean(h) and mean(h·xhat) of each group, into k and l of its channels.
static void group_means_task(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    groupnorm_job *g = arg;
    int64_t c = g->s.c, size = c / g->s.groups;
    for (int64_t t = begin; t < end; t++) {
        int64_t item = t / g->s.groups, c0 = t % g->s.groups * size;
        const float *part = g->part + item * g->blocks * 2 * c;
        double sum = 0, sum_x = 0, count = (double)(g->s.p * size);
        for (int64_t b = 0; b < g->blocks; b++)
            for (int64_t j = c0; j < c0 + size; j++) {
                sum += (double)g->gamma[j] * part[b * 2 * c + j];
                sum_x += (double)g->gamma[j] * part[b * 2 * c + c + j];
            }
        for (int64_t j = item * c + c0; j < item * c + c0 + size; j++) {
            g->k[j] = (float)(sum / count);
            g->l[j] = (float)(sum_x / count);
        }
    }
}

// Pass 2: dx = (gamma·dz - mean(h) - xhat·mean(h·xhat))·inverse + add, from channel i of the item on.
LYC_INLINE void group_grad_apply(const groupnorm_job *g, int64_t at, int64_t i, int64_t j, const int with_silu, int64_t n) {
    vf r = load_part(g->b + i, n), xhat = (load_part(g->x + at, n) - load_part(g->a + i, n)) * r;
    vf dz = group_dz(g->dy + at, xhat, g->gamma + j, g->beta + j, with_silu, n);
    vf v = (load_part(g->gamma + j, n) * dz - load_part(g->k + i, n) - xhat * load_part(g->l + i, n)) * r;
    if (g->add) v += load_part(g->add + at, n);
    store_part(g->y + at, v, n);
}

LYC_INLINE void group_grad_apply_block(const groupnorm_job *g, int64_t item, int64_t at, int64_t pixels, const int with_silu) {
    int64_t c = g->s.c;
    for (int64_t p = 0; p < pixels; p++, at += c) {
        int64_t j = 0;
        for (; j + LYC_VL <= c; j += LYC_VL) group_grad_apply(g, at + j, item * c + j, j, with_silu, LYC_VL);
        if (j < c) group_grad_apply(g, at + j, item * c + j, j, with_silu, c - j);
    }
}

static void group_grad_apply_task(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    groupnorm_job *g = arg;
    for (int64_t t = begin; t < end; t++) {
        int64_t item, at, pixels = group_pixels(g, t, &item, &at);
        if (g->s.silu)
            group_grad_apply_block(g, item, at, pixels, 1);
        else
            group_grad_apply_block(g, item, at, pixels, 0);
    }
}

static void groupnorm_grad(const lyc_cpu *e, float *dx, const float *dy, const float *x, const float *stats, const float *gamma,
                           const float *beta, const float *add, lyc_groupnorm_size s) {
    groupnorm_job g = groupnorm_job_of(e, s);
    g.y = dx, g.dy = dy, g.x = x, g.stats = stats, g.gamma = gamma, g.beta = beta, g.add = add;
    group_grad_pass1(&g);
    lyc_parallel(e->pool, s.n * s.groups, 4, group_means_task, &g);
    lyc_parallel(e->pool, s.n * g.blocks, 1, group_grad_apply_task, &g);
}

// The parameters' gradients are the sums of pass 1, over blocks and items.
static void group_param_task(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    groupnorm_job *g = arg;
    int64_t c = g->s.c;
    for (int64_t j = begin; j < end; j++) {
        double sum = 0, sum_x = 0;
        for (int64_t b = 0; b < g->s.n * g->blocks; b++) {
            sum += g->part[b * 2 * c + j];
            sum_x += g->part[b * 2 * c + c + j];
        }
        if (g->dgamma) g->dgamma[j] = (float)sum_x;
        if (g->dbeta) g->dbeta[j] = (float)sum;
    }
}

static void groupnorm_param_grad(const lyc_cpu *e, float *dgamma, float *dbeta, const float *dy, const float *x, const float *stats,
                                 const float *gamma, const float *beta, lyc_groupnorm_size s) {
    groupnorm_job g = groupnorm_job_of(e, s);
    g.dgamma = dgamma, g.dbeta = dbeta, g.dy = dy, g.x = x, g.stats = stats, g.gamma = gamma, g.beta = beta;
    group_grad_pass1(&g);
    lyc_parallel(e->pool, s.c, 64, group_param_task, &g);
}
