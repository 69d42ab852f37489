// Package optim moves parameters: optimizers and learning-rate schedules.
//
// A [Param] is a trained tensor with its gradient, both in the memory of a kernels.Backend. A [Group] is a list of them that share a
// learning rate. An [AdamW] owns the moments of all groups. A [Schedule] gives the learning rate of a step.
//
// Values, gradients and moments are float32; rates and all scalar arithmetic are float64. Parameters are updated and summed in the order of the groups, so
// the result depends on nothing else. Not safe for concurrent use.
//
// Start at [NewAdamW] and [AdamW.Step]. Semantics are those of torch.optim and of the schedules of Hugging Face transformers.
package optim
