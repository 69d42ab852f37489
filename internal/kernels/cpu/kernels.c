#include "kernels.h"

#include <string.h>

extern const lyc_kernels lyc_kernels_portable;
#if defined(__x86_64__)
extern const lyc_kernels lyc_kernels_avx2, lyc_kernels_wide, lyc_kernels_avx512;
#endif

const lyc_kernels *lyc_kernels_for(const char *isa) {
    if (!strcmp(isa, "portable")) return &lyc_kernels_portable;
#if defined(__x86_64__)
    __builtin_cpu_init();
    int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    int avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                 __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
    if (!strcmp(isa, "avx2") && avx2) return &lyc_kernels_avx2;
    if (!strcmp(isa, "wide") && avx2) return &lyc_kernels_wide;
    if (!strcmp(isa, "avx512") && avx512) return &lyc_kernels_avx512;
#endif
    return 0;
}
