// Package linalg decomposes matrices for adapters and tools: singular values and vectors. Matrices are row-major; sums are in float64; results depend on the
// input alone. Start at [TopSVD]; for a product of two thin factors, at [Product].
package linalg
