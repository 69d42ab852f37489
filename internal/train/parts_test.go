package train

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lycoris/internal/testutil"
	"lycoris/internal/testutil/tinymodel"
)

// partsJob is a short run of one algorithm.
func partsJob(t *testing.T, model, data, steps string, sets ...string) *Job {
	t.Helper()
	return job(t, 2, Input{}, append([]string{"model.path=" + model, `data=[{"path":"` + data + `"}]`, "bucket.resolution=64", "bucket.min=64", "steps=" + steps, "dim=4",
		"conv_dim=4", "lr=1e-3", "scheduler.name=constant", "scheduler.warmup=0", "optimizer.weight_decay=0.1", "batch_size=1", "grad_accum=2", "dropout.module=0.3", "save.every_epochs=0", "cache.dir=" + t.TempDir()}, sets...)...)
}

// Runs with counts of updates for each block (dylora) and with decay of what factors are differences to (full) resume exactly.
func TestResumeOfPartsAndOrigins(t *testing.T) {
	model, data := filepath.Join(t.TempDir(), "tiny.safetensors"), pictureFolder(t)
	if err := tinymodel.WriteTiny(model, 1, ""); err != nil {
		t.Fatal(err)
	}
	for name, sets := range map[string][]string{"dylora": {"algo=dylora", "block_size=1"}, "full": {"algo=full"}} {
		t.Run(name, func(t *testing.T) {
			sum, err := run(t, context.Background(), partsJob(t, model, data, "6", sets...), t.TempDir(), false)
			if err != nil {
				t.Fatal(err)
			}
			want := read(t, sum.Adapter)
			dir, cause := t.TempDir(), errors.New("stop")
			ctx, cancel := context.WithCancelCause(context.Background())
			defer cancel(nil)
			j := partsJob(t, model, data, "6", sets...)
			j.feed = &stopping{feed: j.feed, at: 3, stop: func() { cancel(cause) }}
			if sum, err = run(t, ctx, j, dir, false); !errors.Is(err, cause) || sum.Step != 3 {
				t.Fatalf("stopped at step %d with %v", sum.Step, err)
			}
			states, err := filepath.Glob(filepath.Join(dir, "x", "*", "*", stateOptimizer))
			if err != nil || len(states) != 1 {
				t.Fatalf("states %q, %v", states, err)
			}
			counts := 0
			for key := range testutil.Tensors(t, states[0]) {
				if strings.HasPrefix(key, "steps/") {
					counts++
				}
			}
			if (counts > 0) != (name == "dylora") {
				t.Errorf("the state has %d counts of updates", counts)
			}
			if sum, err = run(t, context.Background(), partsJob(t, model, data, "6", sets...), dir, true); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(read(t, sum.Adapter), want) {
				t.Error("the adapter differs from the unbroken run's")
			}
		})
	}
}

// An update of a DyLoRA moves the blocks that its forwards drew and no others, neither by their moments nor by weight decay.
func TestIdleBlocks(t *testing.T) {
	model, data := filepath.Join(t.TempDir(), "tiny.safetensors"), pictureFolder(t)
	if err := tinymodel.WriteTiny(model, 1, ""); err != nil {
		t.Fatal(err)
	}
	moved := func(steps string) (trained map[partKey]bool, down map[partKey][]float32) {
		j := partsJob(t, model, data, steps, "algo=dylora", "block_size=1", "save.dtype=fp32")
		sum, err := run(t, context.Background(), j, t.TempDir(), false)
		if err != nil {
			t.Fatal(err)
		}
		file := testutil.Tensors(t, sum.Adapter)
		down = map[partKey][]float32{}
		for _, a := range j.network.Adapters {
			whole := file[a.Target().Name+".lora_down.weight"].Float32()
			for i, values := range slices.Collect(slices.Chunk(whole, len(whole)/4)) {
				down[partKey{a.Target().Path, i}] = values
			}
		}
		return j.engine.trainedParts, down
	}
	_, before := moved("2")
	trained, after := moved("3") // the third update's parts
	if len(trained) == 0 || len(trained) > 2*len(before)/4 || len(after) != len(before) {
		t.Fatalf("%d of %d blocks trained by two forwards", len(trained), len(before))
	}
	for key, was := range before {
		if same := slices.Equal(was, after[key]); same == trained[key] {
			t.Errorf("block %v: trained %v, unchanged %v", key, trained[key], same)
		}
	}
}
