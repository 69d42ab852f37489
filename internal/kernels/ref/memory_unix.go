//go:build unix

package ref

import (
	"syscall"
	"unsafe"

	"lycoris/internal/fault"
)

// Alloc returns n zeroed floats from anonymous memory of the system, which begins at a page boundary.
func (Backend) Alloc(n int) ([]float32, error) {
	require(n >= 0, "Alloc", "n = %d, want 0 or more", n)
	if n == 0 {
		return []float32{}, nil
	}
	bytes, err := syscall.Mmap(-1, 0, 4*n, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return nil, fault.New(fault.Memory, "", "can't get %d bytes of memory: %w", 4*n, err)
	}
	return unsafe.Slice((*float32)(unsafe.Pointer(&bytes[0])), n), nil
}

// Free gives memory back that Alloc returned, the whole of it.
func (Backend) Free(s []float32) {
	if len(s) == 0 {
		return
	}
	if err := syscall.Munmap(unsafe.Slice((*byte)(unsafe.Pointer(&s[0])), 4*len(s))); err != nil {
		panic("ref: Free: not a whole buffer from Alloc: " + err.Error())
	}
}
