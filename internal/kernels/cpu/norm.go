//go:build cgo

package cpu

// #include "kernels.h"
import "C"

import (
	"fmt"

	"lycoris/internal/kernels"
)

// GroupNorm writes y [N,P,C] = gamma·(x-mean)/sqrt(var+eps) + beta, through SiLU if asked, and stats [N,Groups,2] (mean, 1/deviation).
func (b *Backend) GroupNorm(y, stats, x, gamma, beta []float32, s kernels.GroupNorm) {
	mustGroupNorm("GroupNorm", x, stats, gamma, beta, s)
	mustLen("GroupNorm", "y", y, len(x))
	if len(x) == 0 {
		return
	}
	size := groupNormSize(s)
	b.reserveBytes(C.lyc_groupnorm_scratch(b.c, size))
	C.lyc_groupnorm(b.c, ptr(y), ptr(stats), ptr(x), ptr(gamma), ptr(beta), size)
}

// GroupNormGrad writes dx = the gradient of GroupNorm with respect to x, + add; add may be dx.
func (b *Backend) GroupNormGrad(dx, dy, x, stats, gamma, beta, add []float32, s kernels.GroupNorm) {
	mustGroupNorm("GroupNormGrad", x, stats, gamma, beta, s)
	mustLen("GroupNormGrad", "dx", dx, len(x))
	mustLen("GroupNormGrad", "dy", dy, len(x))
	mustLenOrNil("GroupNormGrad", "add", add, len(x))
	if len(x) == 0 {
		return
	}
	size := groupNormSize(s)
	b.reserveBytes(C.lyc_groupnorm_scratch(b.c, size))
	C.lyc_groupnorm_grad(b.c, ptr(dx), ptr(dy), ptr(x), ptr(stats), ptr(gamma), ptr(beta), ptr(add), size)
}

// GroupNormParamGrad writes dgamma and dbeta [C]; either may be nil.
func (b *Backend) GroupNormParamGrad(dgamma, dbeta, dy, x, stats, gamma, beta []float32, s kernels.GroupNorm) {
	mustGroupNorm("GroupNormParamGrad", x, stats, gamma, beta, s)
	mustLen("GroupNormParamGrad", "dy", dy, len(x))
	mustLenOrNil("GroupNormParamGrad", "dgamma", dgamma, s.C)
	mustLenOrNil("GroupNormParamGrad", "dbeta", dbeta, s.C)
	if len(x) == 0 {
		clear(dgamma)
		clear(dbeta)
		return
	}
	size := groupNormSize(s)
	b.reserveBytes(C.lyc_groupnorm_scratch(b.c, size))
	C.lyc_groupnorm_param_grad(b.c, ptr(dgamma), ptr(dbeta), ptr(dy), ptr(x), ptr(stats), ptr(gamma), ptr(beta), size)
}

// groupNormScratch returns the scratch of the three ops above.
func (b *Backend) groupNormScratch(s kernels.GroupNorm) int64 {
	return b.total(C.lyc_groupnorm_scratch(b.c, groupNormSize(s)))
}

func groupNormSize(s kernels.GroupNorm) C.lyc_groupnorm_size {
	return C.lyc_groupnorm_size{n: C.int64_t(s.N), p: C.int64_t(s.P), c: C.int64_t(s.C), groups: C.int64_t(s.Groups), eps: C.float(s.Eps), silu: flag(s.SiLU)}
}

func mustGroupNorm(op string, x, stats, gamma, beta []float32, s kernels.GroupNorm) {
	if s.Groups < 1 || s.C < 1 || s.C%s.Groups != 0 {
		panic(fmt.Sprintf("cpu: %s: %d channels in %d groups", op, s.C, s.Groups))
	}
	mustLen(op, "x", x, s.N*s.P*s.C)
	mustLen(op, "stats", stats, s.N*s.Groups*2)
	mustLen(op, "gamma", gamma, s.C)
	mustLen(op, "beta", beta, s.C)
}

// LayerNorm writes y [M,D] = gamma·(x-mean)/sqrt(var+eps) + beta, row by row, and stats [M,2] (mean, 1/deviation).
func (b *Backend) LayerNorm(y, stats, x, gamma, beta []float32, s kernels.LayerNorm) {
	mustLayerNorm("LayerNorm", y, x, stats, s)
	mustLen("LayerNorm", "gamma", gamma, s.D)
	mustLen("LayerNorm", "beta", beta, s.D)
	if len(x) > 0 {
		C.lyc_layernorm(b.c, ptr(y), ptr(stats), ptr(x), ptr(gamma), ptr(beta), layerNormSize(s))
	}
}

// LayerNormGrad writes dx = the gradient of LayerNorm with respect to x, + add; add may be dx.
func (b *Backend) LayerNormGrad(dx, dy, x, stats, gamma, add []float32, s kernels.LayerNorm) {
	mustLayerNorm("LayerNormGrad", dy, x, stats, s)
	mustLen("LayerNormGrad", "dx", dx, len(x))
	mustLen("LayerNormGrad", "gamma", gamma, s.D)
	mustLenOrNil("LayerNormGrad", "add", add, len(x))
	if len(x) > 0 {
		C.lyc_layernorm_grad(b.c, ptr(dx), ptr(dy), ptr(x), ptr(stats), ptr(gamma), ptr(add), layerNormSize(s))
	}
}

// LayerNormParamGrad writes dgamma and dbeta [D]; either may be nil.
func (b *Backend) LayerNormParamGrad(dgamma, dbeta, dy, x, stats []float32, s kernels.LayerNorm) {
	mustLayerNorm("LayerNormParamGrad", dy, x, stats, s)
	mustLenOrNil("LayerNormParamGrad", "dgamma", dgamma, s.D)
	mustLenOrNil("LayerNormParamGrad", "dbeta", dbeta, s.D)
	if len(x) == 0 {
		clear(dgamma)
		clear(dbeta)
		return
	}
	size := layerNormSize(s)
	b.reserveBytes(C.lyc_layernorm_scratch(b.c, size))
	C.lyc_layernorm_param_grad(b.c, ptr(dgamma), ptr(dbeta), ptr(dy), ptr(x), ptr(stats), size)
}

// layerNormScratch returns the scratch of LayerNormParamGrad; the other two need none.
func (b *Backend) layerNormScratch(s kernels.LayerNorm) int64 {
	return b.total(C.lyc_layernorm_scratch(b.c, layerNormSize(s)))
}

func layerNormSize(s kernels.LayerNorm) C.lyc_layernorm_size {
	return C.lyc_layernorm_size{m: C.int64_t(s.M), d: C.int64_t(s.D), eps: C.float(s.Eps)}
}

// mustLayerNorm checks x, its statistics and the output or gradient y.
func mustLayerNorm(op string, y, x, stats []float32, s kernels.LayerNorm) {
	mustLen(op, "output side", y, s.M*s.D)
	mustLen(op, "x", x, s.M*s.D)
	mustLen(op, "stats", stats, s.M*2)
}
