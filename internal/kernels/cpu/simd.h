// Vectors of LYC_VL floats for kernels that are written once and compiled per instruction set.
//
// No include guard: each instruction set's file sets LYC_VL (4, 8 or 16) and LYC_NAME and includes it once, through kernels_impl.h. Types are
// GCC's generic vectors, so + - * / and comparisons (all ones where true) are operators, a scalar operand is broadcast, and a*b+c becomes one
// fused instruction where there is one (gnu11 contracts). A width the machine lacks is split by the compiler: that is how the 16-lane
// layout is tested without AVX-512 (wide.c).

#include <math.h>
#include <stdint.h>
#include <string.h>

#define LYC_INLINE static inline __attribute__((always_inline, unused))
#define LYC_UNROLL _Pragma("GCC unroll 16")

typedef float vf __attribute__((vector_size(LYC_VL * 4)));
typedef int32_t vi __attribute__((vector_size(LYC_VL * 4)));
typedef uint32_t vu __attribute__((vector_size(LYC_VL * 4)));
typedef uint16_t vh __attribute__((vector_size(LYC_VL * 2)));
typedef float vf_any __attribute__((vector_size(LYC_VL * 4), aligned(4), may_alias));
typedef uint16_t vh_any __attribute__((vector_size(LYC_VL * 2), aligned(2), may_alias));

// Loads and stores at any address.
LYC_INLINE vf v_load(const float *p) { return *(const vf_any *)p; }
LYC_INLINE void v_store(float *p, vf x) { *(vf_any *)p = x; }
LYC_INLINE vf v_zero(void) { return (vf){0}; }
LYC_INLINE vf v_set(float x) { return x - (vf){0}; } // x in every lane
// The first n lanes only (0 <= n <= LYC_VL); the others read as zero and are not written.
LYC_INLINE vf v_load_n(const float *p, int64_t n) {
    union { vf v; float f[LYC_VL]; } u = {.v = v_zero()};
    for (int64_t i = 0; i < n; i++) u.f[i] = p[i];
    return u.v;
}
LYC_INLINE void v_store_n(float *p, vf x, int64_t n) {
    union { vf v; float f[LYC_VL]; } u = {.v = x};
    for (int64_t i = 0; i < n; i++) p[i] = u.f[i];
}

// Where mask (a comparison's result) is true a, elsewhere b.
LYC_INLINE vf v_select(vi mask, vf a, vf b) { return (vf)((mask & (vi)a) | (~mask & (vi)b)); }
LYC_INLINE vf v_abs(vf x) { return (vf)((vi)x & 0x7fffffff); }

#if defined(LYC_AVX512)
LYC_INLINE vf v_max(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }
LYC_INLINE vf v_min(vf a, vf b) { return (vf)_mm512_min_ps((__m512)a, (__m512)b); }
LYC_INLINE vf v_sqrt(vf x) { return (vf)_mm512_sqrt_ps((__m512)x); }
LYC_INLINE vf v_load_f16(const uint16_t *p) { return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const void *)p)); }
#elif defined(LYC_AVX2) && LYC_VL == 8
LYC_INLINE vf v_max(vf a, vf b) { return (vf)_mm256_max_ps((__m256)a, (__m256)b); }
LYC_INLINE vf v_min(vf a, vf b) { return (vf)_mm256_min_ps((__m256)a, (__m256)b); }
LYC_INLINE vf v_sqrt(vf x) { return (vf)_mm256_sqrt_ps((__m256)x); }
LYC_INLINE vf v_load_f16(const uint16_t *p) { return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const void *)p)); }
#else
// Larger and smaller of two; the second where either is not a number (as the machine instructions have it).
LYC_INLINE vf v_max(vf a, vf b) { return v_select(a > b, a, b); }
LYC_INLINE vf v_min(vf a, vf b) { return v_select(a < b, a, b); }
LYC_INLINE vf v_sqrt(vf x) {
    for (int i = 0; i < LYC_VL; i++) x[i] = sqrtf(x[i]);
    return x;
}
// Widened half-precision values. The bits moved to their place make a float 2^112 too small, subnormal ones included.
LYC_INLINE vf v_load_f16(const uint16_t *p) {
    vu h = __builtin_convertvector(*(const vh_any *)p, vu);
    vu sign = (h & 0x8000) << 16, top = (vu)((vi)(h & 0x7c00) == 0x7c00) & 0x7f800000;
    vf x = (vf)((h & 0x7fff) << 13) * 0x1p112f;
    return (vf)((vu)x | sign | top);
}
#endif

// Widened bfloat16 values: the upper half of a float.
LYC_INLINE vf v_load_bf16(const uint16_t *p) { return (vf)(__builtin_convertvector(*(const vh_any *)p, vu) << 16); }

// a*b + c, fused where the machine can.
LYC_INLINE vf v_fma(vf a, vf b, vf c) { return a * b + c; }

// The sum and the largest of the lanes, always in the same order: halves are added until one is left.
LYC_INLINE float v_sum(vf x) {
    union { vf v; float f[LYC_VL]; } u = {.v = x};
    for (int n = LYC_VL / 2; n > 0; n /= 2)
        for (int i = 0; i < n; i++) u.f[i] += u.f[i + n];
    return u.f[0];
}
LYC_INLINE float v_top(vf x) {
    union { vf v; float f[LYC_VL]; } u = {.v = x};
    for (int n = LYC_VL / 2; n > 0; n /= 2)
        for (int i = 0; i < n; i++) u.f[i] = u.f[i] > u.f[i + n] ? u.f[i] : u.f[i + n];
    return u.f[0];
}

// e^x within 1e-7 of the value: x = n ln 2 + r, degree-5 polynomial in r with the coefficients of Cephes' expf (Moshier, 1989). Below -87.3 the
// result is 0, above 88.7 it stays at e^88.7; not-a-number passes.
LYC_INLINE vf v_exp(vf x) {
    const float round = 12582912.0f; // 1.5 * 2^23: adding it rounds to an integer, which then stands in the low bits
    vf y = v_min(v_set(88.7f), v_max(v_set(-87.3f), x));
    vf t = y * 1.44269504f + round;
    vf n = t - round;
    vf r = y - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    vf p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + (r + 1.0f);
    vf e = (vf)((vu)p + ((vu)t << 23));
    return (vf)((vi)e & ~(vi)(x < -87.3f));
}

// v_transpose turns LYC_VL vectors, the rows of a square, into its columns: blocks of half the size are exchanged, then quarters, and so on.
#if defined(__clang__)
#define LYC_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define LYC_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (vi){__VA_ARGS__})
#endif
#if LYC_VL == 4
LYC_INLINE void v_exchange1(vf *a, vf *b) {
    vf x = *a, y = *b;
    *a = LYC_SHUFFLE(x, y, 0, 4, 2, 6), *b = LYC_SHUFFLE(x, y, 1, 5, 3, 7);
}
LYC_INLINE void v_exchange2(vf *a, vf *b) {
    vf x = *a, y = *b;
    *a = LYC_SHUFFLE(x, y, 0, 1, 4, 5), *b = LYC_SHUFFLE(x, y, 2, 3, 6, 7);
}
#elif LYC_VL == 8
LYC_INLINE void v_exchange1(vf *a, vf *b) {
    vf x = *a, y = *b;
    *a = LYC_SHUFFLE(x, y, 0, 8, 2, 10, 4, 12, 6, 14), *b = LYC_SHUFFLE(x, y, 1, 9, 3, 11, 5, 13, 7, 15);
}
LYC_INLINE void v_exchange2(vf *a, vf *b) {
    vf x = *a, y = *b;
    *a = LYC_SHUFFLE(x, y, 0, 1, 8, 9, 4, 5, 12, 13), *b = LYC_SHUFFLE(x, y, 2, 3, 10, 11, 6, 7, 14, 15);
}
LYC_INLINE void v_exchange4(vf *a, vf *b) {
    vf x = *a, y = *b;
    *a = LYC_SHUFFLE(x, y, 0, 1, 2, 3, 8, 9, 10, 11), *b = LYC_SHUFFLE(x, y, 4, 5, 6, 7, 12, 13, 14, 15);
}
#else
LYC_INLINE void v_exchange1(vf *a, vf *b) {
    vf x = *a, y = *b;
    *a = LYC_SHUFFLE(x, y, 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30);
    *b = LYC_SHUFFLE(x, y, 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31);
}
LYC_INLINE void v_exchange2(vf *a, vf *b) {
    vf x = *a, y = *b;
    *a = LYC_SHUFFLE(x, y, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29);
    *b = LYC_SHUFFLE(x, y, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
}
LYC_INLINE void v_exchange4(vf *a, vf *b) {
    vf x = *a, y = *b;
    *a = LYC_SHUFFLE(x, y, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27);
    *b = LYC_SHUFFLE(x, y, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
}
LYC_INLINE void v_exchange8(vf *a, vf *b) {
    vf x = *a, y = *b;
    *a = LYC_SHUFFLE(x, y, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23);
    *b = LYC_SHUFFLE(x, y, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
}
#endif
LYC_INLINE void v_transpose(vf r[LYC_VL]) {
#if LYC_VL == 16
    LYC_UNROLL for (int i = 0; i < 8; i++) v_exchange8(r + i, r + i + 8);
#endif
#if LYC_VL >= 8
    LYC_UNROLL for (int i = 0; i < LYC_VL; i++)
        if (!(i & 4)) v_exchange4(r + i, r + i + 4);
#endif
    LYC_UNROLL for (int i = 0; i < LYC_VL; i++)
        if (!(i & 2)) v_exchange2(r + i, r + i + 2);
    LYC_UNROLL for (int i = 0; i < LYC_VL; i++)
        if (!(i & 1)) v_exchange1(r + i, r + i + 1);
}
