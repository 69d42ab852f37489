//go:build cgo

// Package cpu computes the op set in C, with the widest vectors the machine has.
//
// A [Backend] owns a pool of threads, scratch memory and the kernel table of one instruction set (avx512, avx2, portable; "wide" is the 16-lane
// code compiled for AVX2, for tests). Go checks sizes, C computes: a C function can't fail. Memory is mapped outside the Go heap. Results depend
// on inputs, sizes and instruction set, never on the number of threads. A Backend isn't safe for concurrent calls.
//
// Each family of kernels is NAME.h (contract), NAME_impl.h (code, compiled once per instruction set through kernels_impl.h), NAME.c (dispatch) and NAME.go
// (checks and binding). Start at gemm.h, which holds the one matrix kernel that linear layers, convolutions and MatMul share; simd.h has the vectors,
// pool.h the threads.
package cpu

// #cgo CFLAGS: -O3 -g1 -std=gnu11 -pthread -Wno-psabi
// #cgo LDFLAGS: -lm -lpthread
// #include <stdlib.h>
// #include "kernels.h"
import "C"

import (
	"fmt"
	"runtime"
	"strings"
	"unsafe"

	"lycoris/internal/fault"
	"lycoris/internal/kernels"
)

// Options choose how the engine runs.
type Options struct {
	Threads    int    // threads in all, the caller's included; 0 = one per processor
	ISA        string // "auto" or "" = the best the machine has; or one of [ISAs]
	DirectConv bool   // compute 3×3 convolutions directly instead of with Winograd's method: slower, ten times more exact
}

// Backend is the CPU engine. It implements kernels.Backend.
type Backend struct {
	c       *C.lyc_cpu
	isa     string
	direct  bool
	blocks  map[*float32]C.size_t // what Alloc gave out, with the mapped size
	weights map[*weight]struct{}  // what Pack gave out
}

var _ kernels.Backend = (*Backend)(nil)

// isas lists the instruction sets in order of preference; "wide" is chosen by name only.
var isas = []string{"avx512", "avx2", "portable", "wide"}

// ISAs returns the instruction sets that this machine can run, best first; "wide" is last and never chosen by "auto".
func ISAs() []string {
	var out []string
	for _, isa := range isas {
		if table(isa) != nil {
			out = append(out, isa)
		}
	}
	return out
}

func table(isa string) *C.lyc_kernels {
	name := C.CString(isa)
	defer C.free(unsafe.Pointer(name))
	return C.lyc_kernels_for(name)
}

// Open starts an engine. A machine that lacks the instruction set asked for is a fault.Device error.
func Open(o Options) (*Backend, error) {
	isa := o.ISA
	if isa == "" || isa == "auto" {
		isa = ISAs()[0]
	}
	k := table(isa)
	if k == nil {
		return nil, fault.New(fault.Device, "", "this CPU can't run the %q kernels", isa).
			Advise("choose auto or one of: %s", strings.Join(ISAs(), ", "))
	}
	threads := o.Threads
	if threads == 0 {
		threads = runtime.NumCPU()
	}
	if threads < 1 || threads > 1024 {
		return nil, fault.New(fault.Usage, "", "%d threads are not possible", o.Threads).Advise("choose 1 to 1024, or 0 for one per processor")
	}
	pool := C.lyc_pool_open(C.int(threads))
	if pool == nil {
		return nil, fault.New(fault.Device, "", "can't start %d threads", threads).Advise("choose fewer threads")
	}
	c := (*C.lyc_cpu)(C.calloc(1, C.size_t(unsafe.Sizeof(C.lyc_cpu{}))))
	c.kernels, c.pool = k, pool
	return &Backend{c: c, isa: isa, direct: o.DirectConv, blocks: map[*float32]C.size_t{}, weights: map[*weight]struct{}{}}, nil
}

// Close ends the threads and frees all memory that is still allocated, by Alloc and Pack too. The Backend must not be used after.
func (b *Backend) Close() {
	for p, size := range b.blocks {
		C.lyc_unmap(unsafe.Pointer(p), size)
	}
	for w := range b.weights {
		C.lyc_unmap(w.c.data, C.size_t(w.bytes))
		w.c.data = nil
	}
	b.blocks, b.weights = nil, nil
	C.lyc_pool_close(b.c.pool)
	C.free(unsafe.Pointer(b.c))
	b.c = nil
}

// Name returns "cpu/" and the instruction set.
func (b *Backend) Name() string { return "cpu/" + b.isa }

// Threads returns the number of threads that compute.
func (b *Backend) Threads() int { return int(C.lyc_pool_threads(b.c.pool)) }

// Alloc returns n zeroed floats at a page boundary; without memory the error is of kind fault.Memory.
func (b *Backend) Alloc(n int) ([]float32, error) {
	if n == 0 {
		return []float32{}, nil
	}
	size := C.size_t(n) * 4
	p := C.lyc_map(size)
	if p == nil {
		return nil, outOfMemory(int64(size))
	}
	b.blocks[(*float32)(p)] = size
	return unsafe.Slice((*float32)(p), n), nil
}

// Free gives back what Alloc returned.
func (b *Backend) Free(x []float32) {
	if cap(x) == 0 {
		return
	}
	p := unsafe.SliceData(x)
	size, ok := b.blocks[p]
	if !ok {
		panic("cpu: Free: not a slice that Alloc returned")
	}
	delete(b.blocks, p)
	C.lyc_unmap(unsafe.Pointer(p), size)
}

// Upload copies src to dst; the lengths are equal.
func (b *Backend) Upload(dst, src []float32) {
	mustLen("Upload", "src", src, len(dst))
	copy(dst, src)
}

// Download copies src to dst; the lengths are equal.
func (b *Backend) Download(dst, src []float32) {
	mustLen("Download", "src", src, len(dst))
	copy(dst, src)
}

// reserve makes the scratch of the pool at least so large. It panics with a fault.Memory error where the system has no more: ops have no
// error to return, and the planner has counted ScratchBytes before.
func (b *Backend) reserve(shared, perThread int64) {
	if C.lyc_pool_reserve(b.c.pool, C.size_t(shared), C.size_t(perThread)) != 0 {
		panic(outOfMemory(shared + perThread*int64(b.Threads())))
	}
}

func outOfMemory(bytes int64) *fault.Error {
	return fault.New(fault.Memory, "", "the system refused %.1f MiB of memory", float64(bytes)/(1<<20)).
		Advise("lower the batch size or the resolution, turn checkpointing on, or close other programs")
}

// mustLen panics unless x has n elements: a wrong length is a bug of the caller.
func mustLen(op, name string, x []float32, n int) {
	if len(x) != n {
		panic(fmt.Sprintf("cpu: %s: len(%s) = %d, want %d", op, name, len(x), n))
	}
}

// mustLenOrNil is mustLen for an operand that may be nil.
func mustLenOrNil(op, name string, x []float32, n int) {
	if x != nil {
		mustLen(op, name, x, n)
	}
}

// ptr returns x's first element for C; nil where x is empty.
func ptr(x []float32) *C.float {
	return (*C.float)(unsafe.Pointer(unsafe.SliceData(x)))
}
