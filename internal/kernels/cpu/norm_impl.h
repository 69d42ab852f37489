static const lyc_norm_table LYC_NAME(lyc_norm) = {.lanes = LYC_VL};
