// Package extract makes an adapter out of the difference between two models: the nearest one of an algorithm's form, layer by layer.
//
// A [Model] is one side: a base or what was trained from it. [Run] compares the two module by module, several modules at a time within a bound on memory, skips what is
// equal or differs by the rounding of its file only, and fits each change Δ = tuned − base. Errors in the [Report] are those of the factors as they are stored.
//
// Δ is a matrix [O,I·kh·kw]; flat forms of kernels are the row-major ones of the files. Results depend on the two models and the options, never on workers or timing.
//
// Start at [Run], then layer.go and lora.go. Formulas: Eckart and Young (1936) for low rank, Van Loan and Pitsianis (1993) for Kronecker products, Schönemann (1966) for
// rotations.
package extract
