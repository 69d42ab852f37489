// Normalisations. Contract and formulas: norm.h.
#include "groupnorm_impl.h"
#include "layernorm_impl.h"

static const lyc_norm_table LYC_NAME(lyc_norm) = {
    .group = groupnorm,
    .group_grad = groupnorm_grad,
    .group_param_grad = groupnorm_param_grad,
    .group_scratch = groupnorm_scratch,
    .layer = layernorm,
    .layer_grad = layernorm_grad,
    .layer_param_grad = layernorm_param_grad,
    .layer_scratch = layernorm_scratch,
};
