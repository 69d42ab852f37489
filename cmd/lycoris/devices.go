package main

// device is one accelerator as version and doctor show it.
type device struct {
	Name        string `json:"name"` // cuda:0
	Model       string `json:"model"`
	MemoryBytes uint64 `json:"memory_bytes"`
	Capability  string `json:"capability"`
}

// devices returns the accelerators that this build can use on this machine.
func devices() []device { return []device{} }
