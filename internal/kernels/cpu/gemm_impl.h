static const lyc_gemm_table LYC_NAME(lyc_gemm) = {.lanes = LYC_VL};
