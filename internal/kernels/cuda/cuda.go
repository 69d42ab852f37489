//go:build cuda && cgo

package cuda

// #cgo LDFLAGS: -lcuda -ldl -lpthread
// #include "libcuda/shim.h"
import "C"

import (
	"fmt"
	"sync"

	"gorgonia.org/cu"
)

// Built tells whether this build can use GPUs.
const Built = true

// Devices returns the GPUs that the driver shows and describes, in its order; none where [WhyAbsent] says why. The first call starts the driver, which
// takes a tenth of a second or more where there is one.
func Devices() []Device {
	devices, _ := query()
	return devices
}

// WhyAbsent returns one sentence, without a full stop, that says why there are no devices, or what was wrong with one that is left out. It is
// empty where every device is listed.
func WhyAbsent() string {
	_, why := query()
	return why
}

var query = sync.OnceValues(func() (devices []Device, why string) {
	if why := C.GoString(C.lyc_cuda_why_absent()); why != "" {
		return nil, why
	}
	n, err := cu.NumDevices()
	if err != nil {
		return nil, fmt.Sprintf("the CUDA driver does not count its devices: %v", err)
	}
	for i := range n {
		d, err := describe(i)
		if err != nil {
			why = fmt.Sprintf("the CUDA driver does not describe device %d: %v", i, err)
			continue
		}
		devices = append(devices, d)
	}
	return devices, why
})

// describe asks for the device with an index. libcuda/probe.c makes the same calls beforehand; a new one goes there too.
func describe(index int) (Device, error) {
	d, err := cu.GetDevice(index)
	if err != nil {
		return Device{}, err
	}
	name, err := d.Name()
	if err != nil {
		return Device{}, fmt.Errorf("name: %w", err)
	}
	memory, err := d.TotalMem()
	if err != nil {
		return Device{}, fmt.Errorf("memory: %w", err)
	}
	major, err := d.Attribute(cu.ComputeCapabilityMajor)
	if err != nil {
		return Device{}, fmt.Errorf("compute capability: %w", err)
	}
	minor, err := d.Attribute(cu.ComputeCapabilityMinor)
	if err != nil {
		return Device{}, fmt.Errorf("compute capability: %w", err)
	}
	return Device{Index: index, Name: name, MemoryBytes: uint64(memory), ComputeCapability: fmt.Sprintf("%d.%d", major, minor)}, nil
}
