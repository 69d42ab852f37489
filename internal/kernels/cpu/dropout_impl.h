// Dropout. Contract and formulas: dropout.h.

typedef uint64_t vq __attribute__((vector_size(LYC_VL * 4))); // LYC_VL / 2 lanes

// mul_even multiplies the low words of the lanes into whole ones.
LYC_INLINE vq mul_even(vq a, vq b) {
#if defined(LYC_AVX512)
    return (vq)_mm512_mul_epu32((__m512i)a, (__m512i)b);
#elif defined(LYC_AVX2) && LYC_VL == 8
    return (vq)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#else
    return (a & 0xffffffff) * (b & 0xffffffff);
#endif
}

// mul_wide returns the low words of the products of a and m, and the high words in *high.
LYC_INLINE vu mul_wide(vu a, uint32_t m, vu *high) {
    vq by = m - (vq){0};
    vq even = mul_even((vq)a, by), odd = mul_even((vq)a >> 32, by);
    *high = (vu)((even >> 32) | (odd & ~(vq){0} << 32));
    return (vu)((even & 0xffffffff) | (odd << 32));
}

// philox turns LYC_VL counters into LYC_VL times four words.
LYC_INLINE void philox(vu c[4], uint32_t key0, uint32_t key1) {
    for (int round = 0; round < 10; round++) {
        vu high0, high1, low0 = mul_wide(c[0], 0xD2511F53, &high0), low1 = mul_wide(c[2], 0xCD9E8D57, &high1);
        c[0] = high1 ^ c[1] ^ key0;
        c[2] = high0 ^ c[3] ^ key1;
        c[1] = low1;
        c[3] = low0;
        key0 += 0x9E3779B9; // golden ratio
        key1 += 0xBB67AE85; // sqrt(3) - 1
    }
}

typedef struct {
    float *y;
    const float *x;
    int64_t n;
    uint32_t key[2], limit;
    uint64_t salt;
    float scale;
} dropout_job;

static void dropout_task(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const dropout_job *g = arg;
    int64_t last = end * RUN < g->n ? end * RUN : g->n;
    vu lane;
    for (int k = 0; k < LYC_VL; k++) lane[k] = (uint32_t)k;
    for (int64_t i = begin * RUN; i < last; i += 4 * LYC_VL) {
        uint64_t block = (uint64_t)i / 4; // a multiple of LYC_VL: the high word is the same in all lanes
        vu c[4] = {lane + (uint32_t)block, (uint32_t)(block >> 32) - (vu){0}, (uint32_t)g->salt - (vu){0}, (uint32_t)(g->salt >> 32) - (vu){0}};
        philox(c, g->key[0], g->key[1]);
        // Words lie side by side for LYC_VL counters; elements want the four words of one counter side by side.
        float words[4][LYC_VL], factor[4 * LYC_VL];
        for (int w = 0; w < 4; w++) v_store(words[w], v_select((vi)(c[w] >= g->limit), v_set(g->scale), v_zero()));
        for (int k = 0; k < LYC_VL; k++)
            for (int w = 0; w < 4; w++) factor[4 * k + w] = words[w][k];
        int64_t n = last - i < 4 * LYC_VL ? last - i : 4 * LYC_VL, j = 0;
        // Where it is dropped the result is 0, be x what it may.
        for (; j + LYC_VL <= n; j += LYC_VL) {
            vf f = v_load(factor + j);
            v_store(g->y + i + j, (vf)((vi)(v_load(g->x + i + j) * f) & (vi)(f != 0.0f)));
        }
        for (; j < n; j++) g->y[i + j] = factor[j] != 0 ? g->x[i + j] * factor[j] : 0;
    }
}

static void dropout(const lyc_cpu *e, float *y, const float *x, int64_t n, const uint32_t key[2], uint64_t salt, uint32_t limit, float scale) {
    dropout_job g = {y, x, n, {key[0], key[1]}, limit, salt, scale};
    lyc_parallel(e->pool, (n + RUN - 1) / RUN, 1, dropout_task, &g);
}

static const lyc_dropout_table LYC_NAME(lyc_dropout) = {.apply = dropout};
