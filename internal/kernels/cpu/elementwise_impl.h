static const lyc_elementwise_table LYC_NAME(lyc_elementwise) = {.lanes = LYC_VL};
