package ref

import "lycoris/internal/kernels"

// kernel returns the values of a weight [O,C,KH,KW] or [O,C] after checking it against c.
func kernel(op string, w kernels.Weight, c kernels.Conv) []float32 {
	shape := w.Shape()
	kh, kw := 1, 1
	if len(shape) == 4 {
		kh, kw = shape[2], shape[3]
	}
	require(shape[0] == c.O && shape[1] == c.C && kh == c.KH && kw == c.KW, op, "weight has shape %v, want [%d %d %d %d]", shape, c.O, c.C, c.KH, c.KW)
	return w.(*weight).values
}

// checkConv checks the operands of a convolution: x or dx, w or dw, and y or dy.
func checkConv(op string, x, w, y []float32, c kernels.Conv) {
	require(c.Stride >= 1, op, "stride is %d, want 1 or more", c.Stride)
	check(op, "input", len(x), c.N*c.H*c.W*c.C)
	check(op, "kernel", len(w), c.O*c.C*c.KH*c.KW)
	check(op, "output", len(y), c.Rows()*c.O)
}

// tap returns the input pixel that output pixel (n,oy,ox) sees through kernel tap (ky,kx), as an index in [0,N·H·W); ok is false in the
// zeros of the padding. With c.Upsample, rows and columns count in the doubled image, whose pixel (i,j) is (i/2,j/2) of x.
func tap(c kernels.Conv, n, oy, ox, ky, kx int) (pixel int, ok bool) {
	iy, ix := oy*c.Stride+ky-c.PadT, ox*c.Stride+kx-c.PadL
	if iy < 0 || ix < 0 {
		return 0, false
	}
	if c.Upsample {
		iy, ix = iy/2, ix/2
	}
	return (n*c.H+iy)*c.W + ix, iy < c.H && ix < c.W
}

// Conv2d: see ConvFree.
func (b Backend) Conv2d(y, x []float32, w kernels.Weight, c kernels.Conv, e kernels.Epilogue) {
	convolve("Conv2d", y, x, kernel("Conv2d", w, c), c, e)
}

// ConvFree: y[n,oy,ox,o] = Σ_c,ky,kx x[n, oy·stride+ky-padT, ox·stride+kx-padL, c] · w[o,c,ky,kx] + epilogue: the cross-correlation that
// neural networks call convolution.
func (Backend) ConvFree(y, x, w []float32, c kernels.Conv, e kernels.Epilogue) {
	convolve("ConvFree", y, x, w, c, e)
}

func convolve(op string, y, x, w []float32, c kernels.Conv, e kernels.Epilogue) {
	checkConv(op, x, w, y, c)
	per := checkEpilogue(op, e, c.Rows(), c.O, c.N)
	taps := c.KH * c.KW
	acc := make([]float64, c.O)
	for row := range c.Rows() {
		n, oy, ox := row/(c.OH*c.OW), row/c.OW%c.OH, row%c.OW
		clear(acc)
		for t := range taps {
			pixel, ok := tap(c, n, oy, ox, t/c.KW, t%c.KW)
			if !ok {
				continue
			}
			for o := range acc {
				for ch, v := range x[pixel*c.C:][:c.C] {
					acc[o] += float64(v) * float64(w[(o*c.C+ch)*taps+t])
				}
			}
		}
		for o, v := range acc {
			y[row*c.O+o] = store(v, e, row, o, c.O, per)
		}
	}
}

// Conv2dGrad: see ConvFreeGrad.
func (Backend) Conv2dGrad(dx, dy []float32, w kernels.Weight, c kernels.Conv, add []float32) {
	convolveGrad("Conv2dGrad", dx, dy, kernel("Conv2dGrad", w, c), c, add)
}

// ConvFreeGrad: dx[pixel,c] = the sum of dy[n,oy,ox,o]·w[o,c,ky,kx] over the outputs and taps that see the pixel, + add[pixel,c].
func (Backend) ConvFreeGrad(dx, dy, w []float32, c kernels.Conv, add []float32) {
	convolveGrad("ConvFreeGrad", dx, dy, w, c, add)
}

func convolveGrad(op string, dx, dy, w []float32, c kernels.Conv, add []float32) {
	checkConv(op, dx, w, dy, c)
	checkOptional(op, "add", add, len(dx))
	taps := c.KH * c.KW
	acc := make([]float64, len(dx))
	for row := range c.Rows() {
		n, oy, ox := row/(c.OH*c.OW), row/c.OW%c.OH, row%c.OW
		for t := range taps {
			pixel, ok := tap(c, n, oy, ox, t/c.KW, t%c.KW)
			if !ok {
				continue
			}
			for o, d := range dy[row*c.O:][:c.O] {
				for ch := range c.C {
					acc[pixel*c.C+ch] += float64(d) * float64(w[(o*c.C+ch)*taps+t])
				}
			}
		}
	}
	for i, v := range acc {
		dx[i] = float32(v + at(add, i))
	}
}

// ConvWeightGrad: dw[o,c,ky,kx] = Σ over the output pixels of dy[pixel,o] · the input that they see through the tap.
func (Backend) ConvWeightGrad(dw, dy, x []float32, c kernels.Conv) {
	checkConv("ConvWeightGrad", x, dw, dy, c)
	taps := c.KH * c.KW
	acc := make([]float64, len(dw))
	for row := range c.Rows() {
		n, oy, ox := row/(c.OH*c.OW), row/c.OW%c.OH, row%c.OW
		for t := range taps {
			pixel, ok := tap(c, n, oy, ox, t/c.KW, t%c.KW)
			if !ok {
				continue
			}
			for o, d := range dy[row*c.O:][:c.O] {
				for ch, v := range x[pixel*c.C:][:c.C] {
					acc[(o*c.C+ch)*taps+t] += float64(d) * float64(v)
				}
			}
		}
	}
	for i, v := range acc {
		dw[i] = float32(v)
	}
}
