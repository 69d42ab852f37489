//go:build cgo

package cpu

// #include "kernels.h"
import "C"

import (
	"fmt"

	"lycoris/internal/kernels"
)

// Conv2d writes y [N,OH,OW,O] = conv(x [N,H,W,C], W) + epilogue; e.Add may be y. Weights of shape [O,C] count as 1×1.
func (b *Backend) Conv2d(y, x []float32, w kernels.Weight, c kernels.Conv, e kernels.Epilogue) {
	v := mustConvWeight("Conv2d", w, c)
	ep := b.convEpilogue("Conv2d", y, x, c, e)
	if len(y) == 0 {
		return
	}
	size := b.convSize(c)
	b.reserveBytes(C.lyc_conv_scratch(b.c, size))
	C.lyc_conv(b.c, ptr(y), ptr(x), v.c, size, ep)
}

// Conv2dGrad writes dx [N,H,W,C] = the gradient of Conv2d with respect to x, given dy [N,OH,OW,O], + add; add may be dx.
func (b *Backend) Conv2dGrad(dx, dy []float32, w kernels.Weight, c kernels.Conv, add []float32) {
	v := mustConvWeight("Conv2dGrad", w, c)
	mustConvLens("Conv2dGrad", dy, dx, c)
	mustLenOrNil("Conv2dGrad", "add", add, len(dx))
	if len(dx) == 0 {
		return
	}
	size := b.convSize(c)
	b.reserveBytes(C.lyc_conv_grad_scratch(b.c, size))
	C.lyc_conv_grad(b.c, ptr(dx), ptr(dy), v.c, size, ptr(add))
}

// ConvFree is Conv2d with a kernel w [O,C,KH,KW] that is not frozen.
func (b *Backend) ConvFree(y, x, w []float32, c kernels.Conv, e kernels.Epilogue) {
	mustLen("ConvFree", "w", w, c.O*c.C*c.KH*c.KW)
	ep := b.convEpilogue("ConvFree", y, x, c, e)
	if len(y) == 0 {
		return
	}
	size := b.convSize(c)
	b.reserveBytes(C.lyc_conv_free_scratch(b.c, size))
	C.lyc_conv_free(b.c, ptr(y), ptr(x), ptr(w), size, ep)
}

// ConvFreeGrad is Conv2dGrad with a kernel w [O,C,KH,KW] that is not frozen.
func (b *Backend) ConvFreeGrad(dx, dy, w []float32, c kernels.Conv, add []float32) {
	mustLen("ConvFreeGrad", "w", w, c.O*c.C*c.KH*c.KW)
	mustConvLens("ConvFreeGrad", dy, dx, c)
	mustLenOrNil("ConvFreeGrad", "add", add, len(dx))
	if len(dx) == 0 {
		return
	}
	size := b.convSize(c)
	b.reserveBytes(C.lyc_conv_free_scratch(b.c, size))
	C.lyc_conv_free_grad(b.c, ptr(dx), ptr(dy), ptr(w), size, ptr(add))
}

// ConvWeightGrad writes dw [O,C,KH,KW] = the gradient of the convolution with respect to its kernel.
func (b *Backend) ConvWeightGrad(dw, dy, x []float32, c kernels.Conv) {
	mustLen("ConvWeightGrad", "dw", dw, c.O*c.C*c.KH*c.KW)
	mustConvLens("ConvWeightGrad", dy, x, c)
	size := b.convSize(c)
	b.reserveBytes(C.lyc_conv_weight_grad_scratch(b.c, size))
	C.lyc_conv_weight_grad(b.c, ptr(dw), ptr(dy), ptr(x), size)
}

func (b *Backend) convSize(c kernels.Conv) C.lyc_conv_size {
	return C.lyc_conv_size{n: C.int64_t(c.N), h: C.int64_t(c.H), w: C.int64_t(c.W), c: C.int64_t(c.C), o: C.int64_t(c.O), kh: C.int64_t(c.KH),
		kw: C.int64_t(c.KW), stride: C.int64_t(c.Stride), pad_t: C.int64_t(c.PadT), pad_l: C.int64_t(c.PadL), oh: C.int64_t(c.OH),
		ow: C.int64_t(c.OW), upsample: flag(c.Upsample), direct: flag(b.direct)}
}

// convEpilogue checks the lengths of a forward convolution.
func (b *Backend) convEpilogue(op string, y, x []float32, c kernels.Conv, e kernels.Epilogue) C.lyc_epilogue {
	mustConvLens(op, y, x, c)
	if len(e.PerItem) > 0 {
		mustLen(op, "perItem", e.PerItem, c.N*c.O)
	}
	return epilogue(op, e, c.Rows(), c.O)
}

func mustConvLens(op string, y, x []float32, c kernels.Conv) {
	if c.Stride < 1 {
		panic(fmt.Sprintf("cpu: %s: stride %d", op, c.Stride))
	}
	mustLen(op, "output side", y, c.Rows()*c.O)
	mustLen(op, "input side", x, c.N*c.H*c.W*c.C)
}

func mustConvWeight(op string, w kernels.Weight, c kernels.Conv) *weight {
	v := mustWeight(op, w)
	if int(v.c.out) != c.O || int(v.c.in) != c.C || int(v.c.taps) != c.KH*c.KW || len(v.shape) == 4 && v.shape[2] != c.KH {
		panic(fmt.Sprintf("cpu: %s: weight has shape %v, want [%d %d %d %d]", op, v.shape, c.O, c.C, c.KH, c.KW))
	}
	return v
}
