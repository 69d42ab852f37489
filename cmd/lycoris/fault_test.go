package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lycoris/internal/rng"
	"lycoris/internal/runs"
	"lycoris/internal/tensor"
	"lycoris/internal/testutil"
	"lycoris/internal/testutil/tinymodel"
)

// faulty is a tiny run that is disturbed.
type faulty struct {
	t    *testing.T
	dir  string // of the model and the cache
	args []string
}

// newFaulty writes the model.
func newFaulty(t *testing.T, dir string) *faulty {
	t.Helper()
	model := filepath.Join(dir, "tiny.safetensors")
	if err := tinymodel.WriteTiny(model, 1, ""); err != nil {
		t.Fatal(err)
	}
	return &faulty{t, dir, []string{"train", "--no-config", "-q", "--model", model, "--data", filepath.Join(testutil.Root(t), "demo", "photos"), "--resolution", "64",
		"--dim", "2", "--name", "x", "--scheduler", "constant", "--warmup", "0", "--set", "bucket.min=64", "--set", "save.every_epochs=0", "--set", "cache.dir=" + filepath.Join(dir, "cache")}}
}

// start returns the arguments of a new run below out that saves states and adapters every so many steps.
func (f *faulty) start(out string, steps, states, adapters int) []string {
	return append(f.args[:len(f.args):len(f.args)], "--out", out, "--steps", fmt.Sprint(steps), "--set", fmt.Sprint("save.state_every=", states),
		"--set", fmt.Sprint("save.every_steps=", adapters))
}

// run runs the program under a shell that runs before first, and returns its exit code and what it said.
func (f *faulty) run(before string, args ...string) (code int, stderr string) {
	f.t.Helper()
	var said bytes.Buffer
	cmd := exec.Command("/bin/sh", "-c", before+`exec "$0" -test.run='^TestChildren$'`, os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"=program", argumentsVariable+"="+strings.Join(args, "\n"))
	cmd.Stderr = &said
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		f.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), said.String()
}

// must runs the program without a disturbance.
func (f *faulty) must(args ...string) {
	f.t.Helper()
	if code, said := f.run("", args...); code != 0 {
		f.t.Fatalf("%v: exit %d\n%s", args, code, said)
	}
}

// fails wants exit 5 and an error with the words.
func (f *faulty) fails(words, before string, args ...string) {
	f.t.Helper()
	code, said := f.run(before, args...)
	if code != 5 || !strings.Contains(said, words) || strings.Count(said, "error: ") != 1 {
		f.t.Errorf("exit %d, want 5 with %q\n%s", code, words, said)
	}
}

// intact wants nothing half-written in a run folder: every state valid, every adapter whole and finite. With newest, the newest state is of that step.
func (f *faulty) intact(run string, newest int) {
	f.t.Helper()
	if err := wholeFolder(run); err != nil {
		f.t.Error(err)
	}
	f.usable(run, newest)
}

// usable is intact where leftovers of a process that was killed are allowed.
func (f *faulty) usable(run string, newest int) {
	f.t.Helper()
	adapters, err := filepath.Glob(filepath.Join(run, "*.safetensors"))
	if err != nil {
		f.t.Fatal(err)
	}
	for _, a := range adapters {
		file, err := tensor.OpenFile(a)
		if err != nil {
			f.t.Error(err)
			continue
		}
		for _, name := range file.Names() {
			v, err := file.Read(name)
			if n, _ := v.NonFinite(); err != nil || n > 0 {
				f.t.Errorf("%s: %q has %d values that aren't finite, %v", a, name, n, err)
			}
		}
		file.Close()
	}
	r, fresh, err := runs.Resume(run)
	if err != nil || fresh && newest > 0 {
		f.t.Fatalf("fresh %v, %v", fresh, err)
	}
	defer r.Close()
	s, skipped, err := r.LatestState()
	if len(skipped) > 0 || newest > 0 && (err != nil || s.Step != newest) {
		f.t.Errorf("the newest state is of step %d, want %d; skipped %v, %v", s.Step, newest, skipped, err)
	}
}

// equal wants the same bytes in two files.
func (f *faulty) equal(got, want string) {
	f.t.Helper()
	a, err := os.ReadFile(got)
	if err != nil {
		f.t.Fatal(err)
	}
	b, err := os.ReadFile(want)
	if err != nil {
		f.t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		f.t.Errorf("%s and %s differ", got, want)
	}
}

// A write that fails in the middle of a save (a limit on the size of files stands for the disk) ends the run with exit 5. The states and
// adapters from before stay as they were, and a resume comes to the bytes of the run that was left alone.
func TestFailedWrite(t *testing.T) {
	dir := t.TempDir()
	f := newFaulty(t, dir)
	straight, x := filepath.Join(dir, "straight", "x"), filepath.Join(dir, "runs", "x")
	f.must(f.start(filepath.Dir(straight), 6, 2, 3)...)
	want := filepath.Join(straight, "x.safetensors")

	// The adapter of a state (800 kB) fits, the optimiser's file doesn't. The first save fails: no state, and the run starts again.
	const limit = "ulimit -f 2400; " // blocks of 512 bytes
	f.fails("state/step-00000002/optimizer.safetensors can't be written: the file would be larger than this process may write", limit, f.start(filepath.Dir(x), 6, 2, 3)...)
	f.intact(x, 0)
	f.must("train", "-q", "--resume", x, "--steps", "3")
	f.intact(x, 3)

	// A later one fails: what was saved stays.
	before, err := os.ReadFile(filepath.Join(x, "x.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	f.fails("state/step-00000004/optimizer.safetensors can't be written", limit, "train", "-q", "--resume", x, "--steps", "6")
	f.intact(x, 3)
	if after, err := os.ReadFile(filepath.Join(x, "x.safetensors")); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the adapter of step 3 is no longer what it was: %v", err)
	}
	f.must("train", "-q", "--resume", x, "--steps", "6")
	f.intact(x, 6)
	f.equal(filepath.Join(x, "x.safetensors"), want)

	// The last adapter fails, its state is saved.
	y := filepath.Join(dir, "late", "x")
	f.must(f.start(filepath.Dir(y), 3, 2, 3)...)
	taken := filepath.Join(y, "x.safetensors")
	if err := errors.Join(os.Remove(taken), os.Mkdir(taken, 0o755)); err != nil {
		t.Fatal(err)
	}
	f.fails("x.safetensors is a folder", "", "train", "-q", "--resume", y, "--steps", "6")
	if err := os.Remove(taken); err != nil {
		t.Fatal(err)
	}
	f.intact(y, 6)
	f.must("train", "-q", "--resume", y, "--steps", "6")
	f.equal(taken, want)
}

// A process that is killed in the middle of saves leaves only whole states and adapters under their names, and goes on to the same bytes.
func TestKilledInSaves(t *testing.T) {
	dir := t.TempDir()
	f := newFaulty(t, dir)
	straight, x := filepath.Join(dir, "straight", "x"), filepath.Join(dir, "runs", "x")
	f.must(f.start(filepath.Dir(straight), 12, 1, 2)...)
	s := rng.New(1, "kills", 0, 0)
	args := f.start(filepath.Dir(x), 12, 1, 2)
	for range 4 {
		killInSave(t, program(t, args...), x, 1+int(s.Uint32()%5))
		f.usable(x, 0)
		args = append(f.start(filepath.Dir(x), 12, 1, 2), "--resume", x) // starts anew where the first was killed before it had begun
	}
	f.must(args...)
	f.intact(x, 12)
	f.equal(filepath.Join(x, "x.safetensors"), filepath.Join(straight, "x.safetensors"))
}

// killInSave kills the process when it has begun its n-th save, as its temporary file or folder appears.
func killInSave(t *testing.T, cmd *exec.Cmd, run string, n int) {
	t.Helper()
	seen := map[string]bool{}
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		for _, dir := range []string{run, filepath.Join(run, "state")} {
			entries, _ := os.ReadDir(dir)
			for _, e := range entries {
				if strings.HasPrefix(e.Name(), tensor.TempPrefix) || strings.HasPrefix(e.Name(), ".tmp-") {
					seen[e.Name()] = true
				}
			}
		}
		if len(seen) >= n {
			break
		}
		if cmd.Process.Signal(syscall.Signal(0)) != nil {
			break
		}
	}
	cmd.Process.Kill()
	var exit *exec.ExitError
	if err := cmd.Wait(); len(seen) < n || !errors.As(err, &exit) || exit.ExitCode() != -1 {
		t.Fatalf("%d saves were seen, want %d; the run ended with %v", len(seen), n, err)
	}
}

// diskVariable tells the test binary that it has a mount table of its own.
const diskVariable = "LYCORIS_TEST_DISK"

// A disk without room is said before a run begins and before a save, and a save that runs out of room half way leaves what was there. The disk
// is a small file system in memory; where mounting isn't allowed, the test is skipped.
func TestFullDisk(t *testing.T) {
	dir := os.Getenv(diskVariable)
	if dir == "" {
		ownMounts(t)
		return
	}
	disk := filepath.Join(dir, "disk")
	if err := os.Mkdir(disk, 0o755); err != nil {
		t.Fatal(err)
	}
	resize := func(kib, inodes int) error {
		flags := uintptr(0)
		if _, err := os.Stat(filepath.Join(disk, "there")); err == nil {
			flags = unix.MS_REMOUNT
		}
		if err := unix.Mount("lycoris-test", disk, "tmpfs", flags, fmt.Sprintf("size=%dk,nr_inodes=%d", kib, inodes)); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(disk, "there"), nil, 0o644)
	}
	const room, inodes = 64 << 10, 1000
	if err := resize(room, inodes); err != nil {
		t.Skipf("a full disk needs a tmpfs of its own, and this machine lets no process mount one: %v", err)
	}
	set := func(kib, inodes int) {
		t.Helper()
		if err := resize(kib, inodes); err != nil {
			t.Fatal(err)
		}
	}
	f := newFaulty(t, dir)
	straight, x := filepath.Join(dir, "straight", "x"), filepath.Join(disk, "x")
	f.must(f.start(filepath.Dir(straight), 6, 2, 3)...)
	want := filepath.Join(straight, "x.safetensors")

	// Not even the first state has room: nothing begins, nothing is left.
	set(3000, inodes)
	f.fails("the disk is too full: needs 3.9 MB, ", "", f.start(disk, 6, 2, 3)...)
	if _, err := os.Stat(x); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a run folder is left: %v", err)
	}

	// The second has none: the first stays.
	set(6000, inodes)
	f.fails("the disk is too full: needs 3.9 MB, ", "", f.start(disk, 6, 2, 0)...)
	f.intact(x, 2)
	set(room, inodes)
	f.must("train", "-q", "--resume", x, "--set", "save.every_steps=3")
	f.intact(x, 6)
	f.equal(filepath.Join(x, "x.safetensors"), want)

	// No more files can be made at some point of the last saves, each in turn.
	if err := os.RemoveAll(x); err != nil {
		t.Fatal(err)
	}
	f.must(f.start(disk, 4, 2, 3)...)
	for more := range 8 {
		var st unix.Statfs_t
		if err := unix.Statfs(disk, &st); err != nil {
			t.Fatal(err)
		}
		set(room, int(st.Files-st.Ffree)+more)
		code, said := f.run("", "train", "-q", "--resume", x, "--steps", "6")
		set(room, inodes)
		if code == 0 {
			if more < 3 {
				t.Errorf("a run with room for %d files ended well", more)
			}
			break
		}
		if code != 5 || !strings.Contains(said, "full") {
			t.Errorf("room for %d files: exit %d, want 5 and that the disk is full\n%s", more, code, said)
		}
		f.intact(x, newestState(t, x))
	}
	f.must("train", "-q", "--resume", x, "--steps", "6")
	f.intact(x, 6)
	f.equal(filepath.Join(x, "x.safetensors"), want)
}

// newestState returns the step of the newest state folder.
func newestState(t *testing.T, run string) (step int) {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(run, "state", "step-*"))
	if err != nil || len(all) == 0 {
		t.Fatalf("no states: %v", err)
	}
	if _, err := fmt.Sscanf(filepath.Base(all[len(all)-1]), "step-%d", &step); err != nil {
		t.Fatal(err)
	}
	return step
}

// ownMounts runs the test again in a process with a mount table of its own, as root there.
func ownMounts(t *testing.T) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), diskVariable+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err != nil && !errors.As(err, &exit):
		t.Skipf("a full disk needs a process with mounts of its own (user namespaces), which this machine refuses: %v", err)
	case err != nil:
		t.Errorf("%v\n%s", err, out)
	case bytes.Contains(out, []byte("--- SKIP")):
		t.Skipf("the process with mounts of its own skipped it:\n%s", out)
	}
}
