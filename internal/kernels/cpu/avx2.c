// The kernels for x86-64-v3: 8 lanes, fused multiply-add, half-precision loads.
#if defined(__x86_64__)
#include <immintrin.h>
#pragma GCC target("avx2,fma,f16c,bmi2")
#define LYC_AVX2
#define LYC_VL 8
#define LYC_ISA "avx2"
#define LYC_NAME(x) x##_avx2
#include "kernels_impl.h"
#endif
