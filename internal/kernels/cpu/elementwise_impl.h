// Arithmetic element by element. Contract and formulas: elementwise.h.

enum { OP_COMBINE, OP_SCALE, OP_MUL };

typedef struct {
    float *y;
    const float *a, *b;
    float alpha, beta;
    int64_t n;
    int op;
} elementwise_job;

LYC_INLINE void element(const int op, float *y, const float *a, const float *b, float alpha, float beta, int64_t n) {
    vf v = load_part(a, n);
    if (op == OP_COMBINE) v = v_fma(v, v_set(alpha), load_part(b, n) * beta);
    if (op == OP_SCALE) v = v * alpha;
    if (op == OP_MUL) v = v * load_part(b, n);
    store_part(y, v, n);
}

LYC_INLINE void elements(const int op, const elementwise_job *g, int64_t i, int64_t last) {
    for (; i + LYC_VL <= last; i += LYC_VL) element(op, g->y + i, g->a + i, g->b + i, g->alpha, g->beta, LYC_VL);
    if (i < last) element(op, g->y + i, g->a + i, g->b + i, g->alpha, g->beta, last - i);
}

static void elementwise_task(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const elementwise_job *g = arg;
    int64_t last = end * RUN < g->n ? end * RUN : g->n;
    switch (g->op) {
    case OP_COMBINE: elements(OP_COMBINE, g, begin * RUN, last); break;
    case OP_SCALE: elements(OP_SCALE, g, begin * RUN, last); break;
    default: elements(OP_MUL, g, begin * RUN, last);
    }
}

static void elementwise(const lyc_cpu *e, elementwise_job g) { lyc_parallel(e->pool, (g.n + RUN - 1) / RUN, 1, elementwise_task, &g); }

static void combine(const lyc_cpu *e, float *y, const float *a, float alpha, const float *b, float beta, int64_t n) {
    elementwise(e, (elementwise_job){y, a, b, alpha, beta, n, OP_COMBINE});
}

static void scale(const lyc_cpu *e, float *y, const float *x, float alpha, int64_t n) {
    elementwise(e, (elementwise_job){y, x, x, alpha, 0, n, OP_SCALE});
}

static void mul(const lyc_cpu *e, float *y, const float *a, const float *b, int64_t n) {
    elementwise(e, (elementwise_job){y, a, b, 0, 0, n, OP_MUL});
}

static void axpy(const lyc_cpu *e, float *y, const float *x, float alpha, int64_t n) {
    elementwise(e, (elementwise_job){y, x, y, alpha, 1, n, OP_COMBINE});
}

// A ratio per row or column of a weight: a few hundred values, by one thread.
static void norm_ratio(const lyc_cpu *e, float *f, const float *d, const float *ss, float eps, float mu, int64_t n) {
    (void)e;
    for (int64_t i = 0; i < n; i++) f[i] = (float)(mu * (d[i] / (sqrt(ss[i] > 0 ? ss[i] : 0.0) + (double)eps) - 1) + 1);
}

static void norm_ratio_grad(const lyc_cpu *e, float *dd, float *dss, const float *df, const float *d, const float *ss, float eps, float mu, int64_t n) {
    (void)e;
    for (int64_t i = 0; i < n; i++) {
        double root = sqrt(ss[i] > 0 ? ss[i] : 0.0), norm = root + eps, g = (double)df[i] * mu;
        if (dd) dd[i] = (float)(g / norm);
        if (dss) dss[i] = ss[i] > 0 ? (float)(-g * d[i] / (2 * norm * norm * root)) : 0;
    }
}

typedef struct {
    float *p, *m, *v;
    const float *g;
    int64_t n;
    lyc_adamw_step s;
} adamw_job;

LYC_INLINE void adamw_part(float *p, float *m, float *v, const float *g, lyc_adamw_step s, int64_t n) {
    vf grad = load_part(g, n) * s.grad_scale;
    vf first = v_fma(v_set(s.beta1), load_part(m, n), grad * s.rest1);
    vf second = v_fma(v_set(s.beta2), load_part(v, n), grad * grad * s.rest2);
    vf value = load_part(p, n) * s.keep;
    store_part(m, first, n);
    store_part(v, second, n);
    store_part(p, value - first * s.step / (v_sqrt(second) / s.root + s.eps), n);
}

static void adamw_range(const adamw_job *g, int64_t i, int64_t last) {
    for (; i + LYC_VL <= last; i += LYC_VL) adamw_part(g->p + i, g->m + i, g->v + i, g->g + i, g->s, LYC_VL);
    if (i < last) adamw_part(g->p + i, g->m + i, g->v + i, g->g + i, g->s, last - i);
}

static void adamw_task(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const adamw_job *g = arg;
    adamw_range(g, begin * RUN, end * RUN < g->n ? end * RUN : g->n);
}

static void adamw(const lyc_cpu *e, float *p, float *m, float *v, const float *g, int64_t n, lyc_adamw_step s) {
    adamw_job job = {p, m, v, g, n, s};
    lyc_parallel(e->pool, (n + RUN - 1) / RUN, 1, adamw_task, &job);
}

static const lyc_elementwise_table LYC_NAME(lyc_elementwise) = {
    .combine = combine,
    .scale = scale,
    .mul = mul,
    .axpy = axpy,
    .norm_ratio = norm_ratio,
    .norm_ratio_grad = norm_ratio_grad,
    .adamw = adamw,
};
