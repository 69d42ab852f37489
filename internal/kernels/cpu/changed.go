//go:build cgo

package cpu

// #include "kernels.h"
import "C"

import (
	"fmt"

	"lycoris/internal/kernels"
)

// LinearChanged writes y [M,O] = x [M,I]·(W+D)ᵀ + epilogue, d [O,I]. e.Add may be y.
func (b *Backend) LinearChanged(y, x []float32, w kernels.Weight, d []float32, m int, e kernels.Epilogue) {
	v := mustWeight("LinearChanged", w)
	if v.c.taps != 1 {
		panic(fmt.Sprintf("cpu: LinearChanged: weight has shape %v", v.shape))
	}
	out, in := int(v.c.out), int(v.c.in)
	mustLen("LinearChanged", "y", y, m*out)
	mustLen("LinearChanged", "x", x, m*in)
	mustLen("LinearChanged", "d", d, out*in)
	ep := epilogue("LinearChanged", e, m, out)
	if m == 0 {
		return
	}
	b.reserveBytes(C.lyc_linear_scratch(b.c))
	C.lyc_linear_changed(b.c, ptr(y), ptr(x), v.c, ptr(d), C.int64_t(m), ep)
}
