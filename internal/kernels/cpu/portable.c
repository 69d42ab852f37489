// The kernels for any machine: 4 lanes, SSE2 or NEON or whatever the compiler's target has.
#define LYC_VL 4
#define LYC_ISA "portable"
#define LYC_NAME(x) x##_portable
#include "kernels_impl.h"
