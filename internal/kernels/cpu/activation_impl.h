// Activations. Contract and formulas: activation.h.

// load_part and store_part move the first n lanes: whole vectors where n is known to be LYC_VL when this is compiled.
LYC_INLINE vf load_part(const float *p, int64_t n) { return n == LYC_VL ? v_load(p) : v_load_n(p, n); }
LYC_INLINE void store_part(float *p, vf x, int64_t n) {
    if (n == LYC_VL)
        v_store(p, x);
    else
        v_store_n(p, x, n);
}

// RUN is how many elements a piece of element-wise work has: about the first-level cache.
enum { RUN = 8192 };

// exp_below is e^x for x <= 0, with an error near 1e-7 of 1 rather than of the value: x·log2 e is rounded.
LYC_INLINE vf exp_below(vf x) { return exp2_low(x * 1.44269504f); }

// sigmoid returns σ(x) and, in *rest, 1 - σ(x), neither as a difference: e^-|x| never overflows.
LYC_INLINE vf sigmoid(vf x, vf *rest) {
    vf e = exp_below(-v_abs(x)), large = 1.0f / (1.0f + e), small = e * large;
    vi negative = (vi)(x < 0.0f);
    *rest = v_select(negative, large, small);
    return v_select(negative, small, large);
}

LYC_INLINE vf silu(vf x) {
    vf rest;
    return x * sigmoid(x, &rest);
}

// σ(x)·(1 + x·(1-σ(x))) (Elfwing, Uchibe and Doya, 2018, equation 5)
LYC_INLINE vf silu_slope(vf x) {
    vf rest, s = sigmoid(x, &rest);
    return s * (1.0f + x * rest);
}

LYC_INLINE vf quick_gelu(vf x) {
    vf rest;
    return x * sigmoid(1.702f * x, &rest);
}

LYC_INLINE vf quick_gelu_slope(vf x) {
    vf rest, s = sigmoid(1.702f * x, &rest);
    return s + s * rest * 1.702f * x; // in this order: 1.702·x may overflow
}

// normal_tail returns Φ(-|x|), and e^(-x²/2) in *bell. Φ(-a) = e^(-a²/2)·Q(a), where (a+3)·Q(a) is smooth in u = (a-3)/(a+3): a polynomial of degree 8,
// interpolated at Chebyshev's nodes over 0 <= a <= 13.4, off by less than 1e-7 of the value there; beyond, e^(-a²/2) is 0 or nearly.
LYC_INLINE vf normal_tail(vf x, vf *bell) {
    vf a = v_abs(x), r = 1.0f / (a + 3.0f), u = 1.0f - 6.0f * r;
    vf p = u * -2.969306370e-04f - 9.434581734e-04f;
    p = p * u + 1.091952785e-03f;
    p = p * u + 6.954720709e-03f;
    p = p * u - 1.048173010e-02f;
    p = p * u - 4.726303741e-02f;
    p = p * u + 2.300193757e-01f;
    p = p * u - 5.093318820e-01f;
    p = p * u + 7.290836573e-01f;
    *bell = exp_below(-0.5f * a * a);
    return *bell * (p * r);
}

LYC_INLINE vf gelu(vf x) {
    vf bell, part = x * normal_tail(x, &bell);
    return v_select((vi)(x < 0.0f), part, x - part);
}

// gelu_slope returns Φ(x) + x·φ(x), and gelu(x) in *value.
LYC_INLINE vf gelu_slope(vf x, vf *value) {
    vf bell, tail = normal_tail(x, &bell), part = x * tail;
    vi negative = (vi)(x < 0.0f);
    *value = v_select(negative, part, x - part);
    return v_select(negative, tail, 1.0f - tail) + x * (bell * 0.3989422804f);
}

// value_of and slope_of are f and f', f known when this is compiled.
LYC_INLINE vf value_of(const int f, vf x) { return f == LYC_SILU ? silu(x) : f == LYC_GELU ? gelu(x) : quick_gelu(x); }
LYC_INLINE vf slope_of(const int f, vf x) {
    vf value;
    return f == LYC_SILU ? silu_slope(x) : f == LYC_GELU ? gelu_slope(x, &value) : quick_gelu_slope(x);
}

typedef struct {
    float *y;
    const float *x, *dy;
    int64_t n, m, d;
    int f;
} activation_job;

LYC_INLINE void values_of(const int f, float *y, const float *x, int64_t n) {
    int64_t i = 0;
    for (; i + LYC_VL <= n; i += LYC_VL) v_store(y + i, value_of(f, v_load(x + i)));
    if (i < n) v_store_n(y + i, value_of(f, v_load_n(x + i, n - i)), n - i);
}

LYC_INLINE void slopes_of(const int f, float *dx, const float *dy, const float *x, int64_t n) {
    int64_t i = 0;
    for (; i + LYC_VL <= n; i += LYC_VL) v_store(dx + i, v_load(dy + i) * slope_of(f, v_load(x + i)));
    if (i < n) v_store_n(dx + i, v_load_n(dy + i, n - i) * slope_of(f, v_load_n(x + i, n - i)), n - i);
}

static void activate_task(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    activation_job *g = arg;
    int64_t at = begin * RUN, n = (end * RUN < g->n ? end * RUN : g->n) - at;
    switch (g->f) {
    case LYC_SILU: values_of(LYC_SILU, g->y + at, g->x + at, n); break;
    case LYC_GELU: values_of(LYC_GELU, g->y + at, g->x + at, n); break;
    default: values_of(LYC_QUICK_GELU, g->y + at, g->x + at, n);
    }
}

static void activate_grad_task(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    activation_job *g = arg;
    int64_t at = begin * RUN, n = (end * RUN < g->n ? end * RUN : g->n) - at;
    switch (g->f) {
    case LYC_SILU: slopes_of(LYC_SILU, g->y + at, g->dy + at, g->x + at, n); break;
    case LYC_GELU: slopes_of(LYC_GELU, g->y + at, g->dy + at, g->x + at, n); break;
    default: slopes_of(LYC_QUICK_GELU, g->y + at, g->dy + at, g->x + at, n);
    }
}

static void activate(const lyc_cpu *e, float *y, const float *x, int64_t n, int f) {
    activation_job g = {.y = y, .x = x, .n = n, .f = f};
    lyc_parallel(e->pool, (n + RUN - 1) / RUN, 1, activate_task, &g);
}

static void activate_grad(const lyc_cpu *e, float *dx, const float *dy, const float *x, int64_t n, int f) {
    activation_job g = {.y = dx, .x = x, .dy = dy, .n = n, .f = f};
    lyc_parallel(e->pool, (n + RUN - 1) / RUN, 1, activate_grad_task, &g);
}

static void geglu_task(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    activation_job *g = arg;
    int64_t d = g->d;
    for (int64_t r = begin; r < end; r++) {
        const float *value = g->x + 2 * r * d, *gate = value + d;
        float *y = g->y + r * d;
        int64_t j = 0;
        for (; j + LYC_VL <= d; j += LYC_VL) v_store(y + j, v_load(value + j) * gelu(v_load(gate + j)));
        if (j < d) v_store_n(y + j, v_load_n(value + j, d - j) * gelu(v_load_n(gate + j, d - j)), d - j);
    }
}

LYC_INLINE void geglu_grad_part(float *dx, const float *dy, const float *x, int64_t d, int64_t n) {
    vf dyv = load_part(dy, n), value;
    vf slope = gelu_slope(load_part(x + d, n), &value);
    store_part(dx, dyv * value, n);
    store_part(dx + d, dyv * load_part(x, n) * slope, n);
}

static void geglu_grad_task(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    activation_job *g = arg;
    int64_t d = g->d;
    for (int64_t r = begin; r < end; r++) {
        const float *x = g->x + 2 * r * d, *dy = g->dy + r * d;
        float *dx = g->y + 2 * r * d;
        int64_t j = 0;
        for (; j + LYC_VL <= d; j += LYC_VL) geglu_grad_part(dx + j, dy + j, x + j, d, LYC_VL);
        if (j < d) geglu_grad_part(dx + j, dy + j, x + j, d, d - j);
    }
}

static void geglu(const lyc_cpu *e, float *y, const float *x, int64_t m, int64_t d) {
    activation_job g = {.y = y, .x = x, .m = m, .d = d};
    lyc_parallel(e->pool, m, 1 + RUN / d, geglu_task, &g);
}

static void geglu_grad(const lyc_cpu *e, float *dx, const float *dy, const float *x, int64_t m, int64_t d) {
    activation_job g = {.y = dx, .x = x, .dy = dy, .m = m, .d = d};
    lyc_parallel(e->pool, m, 1 + RUN / d, geglu_grad_task, &g);
}

static const lyc_activation_table LYC_NAME(lyc_activation) = {
    .forward = activate,
    .grad = activate_grad,
    .geglu = geglu,
    .geglu_grad = geglu_grad,
};
