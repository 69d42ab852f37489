//go:build !unix

package ref

import "unsafe"

// Alloc returns n zeroed floats at a 64-byte boundary. On this system they are on the Go heap.
func (Backend) Alloc(n int) ([]float32, error) {
	require(n >= 0, "Alloc", "n = %d, want 0 or more", n)
	s := make([]float32, n+16)
	skip := int(-uintptr(unsafe.Pointer(&s[0]))%64) / 4
	return s[skip : skip+n : skip+n], nil
}

// Free leaves the memory to the garbage collector.
func (Backend) Free([]float32) {}
