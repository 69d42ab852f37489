// Package tensor holds arrays as they lie in files: bytes with an element type and a shape.
//
// A [Tensor] is row-major and little-endian; its bytes may belong to a larger buffer. [Tensor.Float32] converts. Shapes are []int, the
// empty shape is a scalar. Nothing here computes: that is internal/kernels, reached through internal/graph.
//
// Reading and writing safetensors files is in safetensors.go; start there.
package tensor

import (
	"fmt"
	"slices"
)

// Tensor is an array in the element type of its file.
type Tensor struct {
	DType DType
	Shape []int
	Data  []byte // row-major, little-endian, Elems(Shape)*DType.Size() bytes
}

// Elems returns the number of elements of shape; 1 for a scalar.
func Elems(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

// SameShape reports whether a and b are equal shapes.
func SameShape(a, b []int) bool { return slices.Equal(a, b) }

// FormatShape writes a shape as in messages: [320 4 3 3].
func FormatShape(shape []int) string { return fmt.Sprint(shape) }
