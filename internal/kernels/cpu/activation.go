//go:build cgo

package cpu

// #include "kernels.h"
import "C"

import (
	"fmt"

	"lycoris/internal/kernels"
)

// Activate writes y = f(x); y may be x.
func (b *Backend) Activate(y, x []float32, f kernels.Activation) {
	mustLen("Activate", "y", y, len(x))
	number := activation("Activate", f)
	if len(x) > 0 {
		C.lyc_activate(b.c, ptr(y), ptr(x), C.int64_t(len(x)), number)
	}
}

// ActivateGrad writes dx = dy·f'(x); dx may be dy.
func (b *Backend) ActivateGrad(dx, dy, x []float32, f kernels.Activation) {
	mustLen("ActivateGrad", "dx", dx, len(x))
	mustLen("ActivateGrad", "dy", dy, len(x))
	number := activation("ActivateGrad", f)
	if len(x) > 0 {
		C.lyc_activate_grad(b.c, ptr(dx), ptr(dy), ptr(x), C.int64_t(len(x)), number)
	}
}

// GEGLU writes y [M,D] = x[:,:D]·gelu(x[:,D:]) for x [M,2D].
func (b *Backend) GEGLU(y, x []float32, m, d int) {
	mustLen("GEGLU", "y", y, m*d)
	mustLen("GEGLU", "x", x, 2*m*d)
	if len(y) > 0 {
		C.lyc_geglu(b.c, ptr(y), ptr(x), C.int64_t(m), C.int64_t(d))
	}
}

// GEGLUGrad writes dx [M,2D], the gradient of GEGLU at x given dy [M,D].
func (b *Backend) GEGLUGrad(dx, dy, x []float32, m, d int) {
	mustLen("GEGLUGrad", "dx", dx, 2*m*d)
	mustLen("GEGLUGrad", "dy", dy, m*d)
	mustLen("GEGLUGrad", "x", x, 2*m*d)
	if len(dy) > 0 {
		C.lyc_geglu_grad(b.c, ptr(dx), ptr(dy), ptr(x), C.int64_t(m), C.int64_t(d))
	}
}

var activations = map[kernels.Activation]C.int{kernels.SiLU: C.LYC_SILU, kernels.GELU: C.LYC_GELU, kernels.QuickGELU: C.LYC_QUICK_GELU}

func activation(op string, f kernels.Activation) C.int {
	number, ok := activations[f]
	if !ok {
		panic(fmt.Sprintf("cpu: %s: activation %d does not exist", op, f))
	}
	return number
}
