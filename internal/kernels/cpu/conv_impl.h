static const lyc_conv_table LYC_NAME(lyc_conv) = {.lanes = LYC_VL};
