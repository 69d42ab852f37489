package optim

import (
	"math"

	"lycoris/internal/kernels"
)

// Param is one trained tensor. Its buffers are of equal length and live where the backend keeps them.
type Param struct {
	Name  string    // unique within a run
	Value []float32 // read by the step's program, written by the optimizer
	Grad  []float32 // written by the step's program
	M, V  []float32 // first and second moment, set by NewAdamW

	// Origin returns the frozen values that Value is a difference to, a weight's or an array: weight decay then pulls their sum towards zero. nil: Value alone.
	Origin func() (kernels.Weight, []float32)
	// Idle is set before a step that has no gradient for the parameter: the step changes nothing of it and isn't counted, as torch does where a gradient is
	// None.
	Idle bool

	steps int // updates made of it
}

// Group is a list of parameters with one learning rate.
type Group struct {
	Name   string  // "unet", "text_encoder"
	LR     float64 // before the schedule
	Params []*Param
}

// GlobalNorm returns the L2 norm of all gradients together, summed in the order of params.
func GlobalNorm(b kernels.Backend, params []*Param) float64 {
	var sum float64
	for _, p := range params {
		sum += b.SumSquares(p.Grad)
	}
	return math.Sqrt(sum)
}

// ClipFactor returns what gradients of that norm are multiplied by so that it doesn't exceed limit: min(1, limit/(norm+1e-6)), as torch's
// clip_grad_norm_ does. A limit of 0 switches clipping off.
func ClipFactor(norm, limit float64) float64 {
	if limit <= 0 {
		return 1
	}
	return min(1, limit/(norm+1e-6))
}

// Params returns the parameters of all groups, in order.
func Params(groups []Group) []*Param {
	var all []*Param
	for _, g := range groups {
		all = append(all, g.Params...)
	}
	return all
}
