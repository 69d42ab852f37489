//go:build cgo

package cpu

import (
	"fmt"
	"testing"

	"lycoris/internal/kernels"
	"lycoris/internal/tensor"
)

var convs = []kernels.Conv{
	{N: 1, H: 8, W: 8, C: 16, O: 16, KH: 3, KW: 3, Stride: 1, PadT: 1, PadL: 1, OH: 8, OW: 8},
	{N: 2, H: 5, W: 7, C: 20, O: 36, KH: 3, KW: 3, Stride: 1, PadT: 1, PadL: 1, OH: 5, OW: 7},
	{N: 1, H: 1, W: 1, C: 24, O: 4, KH: 3, KW: 3, Stride: 1, PadT: 1, PadL: 1, OH: 1, OW: 1},
	{N: 1, H: 9, W: 4, C: 4, O: 33, KH: 3, KW: 3, Stride: 1, PadT: 1, PadL: 1, OH: 9, OW: 4},
	{N: 1, H: 4, W: 4, C: 330, O: 40, KH: 3, KW: 3, Stride: 1, PadT: 1, PadL: 1, OH: 4, OW: 4},
	{N: 1, H: 6, W: 6, C: 40, O: 325, KH: 3, KW: 3, Stride: 1, PadT: 1, PadL: 1, OH: 6, OW: 6},
	{N: 3, H: 13, W: 10, C: 17, O: 65, KH: 3, KW: 3, Stride: 1, PadT: 1, PadL: 1, OH: 13, OW: 10},
	{N: 2, H: 3, W: 5, C: 20, O: 24, KH: 3, KW: 3, Stride: 1, PadT: 1, PadL: 1, OH: 6, OW: 10, Upsample: true},
	{N: 1, H: 3, W: 2, C: 4, O: 5, KH: 3, KW: 3, Stride: 1, PadT: 1, PadL: 1, OH: 6, OW: 4, Upsample: true},
	{N: 2, H: 8, W: 6, C: 20, O: 36, KH: 3, KW: 3, Stride: 2, PadT: 1, PadL: 1, OH: 4, OW: 3},
	{N: 1, H: 7, W: 9, C: 36, O: 20, KH: 3, KW: 3, Stride: 2, PadT: 0, PadL: 0, OH: 4, OW: 5}, // the VAE's: padding below and to the right
	{N: 1, H: 10, W: 8, C: 3, O: 20, KH: 8, KW: 8, Stride: 2, PadT: 3, PadL: 3, OH: 5, OW: 4},
	{N: 2, H: 5, W: 3, C: 20, O: 17, KH: 1, KW: 1, Stride: 1, OH: 5, OW: 3},
	{N: 1, H: 6, W: 5, C: 18, O: 8, KH: 1, KW: 1, Stride: 2, OH: 3, OW: 3},
	{N: 1, H: 7, W: 8, C: 18, O: 20, KH: 3, KW: 3, Stride: 3, PadT: 1, PadL: 2, OH: 3, OW: 3},
	{N: 1, H: 3, W: 5, C: 6, O: 20, KH: 3, KW: 3, Stride: 2, PadT: 1, PadL: 1, OH: 3, OW: 5, Upsample: true},
	{N: 1, H: 4, W: 9, C: 16, O: 20, KH: 1, KW: 3, Stride: 1, PadL: 1, OH: 4, OW: 9},
	{N: 2, H: 48, W: 50, C: 16, O: 20, KH: 3, KW: 3, Stride: 1, PadT: 1, PadL: 1, OH: 48, OW: 50},
}

// Bounds as parts of the largest output: Winograd's transforms lose about a digit.
func convTolerance(o Options) float64 {
	if o.DirectConv {
		return 2e-6
	}
	return 2e-5
}

func TestConv(t *testing.T) {
	for _, o := range []Options{{}, {DirectConv: true}} {
		t.Run(fmt.Sprintf("direct=%v", o.DirectConv), func(t *testing.T) {
			forEach(t, o, func(t *testing.T, backends []*Backend) { testConv(t, backends, convTolerance(o)) })
		})
	}
}

func testConv(t *testing.T, backends []*Backend, tol float64) {
	for k, c := range convs {
		dtype := halves[k%3]
		src := packed(t, 1, dtype, c.O, c.C, c.KH, c.KW)
		w, err := backends[0].Pack(src)
		if err != nil {
			t.Fatal(err)
		}
		r, _ := reference.Pack(src)
		free := values(t, 2, c.O*c.C*c.KH*c.KW)
		x, dy := values(t, 3, c.N*c.H*c.W*c.C), values(t, 4, c.Rows()*c.O)
		addY, addX := values(t, 5, len(dy)), values(t, 6, len(x))
		e := kernels.Epilogue{Bias: values(t, 7, c.O), PerItem: values(t, 8, c.N*c.O)}
		name := fmt.Sprintf("%+v %s", c, dtype)

		y, dx, dw := make([]float32, len(dy)), make([]float32, len(x)), make([]float32, len(free))
		reference.Conv2d(y, x, r, c, kernels.Epilogue{})
		check(t, "Conv2d "+name, backends, y, nil, tol, func(b *Backend, y []float32) { b.Conv2d(y, x, w, c, kernels.Epilogue{}) })
		ea := e
		ea.Add = addY
		reference.Conv2d(y, x, r, c, ea)
		check(t, "Conv2d, add is y "+name, backends, y, addY, tol, func(b *Backend, y []float32) {
			ea := e
			ea.Add = y
			b.Conv2d(y, x, w, c, ea)
		})
		reference.Conv2dGrad(dx, dy, r, c, nil)
		check(t, "Conv2dGrad "+name, backends, dx, nil, tol, func(b *Backend, dx []float32) { b.Conv2dGrad(dx, dy, w, c, nil) })
		reference.Conv2dGrad(dx, dy, r, c, addX)
		check(t, "Conv2dGrad, add is dx "+name, backends, dx, addX, tol, func(b *Backend, dx []float32) { b.Conv2dGrad(dx, dy, w, c, dx) })

		reference.ConvFree(y, x, free, c, e)
		check(t, "ConvFree "+name, backends, y, nil, tol, func(b *Backend, y []float32) { b.ConvFree(y, x, free, c, e) })
		reference.ConvFreeGrad(dx, dy, free, c, addX)
		check(t, "ConvFreeGrad "+name, backends, dx, nil, tol, func(b *Backend, dx []float32) { b.ConvFreeGrad(dx, dy, free, c, addX) })
		reference.ConvWeightGrad(dw, dy, x, c)
		check(t, "ConvWeightGrad "+name, backends, dw, nil, tol, func(b *Backend, dw []float32) { b.ConvWeightGrad(dw, dy, x, c) })
	}
}

// A matrix as the kernel of a 1×1 convolution.
func TestConvOfMatrix(t *testing.T) {
	forEach(t, Options{}, func(t *testing.T, backends []*Backend) {
		c := kernels.Conv{N: 1, H: 3, W: 4, C: 20, O: 24, KH: 1, KW: 1, Stride: 1, OH: 3, OW: 4}
		src := packed(t, 1, tensor.F16, c.O, c.C)
		w, _ := backends[0].Pack(src)
		r, _ := reference.Pack(src)
		x, y := values(t, 2, 12*c.C), make([]float32, 12*c.O)
		reference.Linear(y, x, r, 12, kernels.Epilogue{})
		check(t, "Conv2d", backends, y, nil, 2e-6, func(b *Backend, y []float32) { b.Conv2d(y, x, w, c, kernels.Epilogue{}) })
	})
}
