package main

import (
	"fmt"

	"lycoris/internal/kernels/cuda"
)

// device is one accelerator as version and doctor show it.
type device struct {
	Name        string `json:"name"` // cuda:0
	Model       string `json:"model"`
	MemoryBytes uint64 `json:"memory_bytes"`
	Capability  string `json:"capability"`
}

// cudaInfo is what version and doctor say of CUDA itself.
type cudaInfo struct {
	Built     bool   `json:"built"`      // this build can use GPUs
	WhyAbsent string `json:"why_absent"` // why there is no device, or what is wrong with one that is missing; else empty
}

// devices returns the accelerators that this build can use on this machine, and why there aren't more.
func devices() ([]device, cudaInfo) {
	out := []device{}
	for _, d := range cuda.Devices() {
		out = append(out, device{Name: fmt.Sprintf("cuda:%d", d.Index), Model: d.Name, MemoryBytes: d.MemoryBytes, Capability: d.ComputeCapability})
	}
	return out, cudaInfo{Built: cuda.Built, WhyAbsent: cuda.WhyAbsent()}
}
