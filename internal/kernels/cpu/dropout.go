//go:build cgo

package cpu

// #include "kernels.h"
import "C"

import (
	"fmt"
	"math"
)

// Dropout writes y[i] = x[i]/(1-p) or 0, drawn as dropout.h says with the bits of seed[0] and seed[1] as the key; seed[2] below 0.5 switches it
// off. y may be x.
func (b *Backend) Dropout(y, x, seed []float32, salt uint64, p float32) {
	mustLen("Dropout", "y", y, len(x))
	mustLen("Dropout", "seed", seed, 3)
	if !(p >= 0 && p < 1) {
		panic(fmt.Sprintf("cpu: Dropout: p = %v, want 0 or more and below 1", p))
	}
	if len(x) == 0 {
		return
	}
	if seed[2] < 0.5 {
		if &y[0] != &x[0] {
			b.CopyColumns(y, len(y), 0, x, len(x), 0, 1, len(x))
		}
		return
	}
	C.lyc_dropout(b.c, ptr(y), ptr(x), C.int64_t(len(x)), C.uint32_t(math.Float32bits(seed[0])), C.uint32_t(math.Float32bits(seed[1])),
		C.uint64_t(salt), C.uint32_t(float64(p)*(1<<32)), C.float(1/(1-float64(p))))
}
