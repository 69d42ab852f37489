package train

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"image"
	"image/color"
	"image/png"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"lycoris/internal/algos"
	"lycoris/internal/config"
	"lycoris/internal/kernels/cpu"
	"lycoris/internal/rng"
	"lycoris/internal/runs"
	"lycoris/internal/testutil"
	"lycoris/internal/testutil/tinymodel"
	"lycoris/internal/ui"
)

// job prepares a run of the settings.
func job(t *testing.T, threads int, in Input, sets ...string) *Job {
	t.Helper()
	cfg, _, err := config.Load(config.Input{Sets: sets, NoConfig: true, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	b, err := cpu.Open(cpu.Options{Threads: threads})
	if err != nil {
		t.Fatal(err)
	}
	in.Config, in.Backend, in.UI = cfg, b, ui.New(ui.Options{Stdout: io.Discard, Stderr: io.Discard, NoProgress: true})
	in.StepsGiven = true
	j, err := Prepare(in)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(j.Close)
	return j
}

func run(t *testing.T, ctx context.Context, j *Job, dir string, resume bool) (Summary, error) {
	t.Helper()
	var r *runs.Run
	var err error
	if resume {
		r, _, err = runs.Resume(filepath.Join(dir, "x"))
	} else {
		r, err = runs.Create(dir, "x", false)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	return j.Run(ctx, Options{Run: r, Resume: resume, Version: "test"})
}

// replayCase is a run of the Python stack: scripts/goldens/replay_cases.py.
type replayCase struct {
	Model  string   `json:"model"`
	Flags  []string `json:"flags"`
	Replay string   `json:"replay"` // case whose rows these are, too
}

// The recorded runs of lycoris-lora, diffusers and torch come out step by step: losses within 1e-4, the whole update within 1 %.
func TestReplayOfPython(t *testing.T) {
	cases, err := os.ReadDir(testutil.GoldenPath(t, "replay"))
	if err != nil || len(cases) < 16 {
		t.Fatalf("%d cases, %v", len(cases), err)
	}
	for _, entry := range cases {
		name := entry.Name()
		t.Run(name, func(t *testing.T) {
			dir := testutil.GoldenPath(t, "replay", name)
			c := replayCase{Replay: name}
			var want struct {
				Steps []stepLoss `json:"steps"`
			}
			readJSON(t, filepath.Join(dir, "case.json"), &c)
			readJSON(t, filepath.Join(dir, "losses.json"), &want)
			sets := []string{"model.path=" + testutil.GoldenPath(t, c.Model)}
			keys := map[string]string{"--steps": "steps", "--batch-size": "batch_size", "--lr-unet": "lr_unet", "--lr-te": "lr_te", "--scheduler": "scheduler.name", "--warmup": "scheduler.warmup"}
			for i := 0; i < len(c.Flags); i += 2 {
				if c.Flags[i] == "--set" {
					sets = append(sets, c.Flags[i+1])
				} else if key := keys[c.Flags[i]]; key != "" {
					sets = append(sets, key+"="+c.Flags[i+1])
				} else {
					t.Fatalf("flag %s of the case is not known here", c.Flags[i])
				}
			}
			j := job(t, 2, Input{Replay: testutil.GoldenPath(t, "replay", c.Replay, "replay.safetensors"), NetworkWeights: filepath.Join(dir, "adapter.safetensors")}, sets...)
			checkBlocks(t, j, filepath.Join(dir, "blocks.json"), len(want.Steps))
			out := t.TempDir()
			sum, err := run(t, context.Background(), j, out, false)
			if err != nil {
				t.Fatal(err)
			}
			records, _, err := runs.ReadMetrics(filepath.Join(out, "x"))
			if err != nil {
				t.Fatal(err)
			}
			var losses []float64
			for _, r := range records {
				if r.Type == "step" {
					var l stepLoss
					if err := json.Unmarshal(r.Raw, &l); err != nil {
						t.Fatal(err)
					}
					losses = append(losses, l.Loss)
				}
			}
			if len(losses) != len(want.Steps) || len(losses) < 6 {
				t.Fatalf("%d losses, the peer has %d", len(losses), len(want.Steps))
			}
			var worst float64
			for i, l := range losses {
				e := math.Abs(l-want.Steps[i].Loss) / want.Steps[i].Loss
				if !(e <= 1e-4) {
					t.Errorf("step %d: loss %.7f, the peer's %.7f", i+1, l, want.Steps[i].Loss)
				}
				worst = max(worst, e)
			}
			update := compareUpdates(t, filepath.Join(dir, "adapter.safetensors"), filepath.Join(dir, "expected.safetensors"), sum.Adapter)
			t.Logf("losses differ by %.1e at most, updates by %.1e", worst, update)
		})
	}
}

// update writes what runs draw into the cases of DyLoRA; scripts/goldens/replay_cases.py then makes the peer's runs with it.
var update = flag.Bool("update", false, "write blocks.json of the replay cases")

// checkBlocks compares the block that each DyLoRA layer trains at each forward with the file, which the peer was given; not every case has one.
func checkBlocks(t *testing.T, j *Job, path string, forwards int) {
	t.Helper()
	var want map[string][]int
	switch _, err := os.Stat(path); {
	case err == nil:
		readJSON(t, path, &want)
	case !*update:
		return
	}
	got := map[string][]int{}
	for i, a := range j.network.Adapters {
		d, ok := a.(interface{ Blocks() int })
		if !ok || d.Blocks() == 1 {
			return
		}
		for forward := range forwards {
			in := a.Inputs()[0]
			values := make([]float32, in.Size)
			in.Fill(values, rng.New(j.cfg.Seed, "adapter dropout", uint64(forward), uint64(i)), algos.Step{})
			got[a.Target().Name] = append(got[a.Target().Name], slices.Index(values[d.Blocks():], 1))
		}
	}
	if *update {
		b, err := json.Marshal(got)
		if err == nil {
			err = os.WriteFile(path, append(bytes.ReplaceAll(b, []byte("],"), []byte("],\n")), '\n'), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	if !maps.EqualFunc(got, want, slices.Equal) {
		t.Error("the run draws other blocks than the peer was given: write them with -update, then make the goldens again")
	}
}

type stepLoss struct {
	Loss float64 `json:"loss"`
}

func readJSON(t *testing.T, path string, to any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, to)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// compareUpdates compares final - initial of two adapters by their L2 norm and returns the difference relative to the update.
func compareUpdates(t *testing.T, initial, want, got string) float64 {
	t.Helper()
	a, b, c := testutil.Tensors(t, initial), testutil.Tensors(t, want), testutil.Tensors(t, got)
	var diff, norm float64
	for name, x := range b {
		y, ok := c[name]
		if !ok {
			t.Errorf("%s is missing", name)
			continue
		}
		from, xs, ys := a[name].Float32(), x.Float32(), y.Float32()
		for i := range xs {
			diff += math.Pow(float64(ys[i])-float64(xs[i]), 2)
			norm += math.Pow(float64(xs[i])-float64(from[i]), 2)
		}
	}
	e := math.Sqrt(diff / norm)
	if !(e < 0.01) {
		t.Errorf("updates differ by %.3f %%", 100*e)
	}
	return e
}

// pictureFolder makes four small pictures with captions.
func pictureFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for i := range 4 {
		m := image.NewRGBA(image.Rect(0, 0, 64+8*i, 64))
		for y := range 64 {
			for x := range 64 + 8*i {
				m.Set(x, y, color.RGBA{uint8(4 * x), uint8(4 * y), uint8(60 * i), 255})
			}
		}
		var b bytes.Buffer
		if err := png.Encode(&b, m); err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, string(rune('a'+i)))
		os.WriteFile(name+".png", b.Bytes(), 0o644)
		os.WriteFile(name+".txt", []byte("one, two, three"), 0o644)
	}
	return dir
}

func settings(t *testing.T, model, data string) []string {
	return []string{"model.path=" + model, `data=[{"path":"` + data + `","shuffle":true,"flip":true}]`, "bucket.resolution=64", "bucket.min=64", "steps=6", "dim=2", "lr=1e-3",
		"batch_size=2", "grad_accum=2", "dropout.rank=0.2", "dropout.module=0.1", "dropout.neuron=0.1", "train.scale_weight_norms=0.05", "save.every_epochs=0",
		"save.state_every=2", "cache.dir=" + t.TempDir()}
}

// A run that is stopped after a step and resumed writes the bytes of one that never stopped; so does one on another number of threads.
func TestResumeIsExact(t *testing.T) {
	model, data := filepath.Join(t.TempDir(), "tiny.safetensors"), pictureFolder(t)
	if err := tinymodel.WriteTiny(model, 1, ""); err != nil {
		t.Fatal(err)
	}
	whole := t.TempDir()
	sum, err := run(t, context.Background(), job(t, 2, Input{}, settings(t, model, data)...), whole, false)
	if err != nil {
		t.Fatal(err)
	}
	want := read(t, sum.Adapter)

	t.Run("one thread", func(t *testing.T) {
		sum, err := run(t, context.Background(), job(t, 1, Input{}, settings(t, model, data)...), t.TempDir(), false)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(read(t, sum.Adapter), want) {
			t.Error("the adapter differs")
		}
	})
	for _, at := range []int{1, 3, 5} {
		t.Run("stopped at "+string(rune('0'+at)), func(t *testing.T) {
			dir := t.TempDir()
			cause := errors.New("stop")
			ctx, cancel := context.WithCancelCause(context.Background())
			defer cancel(nil)
			j := job(t, 2, Input{}, settings(t, model, data)...)
			j.feed = &stopping{feed: j.feed, at: at, stop: func() { cancel(cause) }}
			sum, err := run(t, ctx, j, dir, false)
			if !errors.Is(err, cause) || sum.Step != at {
				t.Fatalf("stopped at step %d with %v", sum.Step, err)
			}
			sum, err = run(t, context.Background(), job(t, 2, Input{}, settings(t, model, data)...), dir, true)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(read(t, sum.Adapter), want) {
				t.Error("the adapter differs from the unbroken run's")
			}
		})
	}
}

// stopping is a feed that stops the run while an update is in flight.
type stopping struct {
	feed
	at   int
	stop func()
}

func (s *stopping) micro(ctx context.Context, update, k int) (*micro, error) {
	if update == s.at && k == 1 {
		s.stop()
	}
	return s.feed.micro(ctx, update, k)
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
