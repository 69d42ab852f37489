package train

import (
	"bufio"
	"os"
	"strconv"
	"strings"

	"lycoris/internal/fault"
	"lycoris/internal/nn"
	"lycoris/internal/optim"
	"lycoris/internal/pipeline"
	"lycoris/internal/tensor"
)

// Memory is what a run takes, known from headers.
type Memory struct {
	Weights   int64 `json:"weights_bytes"` // of the parts that are in memory while training
	Arena     int64 `json:"buffers_bytes"` // buffers of the largest step
	Scratch   int64 `json:"scratch_bytes"` // what kernels need besides
	Adapter   int64 `json:"adapter_bytes"` // values and gradients
	Optimizer int64 `json:"optimizer_bytes"`
	Recompute bool  `json:"checkpointing"`   // checkpointing was chosen
	Available int64 `json:"available_bytes"` // on the machine, 0 if unknown
}

// Peak returns the sum while training.
func (m Memory) Peak() int64 { return m.Weights + m.Arena + m.Scratch + m.Adapter + m.Optimizer }

// planMemory plans every shape, chooses checkpointing and refuses a run that doesn't fit.
func (j *Job) planMemory() error {
	e := j.engine
	e.recompute = j.cfg.Train.Checkpointing == "true"
	m, err := j.measure()
	if err != nil {
		return err
	}
	m.Available = availableMemory()
	if j.cfg.Train.Checkpointing == "auto" && m.Available > 0 && m.Peak() > m.Available*8/10 {
		e.recompute, e.programs = true, map[programKey]*pipeline.Program{}
		available := m.Available
		if m, err = j.measure(); err != nil {
			return err
		}
		m.Available = available
	}
	j.Memory = m
	if m.Available > 0 && m.Peak() > m.Available {
		return fault.New(fault.Memory, "", "not enough memory: training needs %s, %s are free", tensor.FormatBytes(m.Peak()), tensor.FormatBytes(m.Available)).
			Advise("weights %s, buffers %s, optimiser %s\ntry a lower --batch-size, --resolution or --dim, or --set train.checkpointing=true",
				tensor.FormatBytes(m.Weights), tensor.FormatBytes(m.Arena+m.Scratch), tensor.FormatBytes(m.Adapter+m.Optimizer))
	}
	return nil
}

// measure plans the step for every shape.
func (j *Job) measure() (Memory, error) {
	m := Memory{Recompute: j.engine.recompute}
	stores := []*nn.Store{j.model.UNet}
	if j.engine.adaptsText {
		stores = append(stores, j.model.Text)
	}
	for _, s := range j.feed.shapes() {
		p, err := j.engine.program(s, true)
		if err != nil {
			return m, err
		}
		m.Arena, m.Scratch = max(m.Arena, p.ArenaBytes()), max(m.Scratch, p.ScratchBytes())
	}
	for _, s := range stores {
		m.Weights += s.Bytes()
	}
	m.Adapter = j.network.Bytes()
	var sizes []int
	for _, f := range j.network.Factors() {
		if !j.engine.trained[f.Param] {
			continue
		}
		for _, p := range partsOf("", f) {
			sizes = append(sizes, p.size())
		}
	}
	m.Optimizer = int64(optim.SlabFloats(sizes)) * 4
	return m, nil
}

// availableMemory returns what the machine and the control group leave to this process, 0 if unknown.
func availableMemory() int64 {
	free := meminfo("MemAvailable:")
	if limit, ok := readNumber("/sys/fs/cgroup/memory.max"); ok {
		used, _ := readNumber("/sys/fs/cgroup/memory.current")
		if left := limit - used; free == 0 || left < free {
			free = left
		}
	}
	return free
}

func meminfo(key string) int64 {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 1 && fields[0] == key {
			kib, _ := strconv.ParseInt(fields[1], 10, 64)
			return kib << 10
		}
	}
	return 0
}

func readNumber(path string) (int64, bool) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return n, err == nil
}

// residentMemory returns the memory that this process has now, and the machine's; 0 if unknown.
func residentMemory() (used, total int64) {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, 0
	}
	if fields := strings.Fields(string(b)); len(fields) > 1 {
		pages, _ := strconv.ParseInt(fields[1], 10, 64)
		used = pages * int64(os.Getpagesize())
	}
	return used, meminfo("MemTotal:")
}
