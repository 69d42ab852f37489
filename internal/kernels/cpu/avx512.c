// The kernels for x86-64-v4: 16 lanes.
#if defined(__x86_64__)
#include <immintrin.h>
#pragma GCC target("avx2,fma,f16c,bmi2,avx512f,avx512vl,avx512bw,avx512dq,prefer-vector-width=512")
#define LYC_AVX512
#define LYC_VL 16
#define LYC_ISA "avx512"
#define LYC_NAME(x) x##_avx512
#include "kernels_impl.h"
#endif
