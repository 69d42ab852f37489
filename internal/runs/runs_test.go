package runs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"lycoris/internal/fault"
)

// holdVariable makes this test binary a process that holds a run folder until its standard input ends.
const holdVariable = "LYCORIS_TEST_HOLD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(holdVariable); dir != "" {
		r, _, err := Resume(dir)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		if err := r.Begin(10); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("held")
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func create(t *testing.T, out, name string, force bool) *Run {
	t.Helper()
	r, err := Create(out, name, force)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func kind(t *testing.T, err error, want fault.Kind, words string) {
	t.Helper()
	if err == nil || fault.KindOf(err) != want || !strings.Contains(err.Error(), words) {
		t.Errorf("got %v (%v), want %v with %q", err, fault.KindOf(err), want, words)
	}
}

func TestCreateFindsAFreeName(t *testing.T) {
	out := filepath.Join(t.TempDir(), "runs")
	for _, want := range []string{"cat", "cat-2", "cat-3"} {
		if r := create(t, out, "cat", false); filepath.Base(r.Dir()) != want || r.Name() != "cat" {
			t.Errorf("got folder %s, name %s, want %s, cat", r.Dir(), r.Name(), want)
		}
	}
	for _, bad := range []string{"", ".", "..", "a/b", "/"} {
		_, err := Create(out, bad, false)
		kind(t, err, fault.Usage, "name")
	}
}

func TestForceEmptiesTheFolder(t *testing.T) {
	out := t.TempDir()
	r := create(t, out, "cat", false)
	old := r.Info().ID
	if err := errors.Join(r.Begin(5), r.WriteConfig([]byte("x"))); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"cat.safetensors", "cat-000001.safetensors", "cat-step00000500.safetensors", "cat-notes.txt", "other.safetensors", metricsName} {
		if err := os.WriteFile(r.Path(f), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Create(out, "cat", true); fault.KindOf(err) != fault.Busy {
		t.Errorf("--force on a run in use: %v", err)
	}
	r.Close()
	refused := create(t, out, "cat", true)
	refused.Discard()
	if _, err := os.Stat(r.Path("cat.safetensors")); err != nil {
		t.Errorf("a start with --force that was refused took the old run's adapter: %v", err)
	}
	r = create(t, out, "cat", true)
	if err := r.Clear(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(r.Dir())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if got, want := strings.Join(names, " "), "cat-notes.txt control lock other.safetensors state"; got != want {
		t.Errorf("left: %s, want %s", got, want)
	}
	if r.Info().ID == old || r.Info().Part != 0 {
		t.Errorf("the old run's info is still there: %+v", r.Info())
	}
}

// A run that came to nothing takes its folders along, down to the first that was there before.
func TestDiscard(t *testing.T) {
	there := t.TempDir()
	r := create(t, filepath.Join(there, "a", "b"), "cat", false)
	if err := errors.Join(r.Begin(5), r.WriteConfig([]byte("x")), r.WriteInput(0, "x.yaml", []byte("x"))); err != nil {
		t.Fatal(err)
	}
	if !r.Worthless() {
		t.Error("a run without a step is worth something")
	}
	r.Discard()
	if entries, err := os.ReadDir(there); err != nil || len(entries) != 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
	r, _, err := Resume(filepath.Join(there, "cat"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(r.Path("note.txt"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := r.SaveState(3, nil); err != nil {
		t.Fatal(err)
	}
	if r.Worthless() {
		t.Error("a run with a state is worth nothing")
	}
	r.Discard()
	if _, err := os.Stat(r.Path("note.txt")); err != nil {
		t.Errorf("a file that isn't the run's: %v", err)
	}
	if _, err := Create(filepath.Join(there, "cat", "note.txt", "deep"), "x", false); fault.KindOf(err) != fault.Output {
		t.Errorf("a folder under a file: %v", err)
	}
}

func TestResumeFolders(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "new", "cat")
	r, fresh, err := Resume(missing)
	if err != nil || !fresh || r.Name() != "cat" {
		t.Fatalf("a missing folder: %v, fresh %v", err, fresh)
	}
	if err := r.Begin(5); err != nil {
		t.Fatal(err)
	}
	r.Close()
	r, fresh, err = Resume(missing)
	if err != nil || fresh || r.Info().Part != 1 {
		t.Fatalf("a run folder: %v, fresh %v", err, fresh)
	}
	r.Close()
	other := filepath.Join(dir, "other")
	if err := os.MkdirAll(filepath.Join(other, "photos"), 0o755); err != nil {
		t.Fatal(err)
	}
	_, _, err = Resume(other)
	kind(t, err, fault.Resume, "is not a run folder")
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	_, _, err = Resume(file)
	kind(t, err, fault.Resume, "is a file")
	_, err = Create(file, "cat", false)
	kind(t, err, fault.Output, "file")
	if err := os.WriteFile(filepath.Join(missing, infoName), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, _, err = Resume(missing)
	kind(t, err, fault.Resume, "is damaged")
	_, err = Create(dir, strings.Repeat("x", 300), false)
	kind(t, err, fault.Output, "too long")
}

// hold starts a process that owns dir; the function it returns kills it.
func hold(t *testing.T, dir string) (pid int, kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), holdVariable+"="+dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	outPipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 5)
	if _, err := io.ReadFull(outPipe, buf); err != nil || string(buf) != "held\n" {
		t.Fatalf("the owner says %q, %v", buf, err)
	}
	return cmd.Process.Pid, func() {
		cmd.Process.Kill()
		cmd.Wait()
		in.Close()
	}
}

func TestOneOwner(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cat")
	pid, kill := hold(t, dir)
	_, _, err := Resume(dir)
	kind(t, err, fault.Busy, fmt.Sprintf("is in use by process %d (since ", pid))
	if i, err := Read(dir); err != nil || i.Status != Running {
		t.Errorf("while it runs: status %s, %v", i.Status, err)
	}
	if err := os.Remove(filepath.Join(dir, lockName)); err != nil {
		t.Fatal(err)
	}
	_, _, err = Resume(dir)
	kind(t, err, fault.Busy, "is in use by")
	kill()
	if i, err := Read(dir); err != nil || i.Status != Interrupted {
		t.Errorf("after a kill: status %s, %v", i.Status, err)
	}
	r, fresh, err := Resume(dir)
	if err != nil || fresh {
		t.Fatalf("after a kill: %v", err)
	}
	if err := errors.Join(r.Begin(10), r.End(Finished, 10, 0)); err != nil {
		t.Fatal(err)
	}
	r.Close()
	i, err := Read(dir)
	if err != nil || i.Status != Finished || i.Part != 2 || i.Exit == nil || *i.Exit != 0 || i.Ended == nil {
		t.Errorf("after the end: %+v, %v", i, err)
	}
	_, err = Read(t.TempDir())
	kind(t, err, fault.Input, "is not a run folder")
}

func TestNamesAndModes(t *testing.T) {
	r := create(t, t.TempDir(), "my-cat", false)
	for got, want := range map[string]string{r.FinalAdapter(): "my-cat.safetensors", r.EpochAdapter(1): "my-cat-000001.safetensors", r.StepAdapter(500): "my-cat-step00000500.safetensors"} {
		if got != filepath.Join(r.Dir(), want) {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	dir, err := r.SampleDir(500)
	if err != nil || dir != r.Path("samples", "step-00000500") {
		t.Errorf("got %s, %v", dir, err)
	}
	st, err := os.Stat(r.Path(controlDir))
	if err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("control: %v, %v", st, err)
	}
	if err := r.WriteInput(1, "../evil/c.yaml", []byte("dim: 8\n")); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(r.Path("config.input", "01-c.yaml")); err != nil || string(got) != "dim: 8\n" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := r.CheckSpace(1); err != nil {
		t.Error(err)
	}
	kind(t, r.CheckSpace(1<<62), fault.Output, "disk is too full")
}

func TestControl(t *testing.T) {
	r := create(t, t.TempDir(), "cat", false)
	for _, q := range []Request{RequestStop, RequestSample, "other"} {
		if err := os.WriteFile(r.Path(controlDir, string(q)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := fmt.Sprint(r.Requests()); got != "[sample stop]" {
		t.Errorf("got %s", got)
	}
	if err := errors.Join(r.Done(RequestStop), r.Done(RequestStop)); err != nil {
		t.Error(err)
	}
	if got := fmt.Sprint(r.Requests()); got != "[sample]" {
		t.Errorf("got %s", got)
	}
}

func TestLeftOversGo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cat")
	r, _, err := Resume(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Begin(1); err != nil {
		t.Fatal(err)
	}
	r.Close()
	for _, p := range []string{".lycoris-0123.tmp", "state/.tmp-1/adapter"} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, p)), 0o755), os.WriteFile(filepath.Join(dir, p), nil, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if r, _, err = Resume(dir); err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, p := range []string{".lycoris-0123.tmp", "state/.tmp-1"} {
		if _, err := os.Stat(filepath.Join(dir, p)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", p, err)
		}
	}
}

func TestLog(t *testing.T) {
	r := create(t, t.TempDir(), "cat", false)
	for range 2 {
		w, err := r.Log()
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, "line\n")
	}
	if got, err := os.ReadFile(r.Path(logName)); err != nil || string(got) != "line\nline\n" {
		t.Errorf("got %q, %v", got, err)
	}
}
