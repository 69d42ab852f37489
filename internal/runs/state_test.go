package runs

import (
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lycoris/internal/fault"
)

// contents returns state files whose text depends on the step.
func contents(step byte) map[string]func(io.Writer) error {
	part := func(n int, b byte) func(io.Writer) error {
		return func(w io.Writer) error {
			_, err := w.Write(slices.Repeat([]byte{b, step}, n))
			return err
		}
	}
	return map[string]func(io.Writer) error{"adapter.safetensors": part(1000, 'a'), "optimizer.safetensors": part(2000, 'o'), "progress.json": part(10, 'p')}
}

func save(t *testing.T, r *Run, step int) State {
	t.Helper()
	s, err := r.SaveState(step, contents(byte(step)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSaveAndLoad(t *testing.T) {
	r := create(t, t.TempDir(), "cat", false)
	_, _, err := r.LatestState()
	kind(t, err, fault.Resume, "has no state")
	saved := save(t, r, 5)
	if saved.Bytes != 2*3010 || filepath.Base(saved.Dir) != "step-00000005" || len(saved.SHA256) != 64 {
		t.Errorf("got %+v", saved)
	}
	save(t, r, 7)
	save(t, r, 6)
	s, skipped, err := r.LatestState()
	if err != nil || s.Step != 7 || len(skipped) != 0 {
		t.Fatalf("got %+v, %v, %v", s, skipped, err)
	}
	f, err := s.Open("progress.json")
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(f)
	f.Close()
	if err != nil || string(got) != strings.Repeat("p\x07", 10) {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := s.Open("nothing"); fault.KindOf(err) != fault.Resume {
		t.Errorf("a missing file: %v", err)
	}
	if err := r.PruneStates(2); err != nil {
		t.Fatal(err)
	}
	if steps, err := r.stateSteps(); err != nil || !slices.Equal(steps, []int{6, 7}) {
		t.Errorf("after pruning: %v, %v", steps, err)
	}
}

func TestSameStateTwice(t *testing.T) {
	r := create(t, t.TempDir(), "cat", false)
	a := save(t, r, 5)
	b := save(t, r, 5)
	if a.SHA256 != b.SHA256 {
		t.Errorf("the same content has two hashes: %s %s", a.SHA256, b.SHA256)
	}
	if s, _, err := r.LatestState(); err != nil || s.SHA256 != b.SHA256 {
		t.Errorf("got %+v, %v", s, err)
	}
	entries, err := os.ReadDir(r.Path(stateDir))
	if err != nil || len(entries) != 1 {
		t.Errorf("left in state/: %v, %v", entries, err)
	}
}

func TestFailedSaveLeavesNothing(t *testing.T) {
	r := create(t, t.TempDir(), "cat", false)
	save(t, r, 5)
	files := contents(6)
	files["optimizer.safetensors"] = func(w io.Writer) error { return errors.New("no ink") }
	_, err := r.SaveState(6, files)
	kind(t, err, fault.Output, "no ink")
	entries, rerr := os.ReadDir(r.Path(stateDir))
	if rerr != nil || len(entries) != 1 || entries[0].Name() != "step-00000005" {
		t.Errorf("left in state/: %v, %v", entries, rerr)
	}
	_, err = r.SaveState(6, map[string]func(io.Writer) error{"x": func(io.Writer) error { return fault.New(fault.Diverged, "", "nan") }})
	kind(t, err, fault.Diverged, "nan")
}

// TestDamage changes the newest state in every way and wants the older one each time.
func TestDamage(t *testing.T) {
	r := create(t, t.TempDir(), "cat", false)
	save(t, r, 5)
	dir := save(t, r, 6).Dir
	names := []string{manifestName, "adapter.safetensors", "optimizer.safetensors", "progress.json"}
	whole := map[string][]byte{}
	for _, n := range names {
		data, err := os.ReadFile(filepath.Join(dir, n))
		if err != nil {
			t.Fatal(err)
		}
		whole[n] = data
	}
	restore := func() {
		for n, data := range whole {
			if err := os.WriteFile(filepath.Join(dir, n), data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	check := func(what string) {
		t.Helper()
		s, skipped, err := r.LatestState()
		if err != nil || s.Step != 5 || len(skipped) != 1 || skipped[0].Dir != dir || skipped[0].Reason == "" {
			t.Fatalf("%s: got step %d, skipped %v, %v", what, s.Step, skipped, err)
		}
		restore()
	}
	rng := rand.New(rand.NewPCG(1, 2))
	put := func(name string, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for range 200 {
		n := names[rng.IntN(len(names))]
		data := slices.Clone(whole[n])
		i := rng.IntN(len(data))
		data[i] ^= 1 << rng.IntN(8)
		put(n, data)
		check("flipped byte in " + n)
	}
	for range 50 {
		n := names[rng.IntN(len(names))]
		put(n, whole[n][:rng.IntN(len(whole[n]))])
		check("truncated " + n)
	}
	for _, n := range names {
		if err := os.Remove(filepath.Join(dir, n)); err != nil {
			t.Fatal(err)
		}
		check("deleted " + n)
		other, err := os.ReadFile(filepath.Join(r.Path(stateDir, stateName(5)), n))
		if err != nil {
			t.Fatal(err)
		}
		put(n, other)
		check("swapped " + n)
	}
	put("extra", nil)
	check("additional file")
	if err := os.Remove(filepath.Join(dir, "extra")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if s, _, err := r.LatestState(); err != nil || s.Step != 6 {
		t.Fatalf("the whole state again: %+v, %v", s, err)
	}
}

func TestNoValidState(t *testing.T) {
	r := create(t, t.TempDir(), "cat", false)
	dir := save(t, r, 5).Dir
	text, err := os.ReadFile(filepath.Join(dir, manifestName))
	if err != nil {
		t.Fatal(err)
	}
	newer := strings.Replace(string(text), manifestSchema, "lycoris.state/2", 1)
	if err := os.WriteFile(filepath.Join(dir, manifestName), []byte(newer), 0o644); err != nil {
		t.Fatal(err)
	}
	_, skipped, err := r.LatestState()
	kind(t, err, fault.Resume, "has no valid state")
	var e *fault.Error
	if !errors.As(err, &e) || !strings.Contains(e.Advice, `step-00000005: written by another version ("lycoris.state/2"`) || len(skipped) != 1 {
		t.Errorf("got advice %q, skipped %v", e.Advice, skipped)
	}
}
