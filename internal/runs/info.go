package runs

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"lycoris/internal/fault"
)

// Names in a run folder.
const (
	infoName    = "run.json"
	lockName    = "lock"
	metricsName = "metrics.jsonl"
	logName     = "train.log"
	stateDir    = "state"
	controlDir  = "control"
	infoSchema  = "lycoris.run/1"
)

// Status is what became of a run.
type Status string

// The statuses. Interrupted is never written: a reader sees it when a run says running and nobody holds its lock.
const (
	Running     Status = "running"
	Finished    Status = "finished"
	Stopped     Status = "stopped"
	Failed      Status = "failed"
	Diverged    Status = "diverged"
	Interrupted Status = "interrupted"
)

// Info is run.json.
type Info struct {
	Schema       string            `json:"schema"`
	ID           string            `json:"id"`
	Name         string            `json:"name"`
	Status       Status            `json:"status"`
	Step         int               `json:"step"`
	Steps        int               `json:"steps"`
	Saved        int               `json:"saved"` // step of the last state that was saved, 0: none was
	Part         int               `json:"part"`  // starts so far
	Started      time.Time         `json:"started"`
	Ended        *time.Time        `json:"ended"`
	Exit         *int              `json:"exit"`
	Adapter      string            `json:"adapter,omitempty"` // last one written, relative to the run folder
	Best         string            `json:"best,omitempty"`
	Warnings     []string          `json:"warnings,omitempty"`
	SkippedFiles []string          `json:"skipped_files,omitempty"`
	Versions     map[string]string `json:"versions,omitempty"` // program, go, kernels
	Preset       string            `json:"preset,omitempty"`
	PresetSHA256 string            `json:"preset_sha256,omitempty"`
	ModelSHA256  string            `json:"model_sha256,omitempty"`
	DataSHA256   string            `json:"data_sha256,omitempty"`
}

func newInfo(name string, now time.Time) Info {
	return Info{Schema: infoSchema, ID: newID(), Name: name, Started: now.UTC().Truncate(time.Millisecond)}
}

// readInfo reads run.json.
func readInfo(dir string) (Info, error) {
	path := filepath.Join(dir, infoName)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Info{}, err
	}
	if err != nil {
		return Info{}, fault.BadInput(path, "can't be read: %w", err)
	}
	var i Info
	if err := json.Unmarshal(data, &i); err != nil {
		return Info{}, fault.New(fault.Resume, path, "is damaged: %w", err).Advise("remove the folder or start a run under another --name")
	}
	if i.Schema != infoSchema {
		return Info{}, fault.New(fault.Resume, path, "has schema %q, this version knows %q", i.Schema, infoSchema)
	}
	return i, nil
}

// Info returns a copy of run.json as it is now.
func (r *Run) Info() Info {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.info
}

// Name returns what the run's adapters are called.
func (r *Run) Name() string { return r.Info().Name }

// SetName sets what the run's adapters are called, for a fresh run in a folder of another name.
func (r *Run) SetName(name string) {
	r.mu.Lock()
	r.info.Name = name
	r.mu.Unlock()
}

// Update changes run.json and replaces the file atomically.
func (r *Run) Update(change func(*Info)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.info)
	data, err := json.MarshalIndent(&r.info, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(r.Path(infoName), append(data, '\n'))
}

// Begin marks the run as running and counts the start.
func (r *Run) Begin(steps int) error {
	return r.Update(func(i *Info) {
		i.Status, i.Steps, i.Ended, i.Exit = Running, steps, nil, nil
		i.Part++
	})
}

// End marks the run as ended.
func (r *Run) End(status Status, step, exit int) error {
	now := r.now().UTC().Truncate(time.Millisecond)
	return r.Update(func(i *Info) { i.Status, i.Step, i.Ended, i.Exit = status, step, &now, &exit })
}

// Unbegin puts run.json back as it was before a start that was refused.
func (r *Run) Unbegin(before Info) error { return r.Update(func(i *Info) { *i = before }) }

// Read returns a run's Info for somebody who doesn't own it; a run that says running without an owner is [Interrupted].
func Read(dir string) (Info, error) {
	i, err := readInfo(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return Info{}, fault.BadInput(dir, "is not a run folder: it holds no %s", infoName)
	}
	if err != nil {
		return Info{}, err
	}
	if i.Status == Running && !isHeld(dir) {
		i.Status = Interrupted
	}
	return i, nil
}
