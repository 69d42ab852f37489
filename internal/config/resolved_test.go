package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"lycoris/internal/fault"
)

// resolvedFile loads in, writes the resolved file and returns both.
func resolvedFile(t *testing.T, in Input) (*Config, string) {
	t.Helper()
	c, r, err := Load(in)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "config.resolved.yaml")
	if err := os.WriteFile(path, r.YAML("lycoris"), 0o644); err != nil {
		t.Fatal(err)
	}
	return c, path
}

func TestResolvedReadsBack(t *testing.T) {
	dir := t.TempDir()
	in := Input{NoConfig: true, Dir: dir, Preset: "style", Sets: []string{"name=my \"cat\" \u00e9\u202e", "targets=[a*, 'b: #c']", "save.state_every=7", "epochs=3",
		"threads=2", "scheduler.warmup=10", "out=runs dir", "model.path=m.safetensors", "lr=1e-4", "bucket.resolution=[768, 512]", "sample.prompts=[\"x: y\", \"# z\"]"},
		Flags: map[string][]string{"data": {"10_cats", "dogs"}}}
	c, path := resolvedFile(t, in)
	back, r, err := Load(Input{Files: []string{path}})
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(back, c) {
		t.Errorf("read back\n%+v\nwant\n%+v", back, c)
	}
	again := r.YAML("lycoris")
	_, r2, err := Load(Input{Files: []string{path}})
	if err != nil || string(r2.YAML("lycoris")) != string(again) {
		t.Errorf("writing isn't stable: %v", err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"# --set name", "# preset style:3:6", "# built-in", `name: "my \"cat\" é\u202e"`, "lr: 1.0e-4"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the file doesn't hold %q:\n%s", want, text)
		}
	}
}

func TestResume(t *testing.T) {
	dir := t.TempDir()
	_, path := resolvedFile(t, Input{NoConfig: true, Dir: dir, Preset: "style", Flags: map[string][]string{"dim": {"8"}, "model.path": {"m.safetensors"}, "data": {"d"}}})
	resume := func(in Input) (*Config, error) {
		in.ResumeFile, in.Dir = path, dir
		c, _, err := Load(in)
		return c, err
	}
	c, err := resume(Input{})
	if err != nil || c.Dim != 8 || c.ConvDim != 16 || c.Steps != 4000 {
		t.Fatalf("got %v, %+v", err, c)
	}
	if _, err := resume(Input{Preset: "style", Flags: map[string][]string{"dim": {"8"}, "model.path": {"m.safetensors"}, "data": {"d"}}}); err != nil {
		t.Errorf("the same command again: %v", err)
	}
	c, err = resume(Input{Flags: map[string][]string{"epochs": {"2"}, "threads": {"1"}}, Sets: []string{"save.keep=1", "sample.prompts=[a]"}})
	if err != nil || c.Epochs != 2 || c.Steps != 0 || c.Save.Keep != 1 {
		t.Errorf("keys that may change: %v %+v", err, c)
	}
	_, err = resume(Input{Flags: map[string][]string{"dim": {"4"}}, Sets: []string{"seed=1"}})
	if fault.KindOf(err) != fault.Resume {
		t.Fatalf("fixed keys: got %v", err)
	}
	equal(t, list(t, err), []string{
		"--dim: can't resume: dim was 8, is 4 | leave it as it was, or start a new run with another --name",
		"--set seed: can't resume: seed was 42, is 1 | leave it as it was, or start a new run with another --name"})
	write := filepath.Join(dir, "lycoris.yaml")
	if err := os.WriteFile(write, []byte("dim: 64\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := resume(Input{}); err != nil {
		t.Errorf("a lycoris.yaml in the folder counts on resume: %v", err)
	}
}

func TestFormatFloat(t *testing.T) {
	for f, want := range map[float64]string{0: "0.0", 1: "1.0", 16: "16.0", 0.05: "0.05", 1e-4: "1.0e-4", 2.5e-8: "2.5e-8", 1e7: "1.0e+7", -0.001: "-0.001", 1e300: "1.0e+300", 123456.5: "123456.5"} {
		if got := formatFloat(f); got != want {
			t.Errorf("%g: got %q, want %q", f, got, want)
		}
	}
}

func FuzzFile(f *testing.F) {
	for _, s := range []string{"dim: 8\nlr: 1.0e-4\n", "data: [a, {path: b}]\n", `{"dim": 8, "bucket": {"min": 64}}`, "dim = 8\n[bucket]\nmin = 64\n[[data]]\npath = 'x'\n", "a: &a [*a]", "targets: [a]\n", "\tx"} {
		for ext := range 3 {
			f.Add(s, ext)
		}
	}
	f.Fuzz(func(t *testing.T, text string, ext int) {
		var found Findings
		name := "f" + []string{".yaml", ".toml", ".json"}[((ext%3)+3)%3]
		s := source{name: name, data: []byte(text)}
		n := s.parse(&found)
		lay := newLayer(name)
		if n != nil && n.kind == mapNode {
			(&converter{f: &found}).group(n, "", lay)
		}
		for _, e := range found.list {
			if !strings.HasPrefix(e.Path, name) {
				t.Errorf("finding without a place: %q %q", e.Path, e.Message)
			}
		}
		if len(found.list) > 0 {
			return
		}
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		_, r, err := Load(Input{Files: []string{path}})
		if err != nil {
			return // cross checks
		}
		again := filepath.Join(t.TempDir(), "r.yaml")
		if err := os.WriteFile(again, r.YAML(""), 0o644); err != nil {
			t.Fatal(err)
		}
		_, r2, err := Load(Input{Files: []string{again}})
		if err != nil {
			t.Fatalf("decode, print, decode: %v", err)
		}
		for _, k := range keys {
			if a, b := r.Value(k.Path), r2.Value(k.Path); a != b {
				t.Errorf("%s was %s, reads back as %s", k.Path, a, b)
			}
		}
	})
}
