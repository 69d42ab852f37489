//go:build cgo

package cpu

// #include "kernels.h"
import "C"

import (
	"fmt"

	"lycoris/internal/kernels"
)

// ScratchBytes returns the scratch that any op of this size needs beside its operands, all threads together. A kernels.Conv stands for the ops with a
// frozen kernel, a kernels.FreeConv for the others. Each family adds a case here; sizes of ops that need none return 0.
func (b *Backend) ScratchBytes(size any) int64 {
	switch s := size.(type) {
	case kernels.LinearSize:
		return b.total(C.lyc_linear_scratch(b.c))
	case kernels.MatMul:
		return b.total(C.lyc_matmul_scratch(b.c, matmulSize(s)))
	case kernels.BlockMatMul:
		return b.total(C.lyc_blockmat_scratch(b.c, blockMatSize(s)))
	case kernels.Conv:
		c := b.convSize(s)
		return max(b.total(C.lyc_conv_scratch(b.c, c)), b.total(C.lyc_conv_grad_scratch(b.c, c)))
	case kernels.FreeConv:
		c := b.convSize(kernels.Conv(s))
		return max(b.total(C.lyc_conv_free_scratch(b.c, c)), b.total(C.lyc_conv_weight_grad_scratch(b.c, c)))
	case kernels.Cayley:
		return b.total(C.lyc_cayley_scratch(cayleySize(s)))
	case kernels.Attention:
		return b.attentionScratch(s)
	case kernels.GroupNorm:
		return b.groupNormScratch(s)
	case kernels.LayerNorm:
		return b.layerNormScratch(s)
	}
	panic(fmt.Sprintf("cpu: ScratchBytes: no op has a size of type %T", size))
}

func (b *Backend) total(s C.lyc_bytes) int64 {
	return int64(s.shared) + int64(s.per_thread)*int64(b.Threads())
}
