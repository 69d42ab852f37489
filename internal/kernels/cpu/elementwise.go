//go:build cgo

package cpu

// #include "kernels.h"
import "C"

import (
	"fmt"
	"math"

	"lycoris/internal/kernels"
	"lycoris/internal/tensor"
)

// Combine writes y = alpha·a + beta·b; y may be a or b.
func (b *Backend) Combine(y, x []float32, alpha float32, z []float32, beta float32) {
	mustLen("Combine", "a", x, len(y))
	mustLen("Combine", "b", z, len(y))
	if len(y) > 0 {
		C.lyc_combine(b.c, ptr(y), ptr(x), C.float(alpha), ptr(z), C.float(beta), C.int64_t(len(y)))
	}
}

// Scale writes y = alpha·x; y may be x.
func (b *Backend) Scale(y, x []float32, alpha float32) {
	mustLen("Scale", "x", x, len(y))
	if len(y) > 0 {
		C.lyc_scale(b.c, ptr(y), ptr(x), C.float(alpha), C.int64_t(len(y)))
	}
}

// Mul writes y = x·z, element by element; y may be x or z.
func (b *Backend) Mul(y, x, z []float32) {
	mustLen("Mul", "a", x, len(y))
	mustLen("Mul", "b", z, len(y))
	if len(y) > 0 {
		C.lyc_mul(b.c, ptr(y), ptr(x), ptr(z), C.int64_t(len(y)))
	}
}

// Axpy adds alpha·x to y.
func (b *Backend) Axpy(y, x []float32, alpha float32) {
	mustLen("Axpy", "x", x, len(y))
	if len(y) > 0 {
		C.lyc_axpy(b.c, ptr(y), ptr(x), C.float(alpha), C.int64_t(len(y)))
	}
}

// NormRatio writes f = mu·(d/(sqrt(ss) + eps) − 1) + 1.
func (b *Backend) NormRatio(f, d, ss []float32, eps, mu float32) {
	mustLen("NormRatio", "d", d, len(f))
	mustLen("NormRatio", "ss", ss, len(f))
	C.lyc_norm_ratio(b.c, ptr(f), ptr(d), ptr(ss), C.float(eps), C.float(mu), C.int64_t(len(f)))
}

// NormRatioGrad writes the gradients of NormRatio with respect to d and ss; either may be nil.
func (b *Backend) NormRatioGrad(dd, dss, df, d, ss []float32, eps, mu float32) {
	mustLen("NormRatioGrad", "d", d, len(df))
	mustLen("NormRatioGrad", "ss", ss, len(df))
	mustLenOrNil("NormRatioGrad", "dd", dd, len(df))
	mustLenOrNil("NormRatioGrad", "dss", dss, len(df))
	C.lyc_norm_ratio_grad(b.c, ptr(dd), ptr(dss), ptr(df), ptr(d), ptr(ss), C.float(eps), C.float(mu), C.int64_t(len(df)))
}

// AdamW does one step (kernels.AdamW has the formula): float32 per element, with the constants of the step computed in float64 once.
func (b *Backend) AdamW(p, m, v, g []float32, s kernels.AdamW) {
	mustLen("AdamW", "m", m, len(p))
	mustLen("AdamW", "v", v, len(p))
	mustLen("AdamW", "g", g, len(p))
	if s.Step < 1 {
		panic(fmt.Sprintf("cpu: AdamW: step %d, want 1 or more", s.Step))
	}
	if len(p) == 0 {
		return
	}
	t := float64(s.Step)
	step := C.lyc_adamw_step{
		grad_scale: C.float(s.GradScale),
		keep:       C.float(1 - s.LR*s.Decay),
		beta1:      C.float(s.Beta1),
		rest1:      C.float(1 - s.Beta1),
		beta2:      C.float(s.Beta2),
		rest2:      C.float(1 - s.Beta2),
		step:       C.float(s.LR / (1 - math.Pow(s.Beta1, t))),
		root:       C.float(math.Sqrt(1 - math.Pow(s.Beta2, t))),
		eps:        C.float(s.Eps),
	}
	if s.Origin == nil || s.LR*s.Decay == 0 {
		C.lyc_adamw(b.c, ptr(p), ptr(m), ptr(v), ptr(g), C.int64_t(len(p)), step)
		return
	}
	w := mustWeight("AdamW", s.Origin)
	mustLen("AdamW", "p", p, tensor.Elems(w.shape))
	C.lyc_adamw_changed(b.c, ptr(p), ptr(m), ptr(v), ptr(g), step, w.c, C.float(-s.LR*s.Decay))
}
