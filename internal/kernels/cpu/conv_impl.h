// Convolutions. Contract: conv.h.

#include "winograd_impl.h"

// ---- Direct form: rows of the input gathered for the matrix kernel, inner axis k = tap·c + channel.

// copy_run copies or zeroes n floats.
LYC_INLINE void copy_run(float *dst, const float *src, int64_t n) {
    if (src)
        memcpy(dst, src, (size_t)n * sizeof *dst);
    else
        memset(dst, 0, (size_t)n * sizeof *dst);
}

// input_at returns the channels of input pixel (y,x) of item i, counted after the upsampling; NULL outside.
LYC_INLINE const float *input_at(const lyc_conv_size *s, const float *x, int64_t i, int64_t iy, int64_t ix) {
    int up = s->upsample ? 1 : 0;
    if (iy < 0 || ix < 0 || iy >= s->h << up || ix >= s->w << up) return 0;
    return x + ((i * s->h + (iy >> up)) * s->w + (ix >> up)) * s->c;
}

// Rows are output pixels, a row is the input under the kernel: [tap][c].
static void load_a_patches(const gemm_job *g, int64_t b, int64_t m0, int64_t m, int64_t k0, int64_t k, float *dst) {
    (void)b;
    const lyc_conv_size *s = g->with;
    for (int64_t i = 0; i < m; i++, dst += LDA) {
        int64_t pixel = m0 + i, ox = pixel % s->ow, oy = pixel / s->ow % s->oh, item = pixel / (s->ow * s->oh);
        for (int64_t q = 0; q < k;) {
            int64_t tap = (k0 + q) / s->c, c = (k0 + q) % s->c, n = s->c - c < k - q ? s->c - c : k - q;
            const float *src = input_at(s, g->a, item, oy * s->stride + tap / s->kw - s->pad_t, ox * s->stride + tap % s->kw - s->pad_l);
            copy_run(dst + q, src ? src + c : 0, n);
            q += n;
        }
    }
}

// grad_at returns the channels of dy at the output pixel to which input pixel (y,x), after the upsampling, contributes by this tap; NULL if none.
LYC_INLINE const float *grad_at(const lyc_conv_size *s, const float *dy, int64_t i, int64_t iy, int64_t ix, int64_t tap) {
    int64_t y = iy + s->pad_t - tap / s->kw, x = ix + s->pad_l - tap % s->kw;
    if (y < 0 || x < 0 || y % s->stride || x % s->stride || y / s->stride >= s->oh || x / s->stride >= s->ow) return 0;
    return dy + ((i * s->oh + y / s->stride) * s->ow + x / s->stride) * s->o;
}

// For the gradient rows are input pixels, a row is [tap][o]; a doubled input sums its four copies.
static void load_a_grad(const gemm_job *g, int64_t b, int64_t m0, int64_t m, int64_t k0, int64_t k, float *dst) {
    (void)b;
    const lyc_conv_size *s = g->with;
    for (int64_t i = 0; i < m; i++, dst += LDA) {
        int64_t pixel = m0 + i, ix = pixel % s->w, iy = pixel / s->w % s->h, item = pixel / (s->w * s->h);
        for (int64_t q = 0; q < k;) {
            int64_t tap = (k0 + q) / s->o, o = (k0 + q) % s->o, n = s->o - o < k - q ? s->o - o : k - q;
            if (!s->upsample) {
                const float *src = grad_at(s, g->a, item, iy, ix, tap);
                copy_run(dst + q, src ? src + o : 0, n);
            } else {
                memset(dst + q, 0, (size_t)n * sizeof *dst);
                for (int64_t sub = 0; sub < 4; sub++) {
                    const float *src = grad_at(s, g->a, item, 2 * iy + sub / 2, 2 * ix + sub % 2, tap);
                    if (src)
                        for (int64_t j = 0; j < n; j++) dst[q + j] += src[o + j];
                }
            }
            q += n;
        }
    }
}

// With a stride, an input pixel is seen through those taps only whose distance fits: pixels fall into stride×stride classes by their
// remainders (py,px), and each class is a product of its own over its ny·nx taps. Rows are the class's pixels [n][rows][cols], inner axis [tap][o].
typedef struct {
    const lyc_conv_size *s;
    int64_t py, px, rows, cols;
    int64_t ky, kx, ny, nx; // first tap of each axis, number of taps
} grad_class;

static grad_class class_of(const lyc_conv_size *s, int64_t py, int64_t px) {
    int64_t t = s->stride, ky = (py + s->pad_t) % t, kx = (px + s->pad_l) % t;
    return (grad_class){.s = s, .py = py, .px = px, .rows = (s->h - py + t - 1) / t, .cols = (s->w - px + t - 1) / t, .ky = ky, .kx = kx,
                        .ny = (s->kh - ky + t - 1) / t, .nx = (s->kw - kx + t - 1) / t};
}

LYC_INLINE int64_t class_tap(const grad_class *c, int64_t i) {
    return (c->ky + i / c->nx * c->s->stride) * c->s->kw + c->kx + i % c->nx * c->s->stride;
}

static void load_a_class(const gemm_job *g, int64_t b, int64_t m0, int64_t m, int64_t k0, int64_t k, float *dst) {
    (void)b;
    const grad_class *c = g->with;
    const lyc_conv_size *s = c->s;
    for (int64_t i = 0; i < m; i++, dst += LDA) {
        int64_t pixel = m0 + i, item = pixel / (c->rows * c->cols);
        int64_t iy = pixel / c->cols % c->rows * s->stride + c->py, ix = pixel % c->cols * s->stride + c->px;
        for (int64_t q = 0; q < k;) {
            int64_t o = (k0 + q) % s->o, n = s->o - o < k - q ? s->o - o : k - q;
            const float *src = grad_at(s, g->a, item, iy, ix, class_tap(c, (k0 + q) / s->o));
            copy_run(dst + q, src ? src + o : 0, n);
            q += n;
        }
    }
}

static const float *load_b_class(const gemm_job *g, int64_t b, int64_t p, int64_t k0, int64_t k, int64_t m, float *buf, int64_t *bs) {
    (void)b, (void)m, (void)bs;
    float *dst = buf;
    while (k > 0) {
        int64_t o = k0 % g->w.out, n = g->w.out - o < k ? g->w.out - o : k;
        expand_transposed(g->w, class_tap(g->with, k0 / g->w.out), o, o + n, p * NR, dst);
        dst += n * NR;
        k0 += n;
        k -= n;
    }
    return buf;
}

typedef struct {
    const grad_class *c;
    float *dx;
    const float *sums, *add; // sums [n][rows][cols][c], NULL where no tap fits
} place_job;

// place_class writes rows [begin,end) of a class to their places.
static void place_class(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    place_job *j = arg;
    const grad_class *c = j->c;
    const lyc_conv_size *s = c->s;
    for (int64_t row = begin; row < end; row++) {
        int64_t iy = row % c->rows * s->stride + c->py;
        for (int64_t q = 0; q < c->cols; q++) {
            int64_t at = ((row / c->rows * s->h + iy) * s->w + q * s->stride + c->px) * s->c;
            const float *src = j->sums ? j->sums + (row * c->cols + q) * s->c : 0, *add = j->add ? j->add + at : 0;
            for (int64_t i = 0; i < s->c; i++) j->dx[at + i] = (src ? src[i] : 0) + (add ? add[i] : 0);
        }
    }
}

static int64_t class_floats(const lyc_conv_size *s) {
    grad_class c = class_of(s, 0, 0); // the largest
    return s->n * c.rows * c.cols * s->c;
}

static void strided_grad(const lyc_cpu *e, float *dx, const float *dy, lyc_weight w, const lyc_conv_size *s, const float *add, float *shared) {
    for (int64_t py = 0; py < s->stride && py < s->h; py++)
        for (int64_t px = 0; px < s->stride && px < s->w; px++) {
            grad_class c = class_of(s, py, px);
            int empty = c.ny <= 0 || c.nx <= 0;
            gemm_job g = {.batch = 1, .m = s->n * c.rows * c.cols, .n = s->c, .k = c.ny * c.nx * s->o, .alpha = 1, .a = dy,
                          .load_a = load_a_class, .load_b = load_b_class, .with = &c, .w = w, .c = shared, .ldc = s->c};
            if (!empty) gemm_run(e, &g, 0);
            place_job j = {&c, dx, empty ? 0 : shared, add};
            lyc_parallel(e->pool, s->n * c.rows, 1 + 32768 / (c.cols * s->c), place_class, &j);
        }
}

// pointwise reports whether the convolution is a matrix product of the pixels.
static int pointwise(const lyc_conv_size *s) {
    return s->kh == 1 && s->kw == 1 && s->stride == 1 && !s->pad_t && !s->pad_l && !s->upsample && s->oh == s->h && s->ow == s->w;
}

static void conv_forward(const lyc_cpu *e, float *y, const float *x, lyc_weight w, lyc_conv_size s, lyc_epilogue ep, float *shared) {
    int64_t pixels = s.n * s.oh * s.ow;
    ep.item_rows = s.oh * s.ow;
    if (pointwise(&s)) {
        linear(e, y, x, w, pixels, ep);
    } else if (winograd_fits(&s, s.c)) {
        winograd_forward(e, y, x, w, &s, ep, shared);
    } else {
        gemm_job g = {.batch = 1, .m = pixels, .n = s.o, .k = s.kh * s.kw * s.c, .alpha = 1, .a = x, .load_a = load_a_patches,
                      .load_b = load_b_weight, .with = &s, .w = w, .c = y, .ldc = s.o, .ep = ep};
        gemm_run(e, &g, 0);
    }
}

static void conv_grad(const lyc_cpu *e, float *dx, const float *dy, lyc_weight w, lyc_conv_size s, const float *add, float *shared) {
    int64_t pixels = s.n * s.h * s.w;
    if (pointwise(&s)) {
        linear_grad(e, dx, dy, w, pixels, add);
    } else if (winograd_fits(&s, s.o)) {
        winograd_grad(e, dx, dy, w, &s, add, shared);
    } else if (s.stride > 1 && !s.upsample) {
        strided_grad(e, dx, dy, w, &s, add, shared);
    } else {
        gemm_job g = {.batch = 1, .m = pixels, .n = s.c, .k = s.kh * s.kw * s.o, .alpha = 1, .a = dy, .load_a = load_a_grad,
                      .load_b = load_b_weight_grad, .with = &s, .w = w, .c = dx, .ldc = s.c, .ep = {.add = add}};
        gemm_run(e, &g, 0);
    }
}

static int conv_forward_rows(lyc_conv_size s) { return winograd_fits(&s, s.c); }

static int conv_grad_rows(lyc_conv_size s) { return winograd_fits(&s, s.o); }

static lyc_bytes conv_forward_scratch(lyc_conv_size s) { return winograd_fits(&s, s.c) ? winograd_scratch(&s, s.c, s.o) : linear_scratch(); }

static lyc_bytes conv_grad_scratch(lyc_conv_size s) {
    if (winograd_fits(&s, s.o)) return winograd_scratch(&s, s.o, s.c);
    lyc_bytes b = linear_scratch();
    if (s.stride > 1 && !s.upsample) b.shared = 4 * class_floats(&s);
    return b;
}

// ---- The kernel's gradient: dw[o][tap][c] = Σ over pixels of dy[pixel][o]·x[pixel under tap][c], then reordered.

// Panels of the input under one tap: each tap has its own ceil(c/NR) panels.
static const float *load_b_patches(const gemm_job *g, int64_t b, int64_t p, int64_t k0, int64_t k, int64_t m, float *buf, int64_t *bs) {
    (void)b, (void)m, (void)bs;
    const lyc_conv_size *s = g->with;
    int64_t per_tap = (s->c + NR - 1) / NR, tap = p / per_tap, c = p % per_tap * NR, n = s->c - c < NR ? s->c - c : NR;
    for (int64_t i = 0; i < k; i++) {
        int64_t pixel = k0 + i, ox = pixel % s->ow, oy = pixel / s->ow % s->oh, item = pixel / (s->ow * s->oh);
        const float *src = input_at(s, g->b, item, oy * s->stride + tap / s->kw - s->pad_t, ox * s->stride + tap % s->kw - s->pad_l);
        float *dst = buf + i * NR;
        if (src && n == NR) {
            v_store(dst, v_load(src + c));
            v_store(dst + LYC_VL, v_load(src + c + LYC_VL));
        } else {
            for (int64_t j = 0; j < NR; j++) dst[j] = src && j < n ? src[c + j] : 0;
        }
    }
    return buf;
}

typedef struct {
    float *dw;
    const float *sums;
    const lyc_conv_size *s;
    int64_t ld;
} reorder_job;

static void reorder(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    reorder_job *j = arg;
    int64_t taps = j->s->kh * j->s->kw, c = j->s->c, padded = j->ld / taps;
    for (int64_t o = begin; o < end; o++)
        for (int64_t i = 0; i < c; i++)
            for (int64_t t = 0; t < taps; t++) j->dw[(o * c + i) * taps + t] = j->sums[o * j->ld + t * padded + i];
}

// Columns of the sums: each tap's padded to whole panels.
static int64_t weight_grad_columns(const lyc_conv_size *s) { return s->kh * s->kw * ((s->c + NR - 1) / NR) * NR; }

static int weight_grad_winograd(const lyc_conv_size *s) { return winograd_fits(s, s->c) && s->o >= 16 && wino_tiles(s) > 0; }

static void conv_weight_grad(const lyc_cpu *e, float *dw, const float *dy, const float *x, lyc_conv_size s) {
    if (weight_grad_winograd(&s)) {
        winograd_weight_grad(e, dw, dy, x, &s);
        return;
    }
    int64_t ld = weight_grad_columns(&s);
    float *sums = lyc_shared(e->pool);
    gemm_job g = {.batch = 1, .m = s.o, .n = ld, .k = s.n * s.oh * s.ow, .alpha = 1, .a = dy, .a_rs = 1, .a_cs = s.o,
                  .load_a = load_a_columns, .a_mixed = 1, .load_b = load_b_patches, .b = x, .with = &s, .c = sums, .ldc = ld};
    gemm_run(e, &g, sums + s.o * ld);
    reorder_job j = {dw, sums, &s, ld};
    lyc_parallel(e->pool, s.o, 1 + 65536 / ld, reorder, &j);
}

static lyc_bytes conv_weight_grad_scratch(lyc_conv_size s) {
    if (weight_grad_winograd(&s)) return winograd_weight_grad_scratch(&s);
    int64_t ld = weight_grad_columns(&s), shares = gemm_shares(1, s.o, ld, s.n * s.oh * s.ow);
    return (lyc_bytes){4 * s.o * ld * (shares > 1 ? shares + 1 : 1), GEMM_THREAD_BYTES};
}

static const lyc_conv_table LYC_NAME(lyc_conv) = {
    .forward = conv_forward,
    .grad = conv_grad,
    .weight_grad = conv_weight_grad,
    .forward_rows = conv_forward_rows,
    .grad_rows = conv_grad_rows,
    .forward_scratch = conv_forward_scratch,
    .grad_scratch = conv_grad_scratch,
    .weight_grad_scratch = conv_weight_grad_scratch,
};
