// Package kernelstest is the suite that every kernels.Backend passes: each op against package ref, the definition of right.
//
// A case runs an op on ref and twice on the backend: on buffers at a 64-byte boundary and on buffers one float off it. Outputs begin as NaN,
// so that an element left out shows, and lie between canaries, so that an overrun shows; operands that are only read are compared afterwards.
// Both runs must give the same bits: results depend on inputs and sizes only. Data go through Upload and Download, so a device backend can run it.
//
// [Run] is the way in, [Bounds] the errors allowed. Random inputs are the same in every run.
package kernelstest

import (
	"testing"

	"lycoris/internal/kernels"
)

// Tolerance bounds the errors against ref: largest absolute error over largest absolute value (or over the size that values have as a rule,
// where a case has few). Ops that only move or multiply single values must be exact and have no bound.
type Tolerance struct {
	Linear    float64 // linear, matmul, direct convolution and weight gradient: float32 sums of up to a few thousand products
	Winograd  float64 // 3×3 convolution with stride 1 and its gradients: the transforms' rounding comes on top
	Attention float64 // forward, and gradients by the recomputed softmax
	Norm      float64 // group and layer norm, forward and gradients, on data with a mean three times the deviation
	Function  float64 // activations: a polynomial exp or erf
	Sum       float64 // sums of blocks and losses
	Rounding  float64 // a few rounded operations per element: combinations, dropout, AdamW
}

// Bounds returns the project's bounds (the engine's numeric bounds for linear, convolution, attention and norms, measured with the C prototypes
// against float64; Rounding is four times half an ulp of the largest value).
func Bounds() Tolerance {
	return Tolerance{Linear: 2e-6, Winograd: 2e-5, Attention: 5e-6, Norm: 2e-6, Function: 1e-6, Sum: 2e-6, Rounding: 2.4e-7}
}

// Run compares every op of b with ref.
func Run(t *testing.T, b kernels.Backend, tol Tolerance) {
	for _, family := range []struct {
		name string
		run  func(*suite)
	}{
		{"memory", memory}, {"pack", pack}, {"linear", linear}, {"linear changed", linearChanged}, {"expand", expand}, {"matmul", matmul}, {"blockmatmul", blockMatMul}, {"conv", conv}, {"groupnorm", groupNorm}, {"layernorm", layerNorm},
		{"attention", attention}, {"activation", activation}, {"elementwise", elementwise}, {"blocks", blocks}, {"copy", copies}, {"rotation", rotation}, {"loss", loss},
		{"dropout", dropout}, {"adamw", adamW}, {"panics", panics},
	} {
		t.Run(family.name, func(t *testing.T) { family.run(newSuite(t, b, tol)) })
	}
}
