//go:build !cgo

// Package cpu computes the op set in C; this build was made without cgo and has no engine: see the ref package.
package cpu

import (
	"lycoris/internal/fault"
	"lycoris/internal/kernels"
)

// Options choose how the engine runs.
type Options struct {
	Threads    int    // threads in all, the caller's included; 0 = one per processor
	ISA        string // "auto" or "" = the best the machine has; or one of [ISAs]
	DirectConv bool   // compute 3×3 convolutions directly instead of with Winograd's method
}

// Backend is the CPU engine, which this build lacks; no value of it exists.
type Backend struct{ kernels.Backend }

// ISAs returns the instruction sets that this build can run: none.
func ISAs() []string { return nil }

// Open returns a fault.Device error: this build has no C engine.
func Open(Options) (*Backend, error) {
	return nil, fault.New(fault.Device, "", "this build has no C engine (it was made without cgo)").
		Advise("build with CGO_ENABLED=1 and a C compiler, or choose the ref device, which is slow")
}

// Close does nothing.
func (*Backend) Close() {}

// Threads returns 0.
func (*Backend) Threads() int { return 0 }
