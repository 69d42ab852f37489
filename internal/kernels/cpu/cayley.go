//go:build cgo

package cpu

// #include "kernels.h"
import "C"

import "lycoris/internal/kernels"

// Cayley writes the rotations r [N,S,S] of a (kernels.Cayley has the formula).
func (b *Backend) Cayley(r, a []float32, s kernels.Cayley) {
	mustLen("Cayley", "a", a, s.N*s.S*s.S)
	mustLen("Cayley", "r", r, len(a))
	if len(a) == 0 {
		return
	}
	size := cayleySize(s)
	b.reserveBytes(C.lyc_cayley_scratch(size))
	C.lyc_cayley(b.c, ptr(r), ptr(a), size)
}

// CayleyGrad writes da, the gradient of Cayley, from dr and the result r.
func (b *Backend) CayleyGrad(da, dr, r, a []float32, s kernels.Cayley) {
	mustLen("CayleyGrad", "a", a, s.N*s.S*s.S)
	mustLen("CayleyGrad", "r", r, len(a))
	mustLen("CayleyGrad", "dr", dr, len(a))
	mustLen("CayleyGrad", "da", da, len(a))
	if len(a) == 0 {
		return
	}
	size := cayleySize(s)
	b.reserveBytes(C.lyc_cayley_scratch(size))
	C.lyc_cayley_grad(b.c, ptr(da), ptr(dr), ptr(r), ptr(a), size)
}

func cayleySize(s kernels.Cayley) C.lyc_cayley_size {
	return C.lyc_cayley_size{n: C.int64_t(s.N), s: C.int64_t(s.S), limit: C.float(s.Limit)}
}
