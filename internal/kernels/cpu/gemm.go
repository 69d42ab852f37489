//go:build cgo

package cpu

// #include "kernels.h"
import "C"

import (
	"fmt"

	"lycoris/internal/kernels"
)

// Linear writes y [M,O] = x [M,I]·Wᵀ + epilogue (kernels.Backend). e.Add may be y.
func (b *Backend) Linear(y, x []float32, w kernels.Weight, m int, e kernels.Epilogue) {
	v := mustWeight("Linear", w)
	out, in := int(v.c.out), int(v.c.in)*int(v.c.taps)
	if v.c.taps != 1 {
		panic(fmt.Sprintf("cpu: Linear: weight has shape %v", v.shape))
	}
	mustLen("Linear", "y", y, m*out)
	mustLen("Linear", "x", x, m*in)
	ep := epilogue("Linear", e, m, out)
	if m == 0 {
		return
	}
	b.reserveBytes(C.lyc_linear_scratch(b.c))
	C.lyc_linear(b.c, ptr(y), ptr(x), v.c, C.int64_t(m), ep)
}

// LinearGrad writes dx [M,I] = dy [M,O]·W + add; add may be dx.
func (b *Backend) LinearGrad(dx, dy []float32, w kernels.Weight, m int, add []float32) {
	v := mustWeight("LinearGrad", w)
	out, in := int(v.c.out), int(v.c.in)
	if v.c.taps != 1 {
		panic(fmt.Sprintf("cpu: LinearGrad: weight has shape %v", v.shape))
	}
	mustLen("LinearGrad", "dx", dx, m*in)
	mustLen("LinearGrad", "dy", dy, m*out)
	mustLenOrNil("LinearGrad", "add", add, m*in)
	if m == 0 {
		return
	}
	b.reserveBytes(C.lyc_linear_scratch(b.c))
	C.lyc_linear_grad(b.c, ptr(dx), ptr(dy), v.c, C.int64_t(m), ptr(add))
}

// MatMul writes c[b] = alpha·op(a[b])·op(b[b]) + epilogue (kernels.MatMul has the layouts); e.Add may be c.
func (b *Backend) MatMul(c, x, y []float32, e kernels.Epilogue, s kernels.MatMul) {
	rows := s.M
	if !s.Sum {
		rows *= s.Batch
	}
	mustLen("MatMul", "c", c, rows*s.N)
	mustHold("MatMul", "a", x, (s.Batch-1)*s.StrideA+s.M*s.K)
	mustHold("MatMul", "b", y, (s.Batch-1)*s.StrideB+s.K*s.N)
	if len(e.PerItem) > 0 && rows != s.M {
		panic(fmt.Sprintf("cpu: MatMul: PerItem for %d items", s.Batch))
	}
	if len(c) == 0 {
		return
	}
	ep := epilogue("MatMul", e, rows, s.N)
	if len(e.PerItem) == 0 {
		ep.item_rows = C.int64_t(s.M)
	}
	size := matmulSize(s)
	b.reserveBytes(C.lyc_matmul_scratch(b.c, size))
	C.lyc_matmul(b.c, ptr(c), ptr(x), ptr(y), ep, size)
}

func matmulSize(s kernels.MatMul) C.lyc_matmul_size {
	return C.lyc_matmul_size{batch: C.int64_t(s.Batch), m: C.int64_t(s.M), n: C.int64_t(s.N), k: C.int64_t(s.K), stride_a: C.int64_t(s.StrideA),
		stride_b: C.int64_t(s.StrideB), trans_a: flag(s.TransA), trans_b: flag(s.TransB), sum: flag(s.Sum), alpha: C.float(s.Alpha)}
}

// BlockMatMul writes y [M,N·T] = x [M,N·S] times the blocks of r + add; add may be y.
func (b *Backend) BlockMatMul(y, x, r, add []float32, s kernels.BlockMatMul) {
	mustBlockMatMul("BlockMatMul", y, x, r, s)
	mustLenOrNil("BlockMatMul", "add", add, len(y))
	if len(y) == 0 {
		return
	}
	size := blockMatSize(s)
	b.reserveBytes(C.lyc_blockmat_scratch(b.c, size))
	C.lyc_blockmat(b.c, ptr(y), ptr(x), ptr(r), ptr(add), size)
}

// BlockMatMulGrad writes dr, the gradient of BlockMatMul with respect to the blocks.
func (b *Backend) BlockMatMulGrad(dr, dy, x []float32, s kernels.BlockMatMul) {
	mustBlockMatMul("BlockMatMulGrad", dy, x, dr, s)
	if len(dr) == 0 {
		return
	}
	size := blockMatSize(s)
	b.reserveBytes(C.lyc_blockmat_scratch(b.c, size))
	C.lyc_blockmat_grad(b.c, ptr(dr), ptr(dy), ptr(x), size)
}

func mustBlockMatMul(op string, y, x, r []float32, s kernels.BlockMatMul) {
	mustLen(op, "y", y, s.M*s.N*s.T)
	mustLen(op, "x", x, s.M*s.N*s.S)
	mustLen(op, "r", r, s.N*s.S*s.T)
}

func blockMatSize(s kernels.BlockMatMul) C.lyc_blockmat_size {
	return C.lyc_blockmat_size{m: C.int64_t(s.M), n: C.int64_t(s.N), s: C.int64_t(s.S), t: C.int64_t(s.T), trans: flag(s.Trans)}
}

// mustHold panics unless x has n elements or more.
func mustHold(op, name string, x []float32, n int) {
	if len(x) < n {
		panic(fmt.Sprintf("cpu: %s: len(%s) = %d, want %d or more", op, name, len(x), n))
	}
}

// epilogue checks e for an output of m rows of n columns.
func epilogue(op string, e kernels.Epilogue, m, n int) C.lyc_epilogue {
	mustLenOrNil(op, "bias", e.Bias, n)
	mustLenOrNil(op, "add", e.Add, m*n)
	ep := C.lyc_epilogue{bias: ptr(e.Bias), add: ptr(e.Add), item_rows: C.int64_t(m)}
	if len(e.PerItem) > 0 {
		ep.per_item = ptr(e.PerItem)
		items := len(e.PerItem) / n
		if items == 0 || len(e.PerItem) != items*n || m%items != 0 {
			panic(fmt.Sprintf("cpu: %s: len(perItem) = %d does not divide %d rows of %d", op, len(e.PerItem), m, n))
		}
		ep.item_rows = C.int64_t(m / items)
	}
	return ep
}

func flag(b bool) C.int32_t {
	if b {
		return 1
	}
	return 0
}

func (b *Backend) reserveBytes(s C.lyc_bytes) { b.reserve(int64(s.shared), int64(s.per_thread)) }
