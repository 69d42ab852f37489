package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"lycoris/internal/fault"
)

// write puts a file into a fresh folder and returns the folder.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// list returns the findings of err as "origin: message | advice".
func list(t *testing.T, err error) []string {
	t.Helper()
	var f *Findings
	if !errors.As(err, &f) {
		if err == nil {
			return nil
		}
		t.Fatalf("got %T: %v", err, err)
	}
	var out []string
	for _, e := range f.List() {
		s := e.Error()
		if e.Advice != "" {
			s += " | " + e.Advice
		}
		out = append(out, s)
	}
	return out
}

func equal(t *testing.T, got, want []string) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestFileFindings(t *testing.T) {
	tests := []struct {
		name, text string
		want       []string
	}{
		{"unknown.yaml", "dim: 8\n\nalgoo: lora\n", []string{`unknown.yaml:3:1: unknown key "algoo" | did you mean "algo"?`}},
		{"foreign.yaml", "network_dim: 8\nlearning_rate: 1.0e-4\nmixed_precision: fp16\n", []string{
			`foreign.yaml:1:1: unknown key "network_dim" | did you mean "dim"?`,
			`foreign.yaml:2:1: unknown key "learning_rate" | did you mean "lr"?`,
			`foreign.yaml:3:1: unknown key "mixed_precision" | did you mean "precision"?`}},
		{"types.yaml", "dim: \"16\"\nbatch_size: 1.9\ntucker: yes\nname: 5\nlr: fast\nbucket: 512\nseed: true\n", []string{
			`types.yaml:1:6: dim: "16" is not a whole number (1 to 1000000000000000) | remove the quotes`,
			`types.yaml:2:13: batch_size: "1.9" is not a whole number (1 to 4096)`,
			`types.yaml:3:9: tucker: "yes" is not true or false | yes is text here; write true or false`,
			`types.yaml:4:7: name: "5" is not text | put it in quotes: "5"`,
			`types.yaml:5:5: lr: "fast" is not a number (more than 0)`,
			`types.yaml:6:9: bucket: "512" is not a group of keys | its keys are enable, resolution, min, max, step, no_upscale`,
			`types.yaml:7:7: seed: "true" is not a whole number (0 or more)`}},
		{"ranges.yaml", "dim: 0\nalpha: 0\nlr: -1\nsteps: 0\nbucket: {resolution: 63, max: 1000000}\ndropout: {rank: 1}\nlr_te: .inf\nlr_unet: .nan\n", []string{
			`ranges.yaml:1:6: dim: 0 is out of range, it wants a whole number (1 to 1000000000000000)`,
			`ranges.yaml:2:8: alpha: 0 is out of range, it wants a number (more than 0)`,
			`ranges.yaml:3:5: lr: -1 is out of range, it wants a number (more than 0)`,
			`ranges.yaml:4:8: steps: 0 is out of range, it wants a whole number (1 to 1000000000)`,
			`ranges.yaml:5:22: bucket.resolution: 63 is out of range, it wants auto, a size or [width, height] (64 to 8192)`,
			`ranges.yaml:5:31: bucket.max: 1000000 is out of range, it wants a whole number (64 to 8192)`,
			`ranges.yaml:6:17: dropout.rank: 1 is out of range, it wants a number (0 or more, below 1)`,
			`ranges.yaml:7:8: lr_te: .inf is out of range, it wants a number (0 or more)`,
			`ranges.yaml:8:10: lr_unet: .nan is out of range, it wants a number (0 or more)`}},
		{"huge.json", `{"lr": 1e309, "dim": 10000000000000000}`, []string{
			`huge.json:1:8: lr: 1e309 is out of range, it wants a number (more than 0)`,
			`huge.json:1:22: dim: 10000000000000000 is out of range, it wants a whole number (1 to 1000000000000000)`}},
		{"later.yaml", "optimizer: {name: lion}\nmodel: {family: sdxl}\ntrain_bias: true\ntrain: {min_snr_gamma: 5}\n", []string{
			`later.yaml:1:19: optimizer.name "lion" is not served yet: this version has adamw`,
			`later.yaml:2:17: model.family "sdxl" is not served yet: this version trains sd1`,
			`later.yaml:3:1: unknown key "train_bias" | this version doesn't have it yet`,
			`later.yaml:4:9: unknown key "train.min_snr_gamma" | this version doesn't have it yet`}},
		{"layers.yaml", "algo: loha\nlayers:\n  - {match: a*, dim: 0}\n  - {dimm: 4}\n  - {dim: 4}\n  - x\n", []string{
			`layers.yaml:3:22: dim: 0 is out of range, it wants a whole number (1 to 1000000000000000)`,
			`layers.yaml:4:6: unknown key "layers.dimm" | did you mean "dim"?`,
			`layers.yaml:5:5: an entry of layers has no match`,
			`layers.yaml:6:5: an entry of layers is a group of keys such as {match: "unet.*attn1*", dim: 8}`}},
		{"pairs.yaml", "algo: lokr\ndecompose_both: true\nfull_matrix: true\n", []string{`pairs.yaml:3:14: decompose_both and full_matrix are both given | keep one of them`}},
		{"block.yaml", "algo: dylora\ndim: 16\nblock_size: 3\n", []string{`block.yaml:3:13: block_size 3 does not divide dim 16 and conv_dim 16`}},
		{"twice.yaml", "dim: 4\nlr: 1\ndim: 8\n", []string{`twice.yaml:3:1: key "dim" is given twice | the first is at twice.yaml:1:1`}},
		{"twice.json", "{\"dim\": 4,\n \"dim\": 8}", []string{`twice.json:2:2: key "dim" is given twice | the first is at twice.json:1:2`}},
		{"twice.toml", "dim = 4\n[bucket]\nmin = 64\n[bucket]\nmax = 128\n", []string{`twice.toml:4:2: table "bucket" is given twice | the first is at twice.toml:2:2`}},
		{"types.toml", "dim = \"16\"\nseed = 1.5\n[train]\ntran_te = true\n", []string{
			`types.toml:1:7: dim: "16" is not a whole number (1 to 1000000000000000) | remove the quotes`,
			`types.toml:2:8: seed: "1.5" is not a whole number (0 or more)`,
			`types.toml:4:1: unknown key "train.tran_te" | did you mean "train.train_te"?`}},
		{"dotted.yaml", "model.path: x\n", []string{`dotted.yaml:1:1: unknown key "model.path" | write it as a key of the group "model"`}},
		{"bare.yaml", "min_lr: 0.1\nbukket: {min: 64}\n", []string{
			`bare.yaml:1:1: unknown key "min_lr" | did you mean "scheduler.min_lr"?`,
			`bare.yaml:2:1: unknown key "bukket" | did you mean "bucket"?`}},
		{"both.yaml", "steps: 5\nepochs: 2\n", []string{`both.yaml:2:9: steps and epochs are both given | keep one of them; steps is at both.yaml:1:8`}},
		{"tab.yaml", "model:\n\tpath: x\n", []string{"tab.yaml:2:1: is indented with a tab, YAML wants blanks"}},
		{"list.yaml", "- dim\n", []string{"list.yaml:1:1: a configuration is a group of keys, this is a list"}},
		{"empty.yaml", "dim:\n", []string{"empty.yaml:1:5: dim has no value, it wants a whole number (1 to 1000000000000000)"}},
		{"docs.yaml", "dim: 4\n---\ndim: 8\n", []string{"docs.yaml:2:1: a second document begins here, a configuration is one"}},
		{"data.yaml", "data:\n  - {path: a, repeats: 0}\n  - {repats: 3}\n  - [b]\n", []string{
			`data.yaml:2:24: repeats: 0 is out of range, it wants a whole number (1 to 1000000)`,
			`data.yaml:3:6: unknown key "data.repats" | did you mean "repeats"?`,
			`data.yaml:3:5: an entry of data has no path`,
			`data.yaml:4:5: data: a list is not a list of folders`}},
		{"hex.yaml", "dim: 0x10\n", []string{`hex.yaml:1:6: dim: "0x10" is not a whole number (1 to 1000000000000000) | write it in decimal digits only`}},
		{"utf8.yaml", "name: \"a\xff\"\n", []string{"utf8.yaml:1:9: is not UTF-8 text | save the file as UTF-8"}},
		{"open.json", `{"dim": 4`, []string{"open.json:1:10: is not valid JSON: it ends too early"}},
		{"extra.json", "{}\n{}", []string{"extra.json:2:1: text follows after the configuration"}},
		{"name.yaml", "name: ../x\n", []string{`name.yaml:1:7: name "../x" can't be the name of a folder | no slashes, at most 200 bytes; the folder that holds it is out`}},
		{"cross.yaml", "bucket: {min: 512, max: 256}\ntrain: {timesteps: [500, 500]}\n", []string{
			`cross.yaml:1:15: bucket.min 512 is more than bucket.max 256`,
			`cross.yaml:2:20: train.timesteps [500, 500] is empty: the first must be less than the second`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := write(t, map[string]string{tt.name: tt.text})
			_, _, err := Load(Input{Files: []string{tt.name}, Dir: dir})
			equal(t, list(t, err), tt.want)
			if fault.KindOf(err) != fault.Usage {
				t.Errorf("kind %v, want usage", fault.KindOf(err))
			}
		})
	}
}

func TestHostileFiles(t *testing.T) {
	var bomb strings.Builder
	bomb.WriteString("a00: &a00 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := 1; i < 12; i++ {
		bomb.WriteString("a" + itoa(i) + ": &a" + itoa(i) + " [" + strings.Repeat("*a"+itoa(i-1)+", ", 10) + "]\n")
	}
	tests := map[string]struct{ text, words string }{
		"bomb.yaml":   {bomb.String(), "expands to more than"},
		"nested.yaml": {strings.Repeat("[", 10_000), ""},
		"deep.yaml":   {"a: " + strings.Repeat("[", 100) + strings.Repeat("]", 100), "nested more than"},
		"deep.json":   {`{"a":` + strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000) + "}", "nested"},
		"deep.toml":   {"a = " + strings.Repeat("[", 9_000) + strings.Repeat("]", 9_000), "nested"},
		"cycle.yaml":  {"a: &a [*a]\n", ""},
		"many.yaml":   {strings.Repeat("x: 1\n", 50), "and 79 more"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := write(t, map[string]string{name: tt.text})
			_, _, err := Load(Input{Files: []string{name}, Dir: dir})
			if err == nil || fault.KindOf(err) != fault.Usage || !strings.Contains(err.Error(), tt.words) {
				t.Fatalf("got %v, want a usage error with %q", err, tt.words)
			}
			if n := len(list(t, err)); n > maxFindings+1 {
				t.Errorf("%d findings are shown", n)
			}
		})
	}
	dir := write(t, map[string]string{"big.yaml": strings.Repeat("#", maxFileBytes+1)})
	_, _, err := Load(Input{Files: []string{"big.yaml"}, Dir: dir})
	if fault.KindOf(err) != fault.Input {
		t.Errorf("a file over the limit: got %v", err)
	}
	_, _, err = Load(Input{Files: []string{"none.yaml"}, Dir: dir})
	if fault.KindOf(err) != fault.Input || !strings.Contains(err.Error(), "no such configuration file") {
		t.Errorf("a missing file: got %v", err)
	}
}

func itoa(i int) string { return string([]rune{rune('0' + i/10), rune('0' + i%10)}) }

func TestCommandLineFindings(t *testing.T) {
	_, _, err := Load(Input{NoConfig: true,
		Flags: map[string][]string{"dim": {"abc"}, "algo": {"lorra"}, "train.train_te": {"yes"}},
		Sets:  []string{"dim=3", "lr", "network_alpha=3", "train.timesteps=[1,2,3]", "targets=[unet.*", "epochs=0", "conv_dim=08"},
		Env:   []string{"LYCORIS_LR=x", "LYCORIS_DIMM=3", "LYCORIS_SEED=", "OTHER=1"}})
	equal(t, list(t, err), []string{
		`LYCORIS_LR: "x" is not a number (more than 0)`,
		`--algo: "lorra" is not one of lora, locon, loha, lokr, full, ia3, dylora, glora, glokr, diag-oft, boft, tlora | did you mean "lora"?`,
		`--dim: "abc" is not a whole number (1 to 1000000000000000)`,
		`--train-te: "yes" is not true or false`,
		`--set dim: key "dim" is given twice on the command line | the first is --dim`,
		`--set: "lr" is not KEY=VALUE`,
		`--set network_alpha: unknown key "network_alpha" | did you mean "alpha"?`,
		`--set train.timesteps: a list is not two whole numbers [a, b] (0 to 1000)`,
		`--set targets: "[unet.*" is not a list such as [a, b]`,
		`--set epochs: 0 is out of range, it wants a whole number (1 to 1000000000)`,
		`--set conv_dim: "08" is not a whole number (0 to 1000000000000000)`,
	})
}

func TestPrecedence(t *testing.T) {
	dir := write(t, map[string]string{
		"lycoris.yaml": "dim: 2\n",
		"a.yaml":       "dim: 3\nlr: 3.0e-4\nbucket: {min: 128, step: 8}\ndata: [x, y]\n",
		"b.toml":       "lr = 4e-4\n[bucket]\nmin = 192\n[[data]]\npath = \"z\"\nrepeats = 3\n",
	})
	dim := func(in Input) int {
		t.Helper()
		in.Dir = dir
		c, _, err := Load(in)
		if err != nil {
			t.Fatal(err)
		}
		return c.Dim
	}
	files := []string{"a.yaml", "b.toml"}
	steps := []struct {
		name string
		in   Input
		want int
	}{
		{"built-in", Input{NoConfig: true}, 16},
		{"preset", Input{NoConfig: true, Preset: "style"}, 32},
		{"auto file over preset", Input{Preset: "style"}, 2},
		{"LYCORIS_CONFIG=none", Input{Env: []string{"LYCORIS_CONFIG=none"}}, 16},
		{"--config instead of the auto file", Input{Files: files}, 3},
		{"environment over files", Input{Files: files, Env: []string{"LYCORIS_DIM=5"}}, 5},
		{"flag over environment", Input{Files: files, Env: []string{"LYCORIS_DIM=5"}, Flags: map[string][]string{"dim": {"6"}}}, 6},
		{"--set over environment", Input{Files: files, Env: []string{"LYCORIS_DIM=5"}, Sets: []string{"dim=7"}}, 7},
	}
	for _, s := range steps {
		if got := dim(s.in); got != s.want {
			t.Errorf("%s: dim %d, want %d", s.name, got, s.want)
		}
	}
	c, r, err := Load(Input{Files: files, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if c.Bucket.Min != 192 || c.Bucket.Step != 8 || c.LR != 4e-4 {
		t.Errorf("maps aren't merged key by key: %+v lr %g", c.Bucket, c.LR)
	}
	if len(c.Data) != 1 || c.Data[0].Path != filepath.Join(dir, "z") || c.Data[0].Repeats != 3 {
		t.Errorf("lists aren't replaced: %+v", c.Data)
	}
	if got := r.Source("bucket.min"); got != "b.toml:3:7" {
		t.Errorf("source %q", got)
	}
	if c.Name != "z" || c.LRUnet != 4e-4 || c.LRTE != 2e-4 || c.Alpha != 3 || c.ConvDim != 3 {
		t.Errorf("derived: name %q lr_unet %g lr_te %g alpha %g conv_dim %d", c.Name, c.LRUnet, c.LRTE, c.Alpha, c.ConvDim)
	}
}

func TestPathsCountFromTheirFile(t *testing.T) {
	dir := write(t, map[string]string{"sub/c.yaml": "model: {path: m.safetensors, vae: /v.safetensors}\ndata: [{path: p}]\n"})
	c, _, err := Load(Input{Dir: dir, Files: []string{"sub/c.yaml"}, Flags: map[string][]string{"out": {"o"}}})
	if err != nil {
		t.Fatal(err)
	}
	if c.Model.Path != filepath.Join(dir, "sub/m.safetensors") || c.Model.VAE != "/v.safetensors" || c.Data[0].Path != filepath.Join(dir, "sub/p") || c.Out != filepath.Join(dir, "o") {
		t.Errorf("got %q %q %q %q", c.Model.Path, c.Model.VAE, c.Data[0].Path, c.Out)
	}
	c, _, err = Load(Input{NoConfig: true, Flags: map[string][]string{"model.path": {"m.safetensors"}, "data": {"a", "10_cats"}}})
	if err != nil || c.Model.Path != "m.safetensors" || len(c.Data) != 2 || c.Name != "a" {
		t.Errorf("without a folder flags' paths stay as they are: %v %+v", err, c)
	}
}

func TestStepsAndEpochs(t *testing.T) {
	dir := write(t, map[string]string{"e.yaml": "epochs: 3\n"})
	c, _, err := Load(Input{Dir: dir, Files: []string{"e.yaml"}, Preset: "character"})
	if err != nil || c.Epochs != 3 || c.Steps != 0 {
		t.Errorf("epochs of a file over a preset's steps: %v, steps %d epochs %d", err, c.Steps, c.Epochs)
	}
	c, _, err = Load(Input{Dir: dir, Files: []string{"e.yaml"}, Flags: map[string][]string{"steps": {"7"}}})
	if err != nil || c.Epochs != 0 || c.Steps != 7 {
		t.Errorf("a flag's steps over a file's epochs: %v, steps %d epochs %d", err, c.Steps, c.Epochs)
	}
}

func TestValues(t *testing.T) {
	c, _, err := Load(Input{NoConfig: true, Sets: []string{"scheduler.warmup=100", "save.state_every=90s", "data_limits.max_file=1GiB", "data_limits.max_pixels=5k",
		"bucket.resolution=[768,1024]", "targets=[\"unet.*\", text_encoder.*]", "sample.prompts=a cat --w 512", "seed=18446744073709551615",
		"train.checkpointing=false", "threads=3", "exclude=[]", "lr=1e-4", "model.max_tokens=150", "optimizer.betas=[0.8, 0.99]"}})
	if err != nil {
		t.Fatal(err)
	}
	got := []any{c.Scheduler.Warmup, c.Save.StateEvery, c.DataLimits.MaxFile, c.DataLimits.MaxPixels, c.Bucket.Resolution, c.Targets, c.Sample.Prompts,
		c.Seed, c.Train.Checkpointing, c.Threads, c.Exclude, c.LR, c.Model.MaxTokens, c.Optimizer.Betas}
	want := []any{Warmup{Steps: 100}, Interval{Time: 90 * time.Second}, int64(1 << 30), int64(5000), Size{768, 1024}, Targets{Globs: []string{"unet.*", "text_encoder.*"}},
		[]string{"a cat --w 512"}, uint64(1<<64 - 1), "false", 3, []string{}, 1e-4, 150, [2]float64{0.8, 0.99}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %#v\nwant %#v", got, want)
	}
}

func TestWarnings(t *testing.T) {
	in := Input{NoConfig: true, Env: []string{"LYCORIS_DIMM=3"}, Sets: []string{"conv_dim=0", "conv_alpha=2"}}
	_, r, err := Load(in)
	if err != nil || len(r.Warnings) != 2 {
		t.Fatalf("got %v, %v", err, r)
	}
	for i, want := range []string{"LYCORIS_DIMM: is not a key of the configuration, it is ignored", "--set conv_alpha: conv_alpha has no effect: conv_dim is 0"} {
		if got := r.Warnings[i].Error(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	in.Strict = true
	if _, _, err := Load(in); len(list(t, err)) != 2 {
		t.Errorf("strict: got %v", err)
	}
}

func TestRequire(t *testing.T) {
	c, _, err := Load(Input{NoConfig: true})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, list(t, c.Require("model.path", "data", "dim")), []string{
		"model.path is missing | give it with --model, or as model.path in a configuration file",
		"data is missing | give it with --data, or as data in a configuration file"})
}
