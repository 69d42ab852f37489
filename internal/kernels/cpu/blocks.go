//go:build cgo

package cpu

// #include "kernels.h"
import "C"

import "fmt"

// MulBlocks writes y[i] = x[i]·s[(i/inner) mod len(s)]; y may be x.
func (b *Backend) MulBlocks(y, x, s []float32, inner int) {
	size := mustBlocks("MulBlocks", x, s, inner)
	mustLen("MulBlocks", "y", y, len(x))
	if len(x) > 0 {
		C.lyc_mul_blocks(b.c, ptr(y), ptr(x), ptr(s), size)
	}
}

// AddBlocks writes y[i] = x[i] + s[(i/inner) mod len(s)]; y may be x.
func (b *Backend) AddBlocks(y, x, s []float32, inner int) {
	size := mustBlocks("AddBlocks", x, s, inner)
	mustLen("AddBlocks", "y", y, len(x))
	if len(x) > 0 {
		C.lyc_add_blocks(b.c, ptr(y), ptr(x), ptr(s), size)
	}
}

// SumBlocks writes s[j] = Σ x[i]·z[i] over the i with (i/inner) mod len(s) = j; a nil z means ones.
func (b *Backend) SumBlocks(s, x, z []float32, inner int) {
	size := mustBlocks("SumBlocks", x, s, inner)
	mustLenOrNil("SumBlocks", "b", z, len(x))
	if len(x) == 0 {
		clear(s)
		return
	}
	b.reserveBytes(C.lyc_sum_blocks_scratch(b.c, size))
	C.lyc_sum_blocks(b.c, ptr(s), ptr(x), ptr(z), size)
}

// SquaredError writes loss [N], loss[n] = the mean of (pred-target)² over item n.
func (b *Backend) SquaredError(loss, pred, target []float32, n int) {
	per := mustItems("SquaredError", loss, pred, target, n)
	b.reserveBytes(C.lyc_squared_error_scratch(b.c, C.int64_t(n), per))
	C.lyc_squared_error(b.c, ptr(loss), ptr(pred), ptr(target), C.int64_t(n), per)
}

// SquaredErrorGrad writes dpred = dloss[n]·2·(pred-target)/per, per being the elements of an item.
func (b *Backend) SquaredErrorGrad(dpred, dloss, pred, target []float32, n int) {
	per := mustItems("SquaredErrorGrad", dloss, pred, target, n)
	mustLen("SquaredErrorGrad", "dpred", dpred, len(pred))
	C.lyc_squared_error_grad(b.c, ptr(dpred), ptr(dloss), ptr(pred), ptr(target), C.int64_t(n), per)
}

// SumSquares returns Σ x², summed in float64 in a fixed order.
func (b *Backend) SumSquares(x []float32) float64 {
	if len(x) == 0 {
		return 0
	}
	return float64(C.lyc_sum_squares(b.c, ptr(x), C.int64_t(len(x))))
}

func mustBlocks(op string, x, s []float32, inner int) C.lyc_blocks_size {
	if inner < 1 || len(s) < 1 || len(x)%(inner*len(s)) != 0 {
		panic(fmt.Sprintf("cpu: %s: %d elements, len(s) = %d, inner = %d", op, len(x), len(s), inner))
	}
	return C.lyc_blocks_size{outer: C.int64_t(len(x) / (inner * len(s))), len: C.int64_t(len(s)), inner: C.int64_t(inner)}
}

// mustItems returns the elements of an item.
func mustItems(op string, loss, pred, target []float32, n int) C.int64_t {
	if n < 1 || len(pred) == 0 || len(pred)%n != 0 {
		panic(fmt.Sprintf("cpu: %s: %d elements for %d items", op, len(pred), n))
	}
	mustLen(op, "target", target, len(pred))
	mustLen(op, "loss", loss, n)
	return C.int64_t(len(pred) / n)
}
