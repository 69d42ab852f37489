// Winograd's F(4×4,3×3): 36 products make 16 outputs of a 3×3 convolution instead of 144 (Lavin and Gray, 2016, section 4.3).
//
//     Y = Aᵀ [ (G g Gᵀ) ⊙ (Bᵀ d B) ] A
//
// with d a 6×6 input tile that overlaps its neighbours by 2 and points 0, ±a, ±b, ∞; a = 3/4, b = 3/2 give a quarter of the error of the usual
// 1 and 2. Tiles are handled in blocks, for which the transformed input V[36][tile][c] fits the shared scratch. Then each task takes a group of output
// panels and a range of tiles, transforms the weights of 64 or so outputs and some hundred inputs into its own U[36][panel][c][NR],
// multiplies 36 times into its own M[36][tile][outputs] and transforms that to outputs.

#define WA 0.75f
#define WB 1.5f
#define WA2 (WA * WA)
#define WB2 (WB * WB)
#define WNA (2 * WA2 * (WA2 - WB2))
#define WNB (2 * WB2 * (WB2 - WA2))

// The one-dimensional transforms: Bᵀ, Aᵀ and G applied to vectors d[0], d[s], d[2s], ... .
LYC_INLINE void wino_input(const vf *d, int s, vf *o, int so) {
    vf d0 = d[0], d1 = d[s], d2 = d[2 * s], d3 = d[3 * s], d4 = d[4 * s], d5 = d[5 * s];
    o[0] = (WA2 * WB2) * d0 - (WA2 + WB2) * d2 + d4;
    vf t = d4 - WB2 * d2, u = WA * d3 - (WA * WB2) * d1;
    o[so] = t + u, o[2 * so] = t - u;
    t = d4 - WA2 * d2, u = WB * d3 - (WA2 * WB) * d1;
    o[3 * so] = t + u, o[4 * so] = t - u;
    o[5 * so] = (WA2 * WB2) * d1 - (WA2 + WB2) * d3 + d5;
}
LYC_INLINE void wino_output(const vf *m, int s, vf *o, int so) {
    vf a = m[s] + m[2 * s], b = m[s] - m[2 * s], c = m[3 * s] + m[4 * s], d = m[3 * s] - m[4 * s];
    o[0] = m[0] + a + c;
    o[so] = WA * b + WB * d;
    o[2 * so] = WA2 * a + WB2 * c;
    o[3 * so] = (WA * WA2) * b + (WB * WB2) * d + m[5 * s];
}
LYC_INLINE void wino_weight(vf g0, vf g1, vf g2, vf *o, int so) {
    o[0] = (1 / (WA2 * WB2)) * g0;
    vf a = (1 / WNA) * g0 + (WA2 / WNA) * g2, b = (WA / WNA) * g1;
    o[so] = a + b, o[2 * so] = a - b;
    vf c = (1 / WNB) * g0 + (WB2 / WNB) * g2, d = (WB / WNB) * g1;
    o[3 * so] = c + d, o[4 * so] = c - d;
    o[5 * so] = g2;
}

enum {
    WINO_TILES = 512, // tiles of a block at most
    WINO_OUT = 64,    // outputs of a group at most
    WINO_IN = 320,    // inputs of a block of weights at most
    WINO_PAD = 48,    // floats between the 36 matrices: strides that are powers of two would put them on the same cache sets
};

typedef struct {
    const lyc_cpu *e;
    lyc_weight w;
    int backward;            // the gradient: weights rotated and transposed
    int64_t n, ih, iw, c;    // input [n,ih,iw,c] as stored
    int64_t h, wd, o;        // output [n,h,wd,o], before it is halved
    int double_in, halve_out; // input doubled by nearest neighbour, output summed over squares of 2×2
    const float *x;
    float *y;
    lyc_epilogue ep;
    int64_t th, tw, tiles;                // tiles of an item: rows, columns; of all items
    int64_t t0, t1;                       // the block of tiles
    int64_t cp, vs;                       // channels rounded up to whole vectors, stride of V
    float *v;
    int64_t panels, groups, ranges, range; // groups of panels, ranges of tiles
} wino_job;

// winograd_fits reports whether s goes this way; k is the number of channels that are summed.
static int winograd_fits(const lyc_conv_size *s, int64_t k) {
    int up = s->upsample ? 1 : 0;
    return !s->direct && s->kh == 3 && s->kw == 3 && s->stride == 1 && s->pad_t == 1 && s->pad_l == 1 && s->oh == s->h << up &&
           s->ow == s->w << up && k >= 16;
}

static int64_t wino_tiles(const lyc_conv_size *s) { return s->n * ((s->oh + 3) / 4) * ((s->ow + 3) / 4); }

// The number of tiles of a block: all, or equal parts of at most WINO_TILES.
static int64_t wino_block(int64_t tiles) {
    int64_t blocks = (tiles + WINO_TILES - 1) / WINO_TILES;
    return (tiles + blocks - 1) / blocks;
}

static int64_t wino_padded(int64_t c) { return (c + LYC_VL - 1) / LYC_VL * LYC_VL; }

static lyc_bytes winograd_scratch(const lyc_conv_size *s, int64_t c, int64_t o) {
    int64_t t = wino_block(wino_tiles(s)), cb = c < WINO_IN ? c : WINO_IN;
    int64_t ob = (o + NR - 1) / NR * NR;
    if (ob > WINO_OUT) ob = WINO_OUT;
    return (lyc_bytes){4 * 36 * (t * wino_padded(c) + WINO_PAD), 4 * 36 * (cb * ob + t * ob + 2 * WINO_PAD)};
}

// Input tiles [begin,end) of the block to V.
static void wino_inputs(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    wino_job *j = arg;
    int up = j->double_in ? 1 : 0;
    for (int64_t i = begin; i < end; i++) {
        int64_t t = j->t0 + i, item = t / (j->th * j->tw);
        int64_t ty = t / j->tw % j->th * 4 - 1, tx = t % j->tw * 4 - 1;
        const float *at[36];
        for (int r = 0; r < 6; r++)
            for (int s = 0; s < 6; s++) {
                int64_t y = ty + r, x = tx + s;
                int inside = y >= 0 && x >= 0 && y < j->h && x < j->wd;
                at[r * 6 + s] = inside ? j->x + ((item * j->ih + (y >> up)) * j->iw + (x >> up)) * j->c : 0;
            }
        for (int64_t c = 0; c < j->cp; c += LYC_VL) {
            vf d[36], q[36];
            if (c + LYC_VL <= j->c)
                for (int k = 0; k < 36; k++) d[k] = at[k] ? v_load(at[k] + c) : v_zero();
            else
                for (int k = 0; k < 36; k++) d[k] = at[k] ? v_load_n(at[k] + c, j->c - c) : v_zero();
            LYC_UNROLL for (int s = 0; s < 6; s++) wino_input(d + s, 6, q + s, 6);
            float *dst = j->v + i * j->cp + c;
            LYC_UNROLL for (int r = 0; r < 6; r++) {
                vf o[6];
                wino_input(q + r * 6, 1, o, 1);
                LYC_UNROLL for (int s = 0; s < 6; s++) v_store(dst + (r * 6 + s) * j->vs, o[s]);
            }
        }
    }
}

// One vector of kernels, 9 taps, to the 36 matrices.
LYC_INLINE void wino_store_weight(const vf g[9], float *u, int64_t us) {
    vf q[18];
    LYC_UNROLL for (int s = 0; s < 3; s++) wino_weight(g[s], g[3 + s], g[6 + s], q + s, 3);
    LYC_UNROLL for (int r = 0; r < 6; r++) {
        vf o[6];
        wino_weight(q[r * 3], q[r * 3 + 1], q[r * 3 + 2], o, 1);
        LYC_UNROLL for (int s = 0; s < 6; s++) v_store(u + (r * 6 + s) * us, o[s]);
    }
}

// Weights of panels [p,p+np), inputs [c0,c0+cb) to u[36][np][cb][NR].
LYC_INLINE void wino_weights_as(const int dtype, const wino_job *j, int64_t p, int64_t np, int64_t c0, int64_t cb, float *u, int64_t us) {
    for (int64_t k = 0; k < np; k++)
        for (int64_t c = 0; c < cb; c++)
            for (int h = 0; h < NR; h += LYC_VL) {
                vf g[9];
                int64_t at = ((p + k) * j->w.in + c0 + c) * 9 * NR + h;
                LYC_UNROLL for (int t = 0; t < 9; t++) g[t] = load_weight(j->w.data, at + t * NR, dtype);
                wino_store_weight(g, u + (k * cb + c) * NR + h, us);
            }
}

// The same for the gradient: the rows are the weight's outputs, the columns its inputs, the taps run backwards.
LYC_INLINE void wino_weights_grad_as(const int dtype, const wino_job *j, int64_t p, int64_t np, int64_t c0, int64_t cb, float *u, int64_t us) {
    vf g[LYC_VL][9];
    for (int64_t k = 0; k < np; k++)
        for (int h = 0; h < NR; h += LYC_VL) {
            int64_t in = (p + k) * NR + h; // first input of this vector
            for (int64_t o = c0 / LYC_VL * LYC_VL; o < c0 + cb; o += LYC_VL) {
                int64_t at = (o / NR * j->w.in + in) * 9 * NR + o % NR;
                for (int t = 0; t < 9; t++) {
                    vf r[LYC_VL];
                    LYC_UNROLL for (int i = 0; i < LYC_VL; i++)
                        r[i] = in + i < j->w.in ? load_weight(j->w.data, at + (i * 9 + t) * NR, dtype) : v_zero();
                    v_transpose(r);
                    LYC_UNROLL for (int i = 0; i < LYC_VL; i++) g[i][8 - t] = r[i];
                }
                for (int i = 0; i < LYC_VL; i++)
                    if (o + i >= c0 && o + i < c0 + cb) wino_store_weight(g[i], u + (k * cb + o + i - c0) * NR + h, us);
            }
        }
}

// A kernel that is not frozen is taken as it lies, row-major [out][in][9]. Forward: LYC_VL rows are turned in registers, LYC_VL inputs at a time.
static void wino_weights_rows(const wino_job *j, int64_t p, int64_t np, int64_t c0, int64_t cb, float *u, int64_t us) {
    const float *w = j->w.data;
    int64_t width = j->w.in * 9;
    for (int64_t k = 0; k < np; k++)
        for (int h = 0; h < NR; h += LYC_VL)
            for (int64_t c = 0; c < cb; c += LYC_VL) {
                vf g[9 * LYC_VL]; // [input][tap]
                int64_t o = (p + k) * NR + h, n = cb - c < LYC_VL ? cb - c : LYC_VL;
                for (int64_t q = 0; q < 9 * n; q += LYC_VL) {
                    vf r[LYC_VL];
                    int64_t left = 9 * n - q;
                    for (int i = 0; i < LYC_VL; i++) {
                        const float *s = w + (o + i) * width + (c0 + c) * 9 + q;
                        r[i] = o + i >= j->w.out ? v_zero() : left >= LYC_VL ? v_load(s) : v_load_n(s, left);
                    }
                    v_transpose(r);
                    LYC_UNROLL for (int i = 0; i < LYC_VL; i++) g[q + i] = r[i];
                }
                for (int64_t i = 0; i < n; i++) wino_store_weight(g + 9 * i, u + (k * cb + c + i) * NR + h, us);
            }
}

// For the gradient the inputs are the lanes: nine taps of each lie together, and run backwards. LYC_VL rows are sorted before the first is read again as
// vectors, which would have to wait for single floats that were just written.
static void wino_weights_rows_grad(const wino_job *j, int64_t p, int64_t np, int64_t c0, int64_t cb, float *u, int64_t us) {
    const float *w = j->w.data;
    union { vf v[LYC_VL][9]; float f[LYC_VL][9][LYC_VL]; } g;
    for (int64_t k = 0; k < np; k++)
        for (int h = 0; h < NR; h += LYC_VL) {
            int64_t in = (p + k) * NR + h, lanes = j->w.in - in < LYC_VL ? j->w.in - in : LYC_VL;
            memset(&g, 0, sizeof g);
            for (int64_t o = 0; o < cb; o += LYC_VL) {
                int64_t n = cb - o < LYC_VL ? cb - o : LYC_VL;
                for (int64_t r = 0; r < n; r++) {
                    const float *s = w + ((c0 + o + r) * j->w.in + in) * 9;
                    for (int64_t i = 0; i < lanes; i++, s += 9)
                        LYC_UNROLL for (int t = 0; t < 9; t++) g.f[r][8 - t][i] = s[t];
                }
                for (int64_t r = 0; r < n; r++) wino_store_weight(g.v[r], u + (k * cb + o + r) * NR + h, us);
            }
        }
}

static void wino_weights(const wino_job *j, int64_t p, int64_t np, int64_t c0, int64_t cb, float *u, int64_t us) {
    if (j->backward) switch (j->w.dtype) {
        case LYC_ROWS: wino_weights_rows_grad(j, p, np, c0, cb, u, us); break;
        case LYC_F32: wino_weights_grad_as(LYC_F32, j, p, np, c0, cb, u, us); break;
        case LYC_F16: wino_weights_grad_as(LYC_F16, j, p, np, c0, cb, u, us); break;
        default: wino_weights_grad_as(LYC_BF16, j, p, np, c0, cb, u, us);
    } else switch (j->w.dtype) {
        case LYC_ROWS: wino_weights_rows(j, p, np, c0, cb, u, us); break;
        case LYC_F32: wino_weights_as(LYC_F32, j, p, np, c0, cb, u, us); break;
        case LYC_F16: wino_weights_as(LYC_F16, j, p, np, c0, cb, u, us); break;
        default: wino_weights_as(LYC_BF16, j, p, np, c0, cb, u, us);
    }
}

// wino_write stores one vector of n <= LYC_VL outputs with what is added.
LYC_INLINE void wino_write(const wino_job *j, int64_t item, int64_t pixel, int64_t o, int64_t n, vf x) {
    int64_t at = pixel * j->o + o;
    if (n >= LYC_VL) {
        if (j->ep.bias) x += v_load(j->ep.bias + o);
        if (j->ep.per_item) x += v_load(j->ep.per_item + item * j->o + o);
        if (j->ep.add) x += v_load(j->ep.add + at);
        v_store(j->y + at, x);
        return;
    }
    if (j->ep.bias) x += v_load_n(j->ep.bias + o, n);
    if (j->ep.per_item) x += v_load_n(j->ep.per_item + item * j->o + o, n);
    if (j->ep.add) x += v_load_n(j->ep.add + at, n);
    v_store_n(j->y + at, x, n);
}

// Products of tiles [i0,i1) of the block, outputs [o0,o0+ob), to the output.
static void wino_outputs(const wino_job *j, int64_t i0, int64_t i1, int64_t o0, int64_t ob, const float *m, int64_t ms) {
    for (int64_t i = i0; i < i1; i++) {
        int64_t t = j->t0 + i, item = t / (j->th * j->tw), ty = t / j->tw % j->th * 4, tx = t % j->tw * 4;
        for (int64_t k = 0; k < ob && o0 + k < j->o; k += LYC_VL) {
            vf d[36], q[24], y[16];
            LYC_UNROLL for (int xi = 0; xi < 36; xi++) d[xi] = v_load(m + xi * ms + (i - i0) * ob + k);
            LYC_UNROLL for (int s = 0; s < 6; s++) wino_output(d + s, 6, q + s, 6);
            LYC_UNROLL for (int r = 0; r < 4; r++) wino_output(q + r * 6, 1, y + r * 4, 1);
            int64_t n = j->o - o0 - k;
            if (!j->halve_out) {
                for (int r = 0; r < 4 && ty + r < j->h; r++)
                    for (int s = 0; s < 4 && tx + s < j->wd; s++)
                        wino_write(j, item, (item * j->h + ty + r) * j->wd + tx + s, o0 + k, n, y[r * 4 + s]);
            } else {
                for (int r = 0; r < 4 && ty + r < j->h; r += 2)
                    for (int s = 0; s < 4 && tx + s < j->wd; s += 2)
                        wino_write(j, item, (item * (j->h / 2) + (ty + r) / 2) * (j->wd / 2) + (tx + s) / 2, o0 + k, n,
                                   (y[r * 4 + s] + y[r * 4 + s + 1]) + (y[r * 4 + 4 + s] + y[r * 4 + 5 + s]));
            }
        }
    }
}

static void wino_task(void *arg, int64_t begin, int64_t end, int thread) {
    wino_job *j = arg;
    float *u = lyc_scratch(j->e->pool, thread);
    for (int64_t task = begin; task < end; task++) {
        int64_t group = task / j->ranges, i0 = task % j->ranges * j->range;
        int64_t i1 = i0 + j->range < j->t1 - j->t0 ? i0 + j->range : j->t1 - j->t0;
        int64_t p = group * j->panels / j->groups, np = (group + 1) * j->panels / j->groups - p, ob = np * NR;
        int64_t cap = j->c < WINO_IN ? j->c : WINO_IN, us = cap * ob + WINO_PAD, ms = (i1 - i0) * ob + WINO_PAD;
        float *m = u + 36 * us;
        for (int64_t c0 = 0; c0 < j->c; c0 += WINO_IN) {
            int64_t cb = j->c - c0 < WINO_IN ? j->c - c0 : WINO_IN;
            wino_weights(j, p, np, c0, cb, u, us);
            for (int xi = 0; xi < 36; xi++)
                for (int64_t q = 0; q < np; q++) {
                    gemm_a a = {j->v + xi * j->vs + i0 * j->cp + c0, j->cp, 1, MR * j->cp};
                    float *c = m + xi * ms + q * NR;
                    panel_rows(i1 - i0, NR, cb, a, u + xi * us + q * cb * NR, NR, c, ob, c0 ? c : 0, ob, 0, 1);
                }
        }
        wino_outputs(j, i0, i1, p * NR, ob, m, ms);
    }
}

static void winograd_run(const lyc_cpu *e, wino_job *j, float *shared) {
    int64_t threads = lyc_pool_threads(e->pool);
    j->e = e;
    j->th = (j->h + 3) / 4;
    j->tw = (j->wd + 3) / 4;
    j->tiles = j->n * j->th * j->tw;
    if (j->tiles == 0) return;
    int64_t block = wino_block(j->tiles);
    j->cp = wino_padded(j->c);
    j->vs = block * j->cp + WINO_PAD;
    j->v = shared;
    j->panels = (j->o + NR - 1) / NR;
    int64_t most = WINO_OUT / NR; // panels of a group
    j->groups = (j->panels + most - 1) / most;
    j->groups = (j->groups + threads - 1) / threads * threads;
    if (j->groups > j->panels) j->groups = j->panels;
    for (j->t0 = 0; j->t0 < j->tiles; j->t0 += block) {
        j->t1 = j->t0 + block < j->tiles ? j->t0 + block : j->tiles;
        int64_t t = j->t1 - j->t0;
        j->ranges = 1;
        while (j->groups * j->ranges < 2 * threads && t / j->ranges >= 8 * MR) j->ranges *= 2;
        j->range = (t + j->ranges - 1) / j->ranges;
        j->ranges = (t + j->range - 1) / j->range;
        lyc_parallel(e->pool, t, 1 + 16384 / j->cp, wino_inputs, j);
        lyc_parallel(e->pool, j->groups * j->ranges, 1, wino_task, j);
    }
}

static void winograd_forward(const lyc_cpu *e, float *y, const float *x, lyc_weight w, const lyc_conv_size *s, lyc_epilogue ep, float *shared) {
    wino_job j = {.w = w, .n = s->n, .ih = s->h, .iw = s->w, .c = s->c, .h = s->oh, .wd = s->ow, .o = s->o, .double_in = s->upsample,
                  .x = x, .y = y, .ep = ep};
    winograd_run(e, &j, shared);
}

static void winograd_grad(const lyc_cpu *e, float *dx, const float *dy, lyc_weight w, const lyc_conv_size *s, const float *add, float *shared) {
    wino_job j = {.w = w, .backward = 1, .n = s->n, .ih = s->oh, .iw = s->ow, .c = s->o, .h = s->oh, .wd = s->ow, .o = s->c,
                  .halve_out = s->upsample, .x = dy, .y = dx, .ep = {.add = add}};
    winograd_run(e, &j, shared);
}

// ---- The kernel's gradient by the same method: the adjoint of Y = Aᵀ[(G g Gᵀ) ⊙ V]A with respect to g, V = Bᵀ d B as above, is
//
//     dg = Gᵀ [ Σ over tiles of (A dY Aᵀ) ⊙ V ] G
//
// 36 products of [outputs × tiles]·[tiles × channels] in place of 144. A task has 48 outputs and 64 channels: their sums U[36][48][64] stay in the second-level
// cache until they are transformed and stored. V is kept as [36][panel of NR channels][tile][NR], A dY Aᵀ = Z as [36][block of 48 outputs][tile][48].

enum { WINO_GRAD_O = 48, WINO_GRAD_C = 64 };

LYC_INLINE void wino_spread(const vf *y, int s, vf *o, int so) { // A·y
    vf y0 = y[0], y1 = y[s], y2 = y[2 * s], y3 = y[3 * s];
    vf t = y0 + WA2 * y2, u = WA * y1 + (WA * WA2) * y3;
    o[0] = y0;
    o[so] = t + u, o[2 * so] = t - u;
    t = y0 + WB2 * y2, u = WB * y1 + (WB * WB2) * y3;
    o[3 * so] = t + u, o[4 * so] = t - u;
    o[5 * so] = y3;
}

LYC_INLINE void wino_gather(const vf *u, int s, vf *o, int so) { // Gᵀ·u
    vf a = u[s] + u[2 * s], b = u[s] - u[2 * s], c = u[3 * s] + u[4 * s], d = u[3 * s] - u[4 * s];
    o[0] = (1 / (WA2 * WB2)) * u[0] + (1 / WNA) * a + (1 / WNB) * c;
    o[so] = (WA / WNA) * b + (WB / WNB) * d;
    o[2 * so] = (WA2 / WNA) * a + (WB2 / WNB) * c + u[5 * s];
}

typedef struct {
    const lyc_cpu *e;
    const lyc_conv_size *s;
    const float *x, *dy;
    float *dw, *v, *z;
    int64_t th, tw, t0, t1, vs, zs, cblocks; // the block of tiles [t0,t1); strides of V and Z; blocks of channels
} wino_grad_job;

// Tiles [begin,end) of the block, of x to V and of dy to Z.
static void wino_grad_inputs(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const wino_grad_job *j = arg;
    const lyc_conv_size *s = j->s;
    int up = s->upsample ? 1 : 0;
    int64_t tiles = j->t1 - j->t0;
    for (int64_t i = begin; i < end; i++) {
        int64_t t = j->t0 + i, item = t / (j->th * j->tw), ty = t / j->tw % j->th * 4, tx = t % j->tw * 4;
        const float *at[36];
        for (int k = 0; k < 36; k++) {
            int64_t y = ty - 1 + k / 6, x = tx - 1 + k % 6;
            int inside = y >= 0 && x >= 0 && y < s->oh && x < s->ow;
            at[k] = inside ? j->x + ((item * s->h + (y >> up)) * s->w + (x >> up)) * s->c : 0;
        }
        for (int64_t c = 0; c < (s->c + NR - 1) / NR * NR; c += LYC_VL) {
            vf d[36], q[36];
            if (c + LYC_VL <= s->c)
                for (int k = 0; k < 36; k++) d[k] = at[k] ? v_load(at[k] + c) : v_zero();
            else
                for (int k = 0; k < 36; k++) d[k] = at[k] && c < s->c ? v_load_n(at[k] + c, s->c - c) : v_zero();
            LYC_UNROLL for (int r = 0; r < 6; r++) wino_input(d + r, 6, q + r, 6);
            float *dst = j->v + c / NR * tiles * NR + i * NR + c % NR;
            LYC_UNROLL for (int r = 0; r < 6; r++) {
                vf o[6];
                wino_input(q + r * 6, 1, o, 1);
                LYC_UNROLL for (int k = 0; k < 6; k++) v_store(dst + (r * 6 + k) * j->vs, o[k]);
            }
        }
        for (int k = 0; k < 16; k++) {
            int64_t y = ty + k / 4, x = tx + k % 4;
            at[k] = y < s->oh && x < s->ow ? j->dy + ((item * s->oh + y) * s->ow + x) * s->o : 0;
        }
        for (int64_t c = 0; c < s->o; c += LYC_VL) {
            vf d[16], q[24];
            if (c + LYC_VL <= s->o)
                for (int k = 0; k < 16; k++) d[k] = at[k] ? v_load(at[k] + c) : v_zero();
            else
                for (int k = 0; k < 16; k++) d[k] = at[k] ? v_load_n(at[k] + c, s->o - c) : v_zero();
            LYC_UNROLL for (int r = 0; r < 4; r++) wino_spread(d + r, 4, q + r, 4);
            float *dst = j->z + c / WINO_GRAD_O * tiles * WINO_GRAD_O + i * WINO_GRAD_O + c % WINO_GRAD_O;
            LYC_UNROLL for (int r = 0; r < 6; r++) {
                vf o[6];
                wino_spread(q + r * 4, 1, o, 1);
                LYC_UNROLL for (int k = 0; k < 6; k++) v_store(dst + (r * 6 + k) * j->zs, o[k]);
            }
        }
    }
}

// Sums of one output, channels [c,c+LYC_VL), to the kernel's gradient; n of the channels exist. The first block of tiles assigns, the others add.
LYC_INLINE void wino_grad_store(float *dw, const float *u, int64_t us, int64_t n, int add) {
    vf d[36], q[18];
    union { vf v[9]; float f[9 * LYC_VL]; } g;
    LYC_UNROLL for (int k = 0; k < 36; k++) d[k] = v_load(u + k * us);
    LYC_UNROLL for (int s = 0; s < 6; s++) wino_gather(d + s, 6, q + s, 6);
    LYC_UNROLL for (int r = 0; r < 3; r++) wino_gather(q + r * 6, 1, g.v + r * 3, 1);
    for (int64_t i = 0; i < n; i++, dw += 9)
        for (int t = 0; t < 9; t++) dw[t] = add ? dw[t] + g.f[t * LYC_VL + i] : g.f[t * LYC_VL + i];
}

static void wino_grad_task(void *arg, int64_t begin, int64_t end, int thread) {
    const wino_grad_job *j = arg;
    const lyc_conv_size *s = j->s;
    int64_t tiles = j->t1 - j->t0, us = WINO_GRAD_O * WINO_GRAD_C + WINO_PAD;
    float *u = lyc_scratch(j->e->pool, thread);
    for (int64_t task = begin; task < end; task++) {
        int64_t o0 = task / j->cblocks * WINO_GRAD_O, c0 = task % j->cblocks * WINO_GRAD_C;
        int64_t m = s->o - o0 < WINO_GRAD_O ? s->o - o0 : WINO_GRAD_O, n = s->c - c0 < WINO_GRAD_C ? s->c - c0 : WINO_GRAD_C;
        for (int xi = 0; xi < 36; xi++) {
            gemm_a a = {j->z + xi * j->zs + o0 * tiles, 1, WINO_GRAD_O, MR};
            for (int64_t p = 0; p < n; p += NR)
                panel_rows(m, NR, tiles, a, j->v + xi * j->vs + (c0 + p) * tiles, NR, u + xi * us + p, WINO_GRAD_C, 0, 0, 0, 1);
        }
        for (int64_t i = 0; i < m; i++)
            for (int64_t c = 0; c < n; c += LYC_VL)
                wino_grad_store(j->dw + ((o0 + i) * s->c + c0 + c) * 9, u + i * WINO_GRAD_C + c, us, n - c < LYC_VL ? n - c : LYC_VL, j->t0 > 0);
    }
}

// Floats of V and Z for a block of tiles; a block has half as many as of the forward product, for there are two of them.
static int64_t wino_grad_block(const lyc_conv_size *s) {
    int64_t tiles = wino_tiles(s), blocks = (2 * tiles + WINO_TILES - 1) / WINO_TILES;
    return (tiles + blocks - 1) / blocks;
}

static int64_t wino_grad_v(const lyc_conv_size *s) { return wino_grad_block(s) * ((s->c + NR - 1) / NR * NR) + WINO_PAD; }
static int64_t wino_grad_z(const lyc_conv_size *s) { return wino_grad_block(s) * ((s->o + WINO_GRAD_O - 1) / WINO_GRAD_O * WINO_GRAD_O) + WINO_PAD; }

static void winograd_weight_grad(const lyc_cpu *e, float *dw, const float *dy, const float *x, const lyc_conv_size *s) {
    wino_grad_job j = {.e = e, .s = s, .x = x, .dy = dy, .dw = dw, .v = lyc_shared(e->pool), .th = (s->oh + 3) / 4, .tw = (s->ow + 3) / 4,
                       .vs = wino_grad_v(s), .zs = wino_grad_z(s), .cblocks = (s->c + WINO_GRAD_C - 1) / WINO_GRAD_C};
    j.z = j.v + 36 * j.vs;
    int64_t tiles = wino_tiles(s), block = wino_grad_block(s);
    for (j.t0 = 0; j.t0 < tiles; j.t0 += block) {
        j.t1 = j.t0 + block < tiles ? j.t0 + block : tiles;
        lyc_parallel(e->pool, j.t1 - j.t0, 1 + 16384 / (s->c + s->o), wino_grad_inputs, &j);
        lyc_parallel(e->pool, (s->o + WINO_GRAD_O - 1) / WINO_GRAD_O * j.cblocks, 1, wino_grad_task, &j);
    }
}

static lyc_bytes winograd_weight_grad_scratch(const lyc_conv_size *s) {
    return (lyc_bytes){4 * 36 * (wino_grad_v(s) + wino_grad_z(s)), 4 * 36 * (WINO_GRAD_O * WINO_GRAD_C + WINO_PAD)};
}
