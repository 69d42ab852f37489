package runs

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"lycoris/internal/fault"
)

const (
	manifestName   = "manifest.json"
	manifestSchema = "lycoris.state/1"
)

// manifest describes a state's files; the state is valid when they and the manifest's own text match it exactly.
type manifest struct {
	Schema string       `json:"schema"`
	Step   int          `json:"step"`
	Files  []stateEntry `json:"files"`  // by name
	SHA256 string       `json:"sha256"` // of the manifest with this field empty
}

type stateEntry struct {
	Name   string `json:"name"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// encode returns the manifest's text, which is the only one it may have.
func (m manifest) encode() []byte {
	m.SHA256 = ""
	plain, err := json.Marshal(m)
	if err != nil {
		panic("runs: a manifest can't be encoded: " + err.Error())
	}
	sum := sha256.Sum256(plain)
	m.SHA256 = hex.EncodeToString(sum[:])
	text, _ := json.MarshalIndent(m, "", "  ")
	return append(text, '\n')
}

// State is a complete set of files from which training goes on.
type State struct {
	Step  int
	Dir   string
	Bytes int64 // all files together
	// SHA256 is the manifest's, which covers every file.
	SHA256 string
	Files  []string // names, sorted
}

// Open opens a file of the state.
func (s State) Open(name string) (io.ReadCloser, error) {
	f, err := os.Open(filepath.Join(s.Dir, name))
	if err != nil {
		return nil, fault.New(fault.Resume, filepath.Join(s.Dir, name), "can't be read: %w", err)
	}
	return f, nil
}

// Skipped is a state that can't be used, and why.
type Skipped struct {
	Dir    string
	Reason string
}

func stateName(step int) string { return fmt.Sprintf("step-%08d", step) }

// SaveState writes the files of a state. When it returns without error the state is on the disk; before that the old ones are untouched.
// A state of the same step is replaced in one instant.
func (r *Run) SaveState(step int, files map[string]func(io.Writer) error) (State, error) {
	parent := r.Path(stateDir)
	tmp, err := os.MkdirTemp(parent, tempPrefix)
	if err != nil {
		return State{}, outputError(parent, err)
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return State{}, outputError(tmp, err)
	}
	final := filepath.Join(parent, stateName(step))
	m := manifest{Schema: manifestSchema, Step: step, Files: []stateEntry{}}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		e, err := writeHashed(filepath.Join(tmp, name), files[name])
		if err != nil {
			return State{}, outputError(filepath.Join(final, name), err)
		}
		m.Files = append(m.Files, e)
	}
	text := m.encode()
	if _, err := writeHashed(filepath.Join(tmp, manifestName), func(w io.Writer) error { _, err := w.Write(text); return err }); err != nil {
		return State{}, outputError(filepath.Join(final, manifestName), err)
	}
	if err := syncDir(tmp); err != nil {
		return State{}, err
	}
	if err := replaceDir(tmp, final); err != nil {
		return State{}, outputError(final, err)
	}
	if err := syncDir(parent); err != nil {
		return State{}, err
	}
	return m.state(final, text), nil
}

// state returns the State that the manifest describes.
func (m manifest) state(dir string, text []byte) State {
	var stored manifest
	if err := json.Unmarshal(text, &stored); err != nil {
		panic("runs: an own manifest doesn't parse: " + err.Error())
	}
	s := State{Step: m.Step, Dir: dir, SHA256: stored.SHA256}
	for _, e := range m.Files {
		s.Bytes += e.Bytes
		s.Files = append(s.Files, e.Name)
	}
	return s
}

// writeHashed writes and syncs a new file.
func writeHashed(path string, write func(io.Writer) error) (stateEntry, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return stateEntry{}, err
	}
	defer f.Close()
	sum := sha256.New()
	buf := bufio.NewWriterSize(f, 1<<20)
	count := &counter{}
	if err := write(io.MultiWriter(buf, sum, count)); err != nil {
		return stateEntry{}, err
	}
	if err := buf.Flush(); err != nil {
		return stateEntry{}, err
	}
	if err := f.Sync(); err != nil {
		return stateEntry{}, err
	}
	if err := f.Close(); err != nil {
		return stateEntry{}, err
	}
	return stateEntry{Name: filepath.Base(path), Bytes: count.n, SHA256: hex.EncodeToString(sum.Sum(nil))}, nil
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) { c.n += int64(len(p)); return len(p), nil }

// replaceDir renames the folder from to to; a folder that is there already changes places with it.
func replaceDir(from, to string) error {
	err := os.Rename(from, to)
	if err == nil || !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) {
		return err
	}
	err = unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		aside := from + "-old"
		if err := os.Rename(to, aside); err != nil {
			return err
		}
		defer os.RemoveAll(aside)
		return os.Rename(from, to)
	}
	return err
}

// PruneStates removes all but the newest keep states.
func (r *Run) PruneStates(keep int) error {
	steps, err := r.stateSteps()
	if err != nil {
		return err
	}
	for i := 0; i < len(steps)-max(keep, 1); i++ {
		dir := r.Path(stateDir, stateName(steps[i]))
		gone := r.Path(stateDir, tempPrefix+"old-"+stateName(steps[i]))
		if err := os.Rename(dir, gone); err != nil {
			return outputError(dir, err)
		}
		if err := os.RemoveAll(gone); err != nil {
			return outputError(dir, err)
		}
	}
	return nil
}

// stateSteps returns the steps that have a state folder, ascending.
func (r *Run) stateSteps() ([]int, error) {
	entries, err := os.ReadDir(r.Path(stateDir))
	if err != nil {
		return nil, outputError(r.Path(stateDir), err)
	}
	var steps []int
	for _, e := range entries {
		digits, ok := strings.CutPrefix(e.Name(), "step-")
		if n, err := strconv.Atoi(digits); ok && err == nil && e.IsDir() && e.Name() == stateName(n) {
			steps = append(steps, n)
		}
	}
	slices.Sort(steps)
	return steps, nil
}

// LatestState returns the newest state whose files all match their manifest, and the damaged ones it passed over. Without a valid one
// it returns a fault.Resume error.
func (r *Run) LatestState() (State, []Skipped, error) {
	steps, err := r.stateSteps()
	if err != nil {
		return State{}, nil, err
	}
	var skipped []Skipped
	for _, step := range slices.Backward(steps) {
		dir := r.Path(stateDir, stateName(step))
		s, err := readState(dir, step)
		if err == nil {
			return s, skipped, nil
		}
		skipped = append(skipped, Skipped{Dir: dir, Reason: err.Error()})
	}
	e := fault.New(fault.Resume, r.dir, "can't be continued: it has no state")
	if len(skipped) > 0 {
		e = fault.New(fault.Resume, r.dir, "can't be continued: it has no valid state")
		lines := make([]string, len(skipped))
		for i, s := range skipped {
			lines[i] = filepath.Base(s.Dir) + ": " + s.Reason
		}
		e.Advice = strings.Join(lines, "\n") + "\n"
	}
	e.Advice += "start a new run under another --name"
	return State{}, skipped, e
}

// readState checks a state folder: the manifest's own text, the set of files, every size and hash.
func readState(dir string, step int) (State, error) {
	text, err := os.ReadFile(filepath.Join(dir, manifestName))
	if err != nil {
		return State{}, fmt.Errorf("no %s", manifestName)
	}
	var m manifest
	if err := json.Unmarshal(text, &m); err != nil {
		return State{}, fmt.Errorf("%s is damaged", manifestName)
	}
	if m.Schema != manifestSchema && strings.HasPrefix(m.Schema, "lycoris.state/") {
		return State{}, fmt.Errorf("written by another version (%q, this one reads %q)", m.Schema, manifestSchema)
	}
	if !bytes.Equal(m.encode(), text) {
		return State{}, fmt.Errorf("%s is damaged", manifestName)
	}
	if m.Step != step {
		return State{}, fmt.Errorf("%s is that of step %d", manifestName, m.Step)
	}
	want := map[string]bool{manifestName: true}
	for _, e := range m.Files {
		want[e.Name] = true
		if err := checkFile(filepath.Join(dir, e.Name), e); err != nil {
			return State{}, err
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return State{}, err
	}
	for _, e := range entries {
		if !want[e.Name()] {
			return State{}, fmt.Errorf("%q doesn't belong to it", e.Name())
		}
	}
	return m.state(dir, text), nil
}

// checkFile compares a file with its entry.
func checkFile(path string, e stateEntry) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("%q is missing", e.Name)
	}
	defer f.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, f)
	switch {
	case err != nil:
		return fmt.Errorf("%q can't be read: %w", e.Name, err)
	case n != e.Bytes:
		return fmt.Errorf("%q has %d bytes, its manifest says %d", e.Name, n, e.Bytes)
	case hex.EncodeToString(sum.Sum(nil)) != e.SHA256:
		return fmt.Errorf("%q doesn't match its hash", e.Name)
	}
	return nil
}
