package inspect

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"lycoris/internal/runs"
)

// Run is the folder of a training run.
type Run struct {
	Name     string   `json:"name"`
	Status   string   `json:"status"`
	Step     int      `json:"step"`
	Steps    int      `json:"steps"`
	Saved    int      `json:"saved"` // step of the newest state
	Starts   int      `json:"starts"`
	Started  string   `json:"started"`
	Ended    string   `json:"ended,omitempty"`
	Exit     *int     `json:"exit"`
	LastLoss *float64 `json:"last_loss"`
	Average  *float64 `json:"average_loss"`
	Logged   int      `json:"logged_step"` // step of the last loss
	Adapters []Saved  `json:"adapters"`
	Warnings []string `json:"warnings,omitempty"`
}

// Saved is an adapter in a run's folder.
type Saved struct {
	Name  string `json:"name"`
	Bytes int64  `json:"bytes"`
}

func (r *Report) run(dir string) error {
	info, err := runs.Read(dir)
	if err != nil {
		return err
	}
	r.Kind = "run"
	run := &Run{Name: info.Name, Status: string(info.Status), Step: info.Step, Steps: info.Steps, Saved: info.Saved, Starts: info.Part, Exit: info.Exit, Warnings: info.Warnings,
		Started: info.Started.Format("2006-01-02T15:04:05Z07:00"), Adapters: []Saved{}}
	if info.Ended != nil {
		run.Ended = info.Ended.Format("2006-01-02T15:04:05Z07:00")
	}
	run.readLosses(filepath.Join(dir, "metrics.jsonl"))
	entries, _ := os.ReadDir(dir) // run.json was read: a folder that vanishes now has no adapters
	for _, e := range entries {
		if stat, err := e.Info(); err == nil && strings.HasSuffix(e.Name(), ".safetensors") && !strings.HasPrefix(e.Name(), ".") {
			run.Adapters = append(run.Adapters, Saved{e.Name(), stat.Size()})
		}
	}
	slices.SortFunc(run.Adapters, func(a, b Saved) int { return strings.Compare(a.Name, b.Name) })
	r.Run = run
	return nil
}

// readLosses keeps the last loss. A line that doesn't parse, as the last one of a run that was killed, is passed over.
func (r *Run) readLosses(path string) {
	f, err := os.Open(path)
	if err != nil {
		return
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(make([]byte, 1<<16), 1<<20)
	for lines.Scan() {
		var line struct {
			Type    string   `json:"type"`
			Step    int      `json:"step"`
			Loss    *float64 `json:"loss"`
			Average *float64 `json:"loss_avg"`
		}
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Type == "step" {
			r.LastLoss, r.Average, r.Logged = line.Loss, line.Average, line.Step
		}
	}
}
