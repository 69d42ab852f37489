// Everything that is compiled once per instruction set. The including file has set LYC_VL, LYC_NAME and LYC_ISA.
#include "kernels.h"
#include "simd.h"

#include "gemm_impl.h"
#include "conv_impl.h"
#include "attention_impl.h"
#include "norm_impl.h"
#include "elementwise_impl.h"

const lyc_kernels LYC_NAME(lyc_kernels) = {
    .name = LYC_ISA,
    .lanes = LYC_VL,
    .gemm = &LYC_NAME(lyc_gemm),
    .conv = &LYC_NAME(lyc_conv),
    .attention = &LYC_NAME(lyc_attention),
    .norm = &LYC_NAME(lyc_norm),
    .elementwise = &LYC_NAME(lyc_elementwise),
};
