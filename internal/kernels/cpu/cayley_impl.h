// Rotations from skew matrices. Contract and formulas: cayley.h.

typedef struct {
    float *y;
    const float *dr, *r, *a;
    lyc_cayley_size s;
    const lyc_cpu *e;
    double factor, pull; // of Q; of Q0 in the gradient
    double *sums;        // [n]
} cayley_job;

static void skew_norm_task(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const cayley_job *g = arg;
    int64_t s = g->s.s;
    for (int64_t n = begin; n < end; n++) {
        const float *a = g->a + n * s * s;
        double sum = 0;
        for (int64_t i = 0; i < s; i++)
            for (int64_t j = 0; j < i; j++) {
                double d = (double)a[i * s + j] - a[j * s + i];
                sum += d * d;
            }
        g->sums[n] = 2 * sum;
    }
}

static double cayley_sum(const cayley_job *g) {
    double sum = 0;
    for (int64_t n = 0; n < g->s.n; n++) sum += g->sums[n];
    return sum;
}

static int64_t cayley_grain(lyc_cayley_size s, int64_t power) { return 1 + 200000 / (power == 3 ? s.s * s.s * s.s : s.s * s.s); }

// cayley_bound settles g->factor; returns ‖Q0‖.
static double cayley_bound(cayley_job *g) {
    g->factor = 1;
    if (!(g->s.limit > 0)) return 0;
    lyc_parallel(g->e->pool, g->s.n, cayley_grain(g->s, 2), skew_norm_task, g);
    double norm = sqrt(cayley_sum(g)), q = norm + 1e-8;
    if (q > g->s.limit) g->factor = g->s.limit / q;
    return norm;
}

// r = 2X − I with X = (I−Q)⁻¹, for I+Q and X commute. The inverse is Gauss and Jordan's in place. No pivots are sought: the symmetric part of I−Q
// is I and that of each Schur complement at least I, so no pivot is below 1.
static void cayley_task(void *arg, int64_t begin, int64_t end, int thread) {
    const cayley_job *g = arg;
    int64_t s = g->s.s;
    double *m = lyc_scratch(g->e->pool, thread);
    for (int64_t n = begin; n < end; n++) {
        const float *a = g->a + n * s * s;
        float *r = g->y + n * s * s;
        for (int64_t i = 0; i < s; i++)
            for (int64_t j = 0; j < s; j++) m[i * s + j] = (i == j) - g->factor * ((double)a[i * s + j] - a[j * s + i]);
        for (int64_t k = 0; k < s; k++) {
            double *top = m + k * s, inv = 1 / top[k];
            top[k] = 1;
            for (int64_t j = 0; j < s; j++) top[j] *= inv;
            for (int64_t i = 0; i < s; i++) {
                if (i == k) continue;
                double *row = m + i * s, f = row[k];
                row[k] = 0;
                for (int64_t j = 0; j < s; j++) row[j] -= f * top[j];
            }
        }
        for (int64_t i = 0; i < s; i++)
            for (int64_t j = 0; j < s; j++) r[i * s + j] = (float)(2 * m[i * s + j] - (i == j));
    }
}

static void cayley(const lyc_cpu *e, float *r, const float *a, lyc_cayley_size s) {
    cayley_job g = {.y = r, .a = a, .s = s, .e = e, .sums = lyc_shared(e->pool)};
    cayley_bound(&g);
    lyc_parallel(e->pool, s.n, cayley_grain(s, 3), cayley_task, &g);
}

// With Y = I + r = 2X: GQ = Yᵀ·dr·Yᵀ/2, and y = GQ − GQᵀ. Where the bound acts, g->sums gets ⟨GQ,Q0⟩ of each block.
static void cayley_grad_task(void *arg, int64_t begin, int64_t end, int thread) {
    const cayley_job *g = arg;
    int64_t s = g->s.s;
    double *y = lyc_scratch(g->e->pool, thread), *t = y + s * s, *q = t + s * s;
    for (int64_t n = begin; n < end; n++) {
        const float *r = g->r + n * s * s, *dr = g->dr + n * s * s, *a = g->a + n * s * s;
        float *out = g->y + n * s * s;
        for (int64_t i = 0; i < s; i++)
            for (int64_t j = 0; j < s; j++) {
                y[i * s + j] = (double)r[i * s + j] + (i == j);
                t[i * s + j] = q[i * s + j] = 0;
            }
        for (int64_t i = 0; i < s; i++) // t = Yᵀ·dr
            for (int64_t k = 0; k < s; k++) {
                double f = y[k * s + i];
                for (int64_t j = 0; j < s; j++) t[i * s + j] += f * dr[k * s + j];
            }
        for (int64_t i = 0; i < s; i++) // Y in place of Yᵀ
            for (int64_t j = 0; j < i; j++) {
                double x = y[i * s + j];
                y[i * s + j] = y[j * s + i];
                y[j * s + i] = x;
            }
        for (int64_t i = 0; i < s; i++) // q = t·Yᵀ
            for (int64_t k = 0; k < s; k++) {
                double f = t[i * s + k];
                for (int64_t j = 0; j < s; j++) q[i * s + j] += f * y[k * s + j];
            }
        double inner = 0;
        for (int64_t i = 0; i < s; i++)
            for (int64_t j = 0; j < s; j++) {
                double d = 0.5 * (q[i * s + j] - q[j * s + i]);
                if (g->factor != 1 && j < i) inner += d * ((double)a[i * s + j] - a[j * s + i]);
                out[i * s + j] = (float)d;
            }
        if (g->factor != 1) g->sums[n] = inner;
    }
}

static void cayley_bound_grad_task(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const cayley_job *g = arg;
    int64_t s = g->s.s;
    for (int64_t n = begin; n < end; n++) {
        const float *a = g->a + n * s * s;
        float *out = g->y + n * s * s;
        for (int64_t i = 0; i < s; i++)
            for (int64_t j = 0; j < s; j++)
                out[i * s + j] = (float)(g->factor * (out[i * s + j] - g->pull * ((double)a[i * s + j] - a[j * s + i])));
    }
}

static void cayley_grad(const lyc_cpu *e, float *da, const float *dr, const float *r, const float *a, lyc_cayley_size s) {
    cayley_job g = {.y = da, .dr = dr, .r = r, .a = a, .s = s, .e = e, .sums = lyc_shared(e->pool)};
    double norm = cayley_bound(&g);
    lyc_parallel(e->pool, s.n, cayley_grain(s, 3), cayley_grad_task, &g);
    if (g.factor == 1) return;
    g.pull = 2 * cayley_sum(&g) / ((norm + 1e-8) * norm);
    lyc_parallel(e->pool, s.n, cayley_grain(s, 2), cayley_bound_grad_task, &g);
}

static const lyc_cayley_table LYC_NAME(lyc_cayley) = {.cayley = cayley, .grad = cayley_grad};
