// Package merge bakes adapters into a base model: W' = round(W + Σ c·ΔW), for every algorithm, tensor by tensor.
//
// A [Plan] is what headers say: which tensors change, by which modules of which adapters, at which weights. Everything that can be wrong with names, shapes and
// families is found there, before weights are read. [Plan.Run] writes the new model: tensors that don't change are copied as bytes; of those that do, blocks of rows
// are read, changed and written by several goroutines, each block at its place in the file, so that reading, computing and writing overlap and the
// memory is bounded by blocks, not by the model. (Algorithms that need a weight as a whole, the orthogonal ones, GLoRA, GLoKr and T-LoRA, hold that weight.)
//
// Adapters act in the order given, each on the unrounded result of the one before. Sums are float64 and there is one rounding, to nearest even: a weight of 16 bits
// gets the value that exact arithmetic would give it. The products of low-rank factors come from the backend in float32 with a bound on their error; the few
// results that the bound leaves open, next to a tie, are computed again in float64. Formulas: the reference tools page, section 1, and formats, section 5.
//
// [Join] makes one adapter of several instead, layer by layer: exactly where the algebra allows it (products side by side, whole differences added, factors multiplied),
// by the nearest product of fewer ranks where that is asked for, with the error told. Start at join.go, then joinlayer.go.
package merge
