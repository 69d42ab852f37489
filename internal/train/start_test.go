package train

import (
	"context"
	"encoding/json"
	"math"
	"path/filepath"
	"testing"

	"lycoris/internal/runs"
	"lycoris/internal/tensor"
	"lycoris/internal/testutil"
	"lycoris/internal/testutil/tinymodel"
)

// A new adapter with DoRA starts at the norms of the frozen weights: the first loss is that without DoRA, and a resumed run goes on from its own magnitudes.
func TestDoRAStartsAtTheWeights(t *testing.T) {
	model, data := filepath.Join(t.TempDir(), "tiny.safetensors"), pictureFolder(t)
	if err := tinymodel.WriteTiny(model, 1, ""); err != nil {
		t.Fatal(err)
	}
	losses := func(dora string, steps ...string) (loss []float64, adapter map[string]tensor.Tensor) {
		out := t.TempDir()
		var sum Summary
		for i, s := range steps {
			sets := []string{"model.path=" + model, `data=[{"path":"` + data + `"}]`, "bucket.resolution=64", "bucket.min=64", "algo=loha", "dim=2", "dora=" + dora, "lr=1e-3",
				"save.every_epochs=0", "cache.dir=" + t.TempDir(), "steps=" + s}
			var err error
			if sum, err = run(t, context.Background(), job(t, 2, Input{}, sets...), out, i > 0); err != nil {
				t.Fatal(err)
			}
		}
		records, _, err := runs.ReadMetrics(filepath.Join(out, "x"))
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			if r.Type == "step" {
				var l stepLoss
				if err := json.Unmarshal(r.Raw, &l); err != nil {
					t.Fatal(err)
				}
				loss = append(loss, l.Loss)
			}
		}
		return loss, testutil.Tensors(t, sum.Adapter)
	}
	plain, _ := losses("none", "1")
	const key = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.dora_scale"
	for _, axis := range []string{"in", "out"} {
		got, adapter := losses(axis, "2")
		if e := math.Abs(got[0]-plain[0]) / plain[0]; !(e < 1e-6) {
			t.Errorf("dora %s: first loss %.9f, %.9f without", axis, got[0], plain[0])
		}
		if axis == "out" {
			continue
		}
		again, resumed := losses(axis, "1", "2")
		if again[1] != got[1] {
			t.Errorf("dora %s: the second loss is %.9f after a resume, %.9f without", axis, again[1], got[1])
		}
		a, ok := adapter[key]
		if b := resumed[key]; !ok || testutil.MaxRel(b.Float32(), a.Float32()) != 0 {
			t.Errorf("dora %s: %d magnitudes, the resumed run's differ", axis, len(a.Data)/4)
		}
	}
}
