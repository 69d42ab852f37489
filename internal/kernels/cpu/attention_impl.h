static const lyc_attention_table LYC_NAME(lyc_attention) = {.lanes = LYC_VL};
