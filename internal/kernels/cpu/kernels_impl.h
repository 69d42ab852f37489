// Everything that is compiled once per instruction set. The including file has set LYC_VL, LYC_NAME and LYC_ISA.
#include "kernels.h"
#include "simd.h"

#include "gemm_impl.h"
#include "blockmat_impl.h"
#include "conv_impl.h"
#include "attention_impl.h"
#include "activation_impl.h"
#include "norm_impl.h"
#include "elementwise_impl.h"
#include "blocks_impl.h"
#include "copy_impl.h"
#include "cayley_impl.h"
#include "dropout_impl.h"
#include "changed_impl.h"

const lyc_kernels LYC_NAME(lyc_kernels) = {
    .name = LYC_ISA,
    .lanes = LYC_VL,
    .gemm = &LYC_NAME(lyc_gemm),
    .blockmat = &LYC_NAME(lyc_blockmat),
    .conv = &LYC_NAME(lyc_conv),
    .attention = &LYC_NAME(lyc_attention),
    .norm = &LYC_NAME(lyc_norm),
    .activation = &LYC_NAME(lyc_activation),
    .elementwise = &LYC_NAME(lyc_elementwise),
    .blocks = &LYC_NAME(lyc_blocks),
    .copy = &LYC_NAME(lyc_copy),
    .cayley = &LYC_NAME(lyc_cayley),
    .dropout = &LYC_NAME(lyc_dropout),
    .changed = &LYC_NAME(lyc_changed),
};
