// Package ref computes the op set in plain Go: the definition of right, and what a build without cgo runs.
//
// One file per family of ops. Values are float32; every sum and every formula is computed in float64 and rounded once, when it is stored.
// Loops follow the formula in the comment above them, in the order of the memory where that costs no clarity. One thread, no state.
// A [Backend] may be used from several goroutines as long as their outputs differ.
package ref

import (
	"fmt"

	"lycoris/internal/kernels"
)

// Backend is the reference implementation of [kernels.Backend].
type Backend struct{}

var _ kernels.Backend = Backend{}

// Open returns the reference backend.
func Open() kernels.Backend { return Backend{} }

// Name returns "ref".
func (Backend) Name() string { return "ref" }

// ScratchBytes returns what an op takes beside its operands: only the attention ops and rotations keep anything, see attention.go and cayley.go.
func (Backend) ScratchBytes(size any) int64 {
	switch s := size.(type) {
	case kernels.Attention:
		return 16 * int64(s.TQ) * int64(s.TK)
	case kernels.Cayley:
		return 8 * int64(s.N+2) * int64(s.S) * int64(s.S)
	}
	return 0
}

// check panics unless an operand of an op has the length its sizes ask for.
func check(op, operand string, got, want int) {
	if got != want {
		panic(fmt.Sprintf("ref: %s: len(%s) = %d, want %d", op, operand, got, want))
	}
}

// checkOptional is check for an operand that may be nil.
func checkOptional(op, operand string, s []float32, want int) {
	if s != nil {
		check(op, operand, len(s), want)
	}
}

// require panics with a message about the sizes of an op when they can't be.
func require(ok bool, op, format string, args ...any) {
	if !ok {
		panic("ref: " + op + ": " + fmt.Sprintf(format, args...))
	}
}

// dot returns Σ a[i]·b[i].
func dot(a, b []float32) float64 {
	var sum float64
	for i, v := range a {
		sum += float64(v) * float64(b[i])
	}
	return sum
}

// at returns s[i], or 0 when the optional operand s is nil.
func at(s []float32, i int) float64 {
	if s == nil {
		return 0
	}
	return float64(s[i])
}
