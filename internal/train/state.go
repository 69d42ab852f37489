package train

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"lycoris/internal/config"
	"lycoris/internal/fault"
	"lycoris/internal/optim"
	"lycoris/internal/runs"
	"lycoris/internal/tensor"
)

// Files of a state folder.
const (
	stateAdapter   = "adapter.safetensors"   // every factor in float32, the scalars of max norm included
	stateOptimizer = "optimizer.safetensors" // both moments of every trained factor
	stateProgress  = "progress.json"
)

// progressFile is what else an update depends on. All random numbers are addressed by the update, so there is nothing to remember of them.
type progressFile struct {
	Step     int       `json:"step"`
	Losses   []float64 `json:"losses"` // of the last updates, for the average
	DataHash string    `json:"data_hash"`
	Model    string    `json:"model"`        // identity of the model's files, quick to tell
	Content  string    `json:"model_sha256"` // hash of what is in them
}

// stateOverhead is more than the headers and the small files of a state and an adapter take.
const stateOverhead = 1 << 20

// saveBytes returns what the disk must have free for the next state and the adapter.
func (t *trainer) saveBytes() int64 {
	var floats int64
	for _, f := range t.network.Factors() {
		n := int64(tensor.Elems(f.Param.Shape))
		floats += 2 * n // in the state, in the adapter
		if t.engine.trained[f.Param] {
			floats += 2 * n // both moments
		}
	}
	return 4*floats + stateOverhead
}

// saveState writes a state of the last finished update; the older ones beyond save.state_keep go when it is on disk.
func (t *trainer) saveState() error {
	if t.saved == t.done && t.done > 0 {
		return nil
	}
	began := time.Now()
	if err := t.opt.Run.CheckSpace(t.saveBytes()); err != nil {
		return err
	}
	var factors, moments []tensor.Lazy
	for _, f := range t.network.Factors() {
		factors = append(factors, t.stored(f.Param.Name, f.Param.Shape, f.Param.Value))
	}
	for _, a := range t.optimizer.Moments() {
		moments = append(moments, t.stored(a.Name, []int{len(a.Data)}, a.Data))
	}
	for _, a := range t.optimizer.Counts() {
		moments = append(moments, tensor.Lazy{Name: a.Name, DType: tensor.F32, Shape: []int{len(a.Data)},
			Data: func() ([]byte, error) { return tensor.FromFloat32(tensor.F32, []int{len(a.Data)}, a.Data).Data, nil }})
	}
	content, err := t.modelHash()
	if err != nil {
		return err
	}
	progress, err := json.Marshal(progressFile{Step: t.done, Losses: t.losses, DataHash: t.feed.hash(), Model: t.modelID(), Content: content})
	if err != nil {
		return err
	}
	s, err := t.opt.Run.SaveState(t.done, map[string]func(io.Writer) error{
		stateAdapter:   func(w io.Writer) error { return tensor.EncodeStream(w, factors, nil) },
		stateOptimizer: func(w io.Writer) error { return tensor.EncodeStream(w, moments, nil) },
		stateProgress:  func(w io.Writer) error { _, err := w.Write(progress); return err },
	})
	if err != nil {
		return err
	}
	t.saved, t.savedAt = t.done, time.Now()
	if err := t.opt.Run.Update(func(i *runs.Info) { i.Step, i.Saved = t.done, t.done }); err != nil {
		return err
	}
	line := runs.FileLine{Kind: "state", Step: t.done, Path: t.relative(s.Dir), Bytes: s.Bytes, SHA256: s.SHA256, Seconds: time.Since(began).Seconds()}
	if err := t.metrics.Write(line); err != nil {
		return err
	}
	return t.opt.Run.PruneStates(t.cfg.Save.StateKeep)
}

// stored is an array of the backend that is brought to the host when it is written.
func (t *trainer) stored(name string, shape []int, data []float32) tensor.Lazy {
	return tensor.Lazy{Name: name, DType: tensor.F32, Shape: shape, Data: func() ([]byte, error) {
		host := make([]float32, len(data))
		t.backend.Download(host, data)
		return tensor.FromFloat32(tensor.F32, shape, host).Data, nil
	}}
}

// modelID stands for the base model and the VAE: a replaced file is noticed on resume.
func (t *trainer) modelID() string {
	id := t.base.Identity()
	if t.vae != t.base {
		id += " " + t.vae.Identity()
	}
	return id
}

// modelHash is what modelID stands for: a copy of the files has it too.
func (t *trainer) modelHash() (string, error) {
	h, err := t.base.Hash()
	if err == nil && t.vae != t.base {
		var v string
		v, err = t.vae.Hash()
		h += " " + v
	}
	return h, err
}

// fromAdapter is the end of an advice: how to take along what was learned, where there is an adapter.
func (t *trainer) fromAdapter() string {
	if a := t.opt.Run.Info().Adapter; a != "" {
		return " from the adapter: --network-weights " + t.opt.Run.Path(a)
	}
	return ""
}

// sameModel compares the model with the one of a state; its content is read only where the files are others.
func (t *trainer) sameModel(p progressFile) error {
	if p.Model == t.modelID() {
		return nil
	}
	h, err := t.modelHash()
	if err == nil && h != p.Content {
		err = fault.New(fault.Resume, t.opt.Run.Dir(), "the model has changed since the run began: its SHA-256 was %.12s, is %.12s", p.Content, h).
			Advise("put the old file back, or start a new run%s", t.fromAdapter())
	}
	return err
}

func (t *trainer) relative(path string) string {
	if rel, err := filepath.Rel(t.opt.Run.Dir(), path); err == nil {
		return rel
	}
	return path
}

// restore goes on from the newest whole state. A run that never saved one starts again.
func (t *trainer) restore() error {
	if !t.opt.Resume {
		return nil
	}
	run := t.opt.Run
	s, skipped, err := run.LatestState()
	for _, k := range skipped {
		t.in.UI.Warn(fmt.Sprintf("state %s is damaged (%s) and is not used", k.Dir, k.Reason), "")
		line := runs.EventLine{Level: "warn", Code: "state_skipped", Message: k.Reason, Details: map[string]any{"state": t.relative(k.Dir)}}
		if e := t.metrics.Write(line); e != nil {
			return e
		}
	}
	if err != nil {
		if run.Info().Saved == 0 && len(skipped) == 0 {
			return nil
		}
		return err
	}
	var p progressFile
	if err := readState(s, stateProgress, func(b []byte) error { return json.Unmarshal(b, &p) }); err != nil {
		return err
	}
	if p.DataHash != t.feed.hash() {
		return fault.New(fault.Resume, run.Dir(), "the pictures or captions have changed since the run began: was %.12s, is %.12s", p.DataHash, t.feed.hash()).
			Advise("put the old ones back, or start a new run%s", t.fromAdapter())
	}
	if err := t.sameModel(p); err != nil {
		return err
	}
	if t.steps < p.Step {
		return fault.BadUsage("--steps", "%d is less than the %d steps that the run has done", t.steps, p.Step).Advise("give %d or more", p.Step)
	}
	if err := t.restoreFactors(s); err != nil {
		return err
	}
	moments, err := stateTensors(s, stateOptimizer)
	if err != nil {
		return err
	}
	o := optim.State{Steps: p.Step}
	for name, m := range moments {
		o.Arrays = append(o.Arrays, optim.Array{Name: name, Data: m.Float32()})
	}
	if err := t.optimizer.Restore(o); err != nil {
		return fault.New(fault.Resume, s.Dir, "doesn't fit the run: %w", err)
	}
	t.done, t.saved, t.losses = p.Step, p.Step, p.Losses
	return nil
}

func (t *trainer) restoreFactors(s runs.State) error {
	values, err := stateTensors(s, stateAdapter)
	if err != nil {
		return err
	}
	for _, f := range t.network.Factors() {
		v, ok := values[f.Param.Name]
		if !ok || !tensor.SameShape(v.Shape, f.Param.Shape) {
			return fault.New(fault.Resume, s.Dir, "the state's %q has shape %v, the run's has %v", f.Param.Name, v.Shape, f.Param.Shape)
		}
		f.Host = v.Float32()
	}
	t.network.Push(t.backend)
	return nil
}

func readState(s runs.State, name string, use func([]byte) error) error {
	r, err := s.Open(name)
	if err != nil {
		return err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err == nil {
		err = use(bytes.TrimSpace(b))
	}
	if err != nil {
		return fault.New(fault.Resume, filepath.Join(s.Dir, name), "can't be read: %w", err)
	}
	return nil
}

func stateTensors(s runs.State, name string) (map[string]tensor.Tensor, error) {
	f, err := tensor.OpenFile(filepath.Join(s.Dir, name))
	if err != nil {
		return nil, resumeFault(err)
	}
	defer f.Close()
	all := map[string]tensor.Tensor{}
	for _, n := range f.Names() {
		if all[n], err = f.Read(n); err != nil {
			return nil, resumeFault(err)
		}
	}
	return all, nil
}

// resumeFault turns a damaged input into a state that can't be used.
func resumeFault(err error) error {
	var e *fault.Error
	if errors.As(err, &e) {
		return &fault.Error{Kind: fault.Resume, Path: e.Path, Message: e.Message, Err: err}
	}
	return err
}

// hashConfig returns a hash of every value that defines the run's result: not where it is kept, when it is saved or on how many threads it runs. Of
// paths only the last part counts: a resumed run has them from the root, whatever was typed at the start.
func hashConfig(c *config.Config) string {
	d := *c
	d.Model.Path, d.Model.VAE, d.Validate.Path = lastPart(c.Model.Path), lastPart(c.Model.VAE), lastPart(c.Validate.Path)
	d.Data = slices.Clone(c.Data)
	for i := range d.Data {
		d.Data[i].Path = lastPart(d.Data[i].Path)
	}
	d.Out, d.Threads, d.CPUISA, d.Device = "", 0, "", ""
	d.Cache, d.Save, d.Sample, d.Log = config.Cache{}, config.Save{}, config.Sample{}, config.Log{}
	sum := sha256.Sum256(fmt.Appendf(nil, "%+v", d))
	return hex.EncodeToString(sum[:])
}

// lastPart returns the name of what a path leads to, of "." too; empty for none.
func lastPart(path string) string {
	if path == "" {
		return ""
	}
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	return filepath.Base(path)
}

func fileSize(path string) int64 {
	if st, err := os.Stat(path); err == nil {
		return st.Size()
	}
	return 0
}
