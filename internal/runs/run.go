package runs

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"lycoris/internal/fault"
)

// Run is a run folder owned by this process.
type Run struct {
	dir     string
	lock    *lock
	now     func() time.Time
	made    []string   // folders that were made for the run, innermost first
	old     string     // name of the run whose files Clear removes, empty: none
	mu      sync.Mutex // guards info
	info    Info
	metrics *Metrics
	log     *os.File
}

// maxSiblings bounds the search for a free name.
const maxSiblings = 10_000

// Create makes the run folder out/name and takes its lock. If it exists, the first free one of name-2, name-3, ... is made, or, with
// force, the folder is used again: [Run.Clear] then removes the old run's files.
func Create(out, name string, force bool) (*Run, error) {
	if name == "" || name == "." || name == ".." || strings.ContainsRune(name, filepath.Separator) {
		return nil, fault.BadUsage("name", "%q can't be the name of a run folder", name)
	}
	made, err := makeAll(out)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(out, name)
	for i := 2; ; i++ {
		err := os.Mkdir(dir, 0o755)
		switch {
		case err == nil:
			return openMade(dir, name, append([]string{dir}, made...))
		case !errors.Is(err, fs.ErrExist):
			removeEmpty(made)
			return nil, outputError(dir, err)
		case force:
			return reuse(dir, name)
		case i > maxSiblings:
			return nil, fault.BadOutput(dir, "exists, and so do %d runs with its name", maxSiblings).Advise("give another --name")
		}
		dir = filepath.Join(out, fmt.Sprintf("%s-%d", name, i))
	}
}

// openMade opens a folder that was made a moment ago; on a failure it goes again, with the others.
func openMade(dir, name string, made []string) (*Run, error) {
	r, err := open(dir, name)
	if err != nil {
		os.Remove(filepath.Join(dir, lockName))
		removeEmpty(made)
		return nil, err
	}
	r.made = made
	return r, nil
}

// reuse opens the folder of an old run for a new one.
func reuse(dir, name string) (*Run, error) {
	r, err := own(dir, func() (Info, error) { return newInfo(name, time.Now()), nil })
	if err != nil {
		return nil, err
	}
	r.old = name
	return r, nil
}

// Clear removes what an old run left in a folder that is used again. It is called when nothing can refuse the new run any more; until
// then the old one is whole.
func (r *Run) Clear() error {
	if r.old == "" {
		return nil
	}
	if err := r.removeFiles(r.old); err != nil {
		return err
	}
	r.old = ""
	return r.makeFolders()
}

// removeFiles removes what a run called name writes into its folder, except the lock.
func (r *Run) removeFiles(name string) error {
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return outputError(r.dir, err)
	}
	for _, e := range entries {
		if e.Name() == lockName || !isOurs(e.Name(), name) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(r.dir, e.Name())); err != nil {
			return outputError(filepath.Join(r.dir, e.Name()), err)
		}
	}
	return nil
}

// Discard closes a run that came to nothing and removes its files and the folders that were made for it, so that a mistake leaves nothing
// behind. An old run that wasn't cleared yet stays.
func (r *Run) Discard() {
	if r.old == "" {
		r.removeFiles(r.Name()) // what can't be removed stays
		os.Remove(r.Path(lockName))
	}
	r.Close()
	removeEmpty(r.made)
}

// Worthless reports whether nothing of the run is worth keeping: no step done, no state, no adapter, and no earlier start.
func (r *Run) Worthless() bool {
	i := r.Info()
	steps, err := r.stateSteps()
	return r.old == "" && i.Part <= 1 && i.Step == 0 && i.Adapter == "" && err == nil && len(steps) == 0
}

// makeAll makes a folder and those above it, and returns the ones that weren't there, innermost first.
func makeAll(dir string) (made []string, err error) {
	for d := filepath.Clean(dir); ; d = filepath.Dir(d) {
		if _, err := os.Lstat(d); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		made = append(made, d)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		removeEmpty(made)
		return nil, outputError(dir, err)
	}
	return made, nil
}

// removeEmpty removes folders that are empty, innermost first.
func removeEmpty(dirs []string) {
	for _, d := range dirs {
		os.Remove(d)
	}
}

var runFiles = map[string]bool{infoName: true, "config.resolved.yaml": true, "config.input": true, "plan.json": true, "check.json": true,
	metricsName: true, logName: true, "tb": true, stateDir: true, "samples": true, controlDir: true, lockName: true}

var adapterTail = regexp.MustCompile(`^(-[0-9]{6}|-step[0-9]{8})?\.safetensors$`)

// isOurs reports whether a run called name writes a file of that name into its folder.
func isOurs(file, name string) bool {
	tail, ok := strings.CutPrefix(file, name)
	return runFiles[file] || ok && adapterTail.MatchString(tail) || isTemp(file)
}

// Resume opens the run folder dir and takes its lock. fresh is true when there was no folder, or an empty one: then a new run begins in it.
// A folder that holds something else than a run is a fault.Resume error.
func Resume(dir string) (r *Run, fresh bool, err error) {
	dir = filepath.Clean(dir)
	fresh, err = Fresh(dir)
	if err != nil {
		return nil, false, err
	}
	if !fresh {
		r, err = open(dir, filepath.Base(dir))
		return r, false, err
	}
	made, err := makeAll(dir)
	if err != nil {
		return nil, false, err
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, false, outputError(dir, err)
	}
	r, err = openMade(dir, filepath.Base(abs), made)
	return r, true, err
}

// Fresh reports whether dir is a place for a new run: there is no such folder, or nothing has begun in it. A folder that holds something
// else than a run is a fault.Resume error. Nothing is written.
func Fresh(dir string) (bool, error) {
	dir = filepath.Clean(dir)
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return true, nil
	case errors.Is(err, unix.ENOTDIR):
		return false, fault.New(fault.Resume, dir, "is a file, not a run folder").Advise("give the folder that train made, or one that doesn't exist yet")
	case err != nil:
		return false, fault.New(fault.Resume, dir, "can't be read: %w", plainCause(err))
	}
	fresh := true
	for _, e := range entries {
		switch {
		case e.Name() == infoName:
			return false, nil
		case !runFiles[e.Name()] && !isTemp(e.Name()):
			fresh = false
		}
	}
	if !fresh {
		return false, fault.New(fault.Resume, dir, "is not a run folder: it holds no %s", infoName).
			Advise("give the folder that train made, or one that doesn't exist yet")
	}
	return true, nil
}

// open takes the lock of an existing folder and reads its run.json, if it has one.
func open(dir, name string) (*Run, error) {
	return own(dir, func() (Info, error) {
		i, err := readInfo(dir)
		if errors.Is(err, fs.ErrNotExist) {
			return newInfo(name, time.Now()), nil
		}
		return i, err
	})
}

// own takes the lock of an existing folder, then asks for the run's info.
func own(dir string, info func() (Info, error)) (*Run, error) {
	l, err := takeLock(dir)
	if err != nil {
		return nil, err
	}
	r := &Run{dir: dir, lock: l, now: time.Now}
	if r.info, err = info(); err == nil {
		err = r.makeFolders()
	}
	if err != nil {
		l.release()
		return nil, err
	}
	removeLeftOvers(dir)
	removeLeftOvers(filepath.Join(dir, stateDir))
	return r, nil
}

// makeFolders makes the folders that every run has.
func (r *Run) makeFolders() error {
	for _, f := range []struct {
		name string
		mode fs.FileMode
	}{{stateDir, 0o755}, {controlDir, 0o700}} {
		if err := os.Mkdir(filepath.Join(r.dir, f.name), f.mode); err != nil && !errors.Is(err, fs.ErrExist) {
			return outputError(filepath.Join(r.dir, f.name), err)
		}
	}
	return nil
}

// Dir returns the run folder.
func (r *Run) Dir() string { return r.dir }

// Path returns the place of a file in the run folder.
func (r *Run) Path(elem ...string) string { return filepath.Join(append([]string{r.dir}, elem...)...) }

// ResolvedConfig returns the place of config.resolved.yaml.
func (r *Run) ResolvedConfig() string { return r.Path("config.resolved.yaml") }

// WriteConfig writes config.resolved.yaml.
func (r *Run) WriteConfig(yaml []byte) error { return writeFile(r.ResolvedConfig(), yaml) }

// WriteInput keeps a copy of a file that was given, under config.input; index keeps files of one name apart.
func (r *Run) WriteInput(index int, name string, data []byte) error {
	dir := r.Path("config.input")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return outputError(dir, err)
	}
	return writeFile(filepath.Join(dir, fmt.Sprintf("%02d-%s", index, filepath.Base(name))), data)
}

// WriteFile replaces a file of the run folder, such as plan.json, atomically.
func (r *Run) WriteFile(name string, data []byte) error { return writeFile(r.Path(name), data) }

// FinalAdapter returns the place of the last adapter: my-cat.safetensors.
func (r *Run) FinalAdapter() string { return r.Path(r.Name() + ".safetensors") }

// EpochAdapter returns the place of the adapter after an epoch: my-cat-000001.safetensors.
func (r *Run) EpochAdapter(epoch int) string {
	return r.Path(fmt.Sprintf("%s-%06d.safetensors", r.Name(), epoch))
}

// StepAdapter returns the place of the adapter after a step: my-cat-step00000500.safetensors.
func (r *Run) StepAdapter(step int) string {
	return r.Path(fmt.Sprintf("%s-step%08d.safetensors", r.Name(), step))
}

// SampleDir makes and returns the folder of the samples of a step.
func (r *Run) SampleDir(step int) (string, error) {
	dir := r.Path("samples", fmt.Sprintf("step-%08d", step))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", outputError(dir, err)
	}
	return dir, nil
}

// Log returns train.log, opened for appending.
func (r *Run) Log() (io.Writer, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.log == nil {
		f, err := os.OpenFile(r.Path(logName), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return nil, outputError(r.Path(logName), err)
		}
		r.log = f
	}
	return r.log, nil
}

// Close closes the run's files and gives the lock back.
func (r *Run) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	if r.metrics != nil {
		errs = append(errs, r.metrics.Close())
		r.metrics = nil
	}
	if r.log != nil {
		errs = append(errs, r.log.Close())
		r.log = nil
	}
	errs = append(errs, r.lock.release())
	return errors.Join(errs...)
}

// newID returns 16 random hex digits; two runs never share one.
func newID() string {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		panic("runs: no randomness: " + err.Error())
	}
	return hex.EncodeToString(b[:])
}
