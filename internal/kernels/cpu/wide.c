// The 16-lane kernels compiled for AVX2, where the compiler splits each vector in two: slow, and there to test the 16-lane layouts and
// remainders on machines without AVX-512.
// Compiled with little optimisation: nobody waits for it, and at -O3 this file alone takes as long to compile as all others.
#if defined(__x86_64__)
#pragma GCC optimize("O1")
#include <immintrin.h>
#pragma GCC target("avx2,fma,f16c,bmi2")
#define LYC_AVX2
#define LYC_VL 16
#define LYC_ISA "wide"
#define LYC_NAME(x) x##_wide
#include "kernels_impl.h"
#endif
