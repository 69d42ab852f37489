package kernelstest

import (
	"fmt"
	"math"

	"lycoris/internal/kernels"
)

// linearChanged checks LinearChanged at odd sizes and at the borders of tiles and of depth.
func linearChanged(s *suite) {
	for _, size := range []kernels.LinearSize{
		{M: 0, O: 16, I: 8}, {M: 1, O: 1, I: 1}, {M: 3, O: 5, I: 7}, {M: 7, O: 17, I: 31}, {M: 17, O: 33, I: 3}, {M: 6, O: 16, I: 32}, {M: 12, O: 32, I: 64},
		{M: 7, O: 25, I: 385}, {M: 13, O: 257, I: 40}, {M: 200, O: 40, I: 48}, {M: 1, O: 130, I: 770},
	} {
		for _, dtype := range dtypes {
			w, d := s.weight(dtype, size.O, size.I), s.standard(size.O*size.I)
			name := fmt.Sprintf("%s m=%d o=%d i=%d", dtype, size.M, size.O, size.I)
			x := s.standard(size.M * size.I)
			y := output{n: size.M * size.O, tol: s.tol.Linear, floor: math.Sqrt(float64(size.I))}
			for _, e := range s.epilogues(size.M, size.O, itemsOf(size.M)) {
				s.check(opCase{name: "LinearChanged " + name + " " + e.name, weight: w, out: []output{y}, in: append(operands(x, e.Epilogue), d),
					run: func(b kernels.Backend, w kernels.Weight, out, in [][]float32) {
						b.LinearChanged(out[0], in[0], w, in[4], size.M, fields(in))
					}})
			}
		}
	}
}
