//go:build cgo

package cpu

// #include "kernels.h"
import "C"

import (
	"fmt"
	"unsafe"
)

// CopyColumns copies columns [srcOff,srcOff+cols) of src [rows,srcLD] to columns [dstOff,dstOff+cols) of dst [rows,dstLD]. The last row may end with
// its range.
func (b *Backend) CopyColumns(dst []float32, dstLD, dstOff int, src []float32, srcLD, srcOff, rows, cols int) {
	const op = "CopyColumns"
	if dstOff < 0 || cols < 0 || rows < 0 || dstOff+cols > dstLD {
		panic(fmt.Sprintf("cpu: %s: columns [%d:%d] of dst, rows of %d", op, dstOff, dstOff+cols, dstLD))
	}
	if srcOff < 0 || srcOff+cols > srcLD {
		panic(fmt.Sprintf("cpu: %s: columns [%d:%d] of src, rows of %d", op, srcOff, srcOff+cols, srcLD))
	}
	if rows == 0 || cols == 0 {
		return
	}
	mustHold(op, "dst", dst, (rows-1)*dstLD+dstOff+cols)
	mustHold(op, "src", src, (rows-1)*srcLD+srcOff+cols)
	C.lyc_copy_columns(b.c, ptr(dst[dstOff:]), C.int64_t(dstLD), ptr(src[srcOff:]), C.int64_t(srcLD), C.int64_t(rows), C.int64_t(cols))
}

// Permute writes y = x [shape] with its axes reordered: axis i of y is axis perm[i] of x.
func (b *Backend) Permute(y, x []float32, shape, perm []int) {
	const op = "Permute"
	if len(shape) > 6 || len(perm) != len(shape) {
		panic(fmt.Sprintf("cpu: %s: shape %v, perm %v", op, shape, perm))
	}
	stride := make([]int, len(shape)) // of x
	n := 1
	for i := len(shape) - 1; i >= 0; i-- {
		stride[i] = n
		n *= shape[i]
	}
	mustLen(op, "x", x, n)
	mustLen(op, "y", y, n)
	seen := 0
	for _, axis := range perm {
		if axis < 0 || axis >= len(shape) || seen>>axis&1 != 0 {
			panic(fmt.Sprintf("cpu: %s: perm = %v is not a permutation of %d axes", op, perm, len(shape)))
		}
		seen |= 1 << axis
	}
	if n == 0 {
		return
	}
	C.lyc_permute(b.c, ptr(y), ptr(x), permutation(shape, perm, stride))
}

// permutation leaves axes of size 1 out and joins neighbours of y that are neighbours in x.
func permutation(shape, perm, stride []int) C.lyc_permutation {
	var p C.lyc_permutation
	axes := 0
	for _, axis := range perm {
		size, step := C.int64_t(shape[axis]), C.int64_t(stride[axis])
		if size == 1 {
			continue
		}
		if axes > 0 && p.stride[axes-1] == size*step {
			p.size[axes-1] *= size
			p.stride[axes-1] = step
			continue
		}
		p.size[axes], p.stride[axes] = size, step
		axes++
	}
	if axes == 0 {
		p.size[0], p.stride[0] = 1, 1
		axes = 1
	}
	p.axes = C.int32_t(axes)
	return p
}

// GatherRows writes y[i] = x[index[i]], rows of length d.
func (b *Backend) GatherRows(y, x []float32, index []int32, d int) {
	mustRows("GatherRows", x, index, d)
	mustLen("GatherRows", "y", y, len(index)*d)
	if len(index) > 0 {
		C.lyc_gather(b.c, ptr(y), ptr(x), indices(index), C.int64_t(len(index)), C.int64_t(d))
	}
}

// ScatterRows zeroes y and adds x[i] to y[index[i]], in the order of i; rows of length d.
func (b *Backend) ScatterRows(y, x []float32, index []int32, d int) {
	mustRows("ScatterRows", y, index, d)
	mustLen("ScatterRows", "x", x, len(index)*d)
	if len(y) > 0 {
		C.lyc_scatter(b.c, ptr(y), ptr(x), indices(index), C.int64_t(len(index)), C.int64_t(len(y)/d), C.int64_t(d))
	}
}

// mustRows panics unless each index names one of the rows of table.
func mustRows(op string, table []float32, index []int32, d int) {
	if d < 1 || len(table)%d != 0 {
		panic(fmt.Sprintf("cpu: %s: table of %d floats, rows of %d", op, len(table), d))
	}
	for i, r := range index {
		if r < 0 || int(r) >= len(table)/d {
			panic(fmt.Sprintf("cpu: %s: index[%d] = %d, want below %d", op, i, r, len(table)/d))
		}
	}
}

func indices(index []int32) *C.int32_t { return (*C.int32_t)(unsafe.Pointer(unsafe.SliceData(index))) }

// Upsample writes y [N,2H,2W,C] = nearest neighbour of x [N,H,W,C].
func (b *Backend) Upsample(y, x []float32, n, h, w, c int) {
	mustLen("Upsample", "x", x, n*h*w*c)
	mustLen("Upsample", "y", y, 4*n*h*w*c)
	if len(x) > 0 {
		C.lyc_upsample(b.c, ptr(y), ptr(x), C.int64_t(n*h), C.int64_t(w), C.int64_t(c))
	}
}

// UpsampleGrad writes dx [N,H,W,C] = for each pixel the sum of the four of dy [N,2H,2W,C] that came from it.
func (b *Backend) UpsampleGrad(dx, dy []float32, n, h, w, c int) {
	mustLen("UpsampleGrad", "dx", dx, n*h*w*c)
	mustLen("UpsampleGrad", "dy", dy, 4*n*h*w*c)
	if len(dx) > 0 {
		C.lyc_upsample_grad(b.c, ptr(dx), ptr(dy), C.int64_t(n*h), C.int64_t(w), C.int64_t(c))
	}
}
