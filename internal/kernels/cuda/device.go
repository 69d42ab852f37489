// Package cuda is the door to NVIDIA's GPUs: which there are, or why there is none. The kernels that implement the op set come behind it.
//
// A [Device] is a GPU that the driver shows. [Devices] asks the driver the first time; a driver that is missing, too old, broken, crashing or silent
// means no devices and a sentence of [WhyAbsent], never the end of the program. All of it is safe for concurrent use.
//
// The package is built with the tag cuda (make cuda-build), over gorgonia.org/cu and the stand-in for -lcuda in libcuda/, so that the same
// program starts with and without a driver; without the tag it knows no device. Start at cuda.go, then libcuda/shim.c; the reasons are in
// docs/design/0006-cuda-door.md.
package cuda

// Device is a GPU.
type Device struct {
	Index             int    // as the driver counts, after CUDA_VISIBLE_DEVICES
	Name              string // the product's name, in the driver's words
	MemoryBytes       uint64 // all of its memory, used or not
	ComputeCapability string // "8.6"
}
