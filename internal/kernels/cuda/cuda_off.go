//go:build !cuda || !cgo

package cuda

// Built tells whether this build can use GPUs.
const Built = false

// Devices returns no device: this build has no CUDA.
func Devices() []Device { return nil }

// WhyAbsent says that this build has no CUDA, and which has.
func WhyAbsent() string { return "built without CUDA; make cuda-build makes the build with it" }
