package convert_test

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"lycoris/internal/algos"
	"lycoris/internal/convert"
	"lycoris/internal/tensor"
)

// TestPeftFolders: each component has a folder of its own that acts as the adapter does, read back by the rules of peft's configuration.
func TestPeftFolders(t *testing.T) {
	in := write(t, "lora", algos.Options{Rank: 4, Alpha: 3}, map[string]string{"ss_v2": "False", "note": "mine"})
	out := filepath.Join(t.TempDir(), "peft")
	o := convert.Options{In: in, Out: out, To: "peft", Strip: true, Set: map[string]string{"author": "me"}}
	r, err := convert.Run(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Notes) != 1 {
		t.Errorf("notes %q", r.Notes)
	}
	want := changes(t, in)
	seen := 0
	for _, part := range []string{"unet", "text_encoder"} {
		for path, got := range changes(t, filepath.Join(out, part)) {
			seen++
			x := want[path]
			if len(x) != len(got) {
				t.Fatalf("%s: %d values, want %d", path, len(got), len(x))
			}
			for i := range x {
				if math.Abs(float64(x[i]-got[i])) > 1e-6 {
					t.Fatalf("%s: %g at %d, want %g", path, got[i], i, x[i])
				}
			}
		}
		var config struct {
			Type    string   `json:"peft_type"`
			Rank    float64  `json:"r"`
			Alpha   float64  `json:"lora_alpha"`
			Targets []string `json:"target_modules"`
		}
		text, err := os.ReadFile(filepath.Join(out, part, "adapter_config.json"))
		if err != nil || json.Unmarshal(text, &config) != nil || config.Type != "LORA" || config.Rank != 4 || config.Alpha != 3 {
			t.Errorf("%s: %s (%v)", part, text, err)
		}
		if part == "text_encoder" && !slices.Equal(config.Targets, []string{"encoder.layers.0.mlp.fc1"}) {
			t.Errorf("targets %q", config.Targets)
		}
		f, err := tensor.OpenFile(filepath.Join(out, part, "adapter_model.safetensors"))
		if err != nil {
			t.Fatal(err)
		}
		meta := f.Metadata()
		f.Close()
		if _, ok := meta["note"]; ok || meta["author"] != "me" || meta["format"] != "pt" || meta["ss_v2"] != "False" || meta["lycoris.history"] != "" {
			t.Errorf("metadata %v", meta)
		}
	}
	if seen != len(want) || seen != len(layers) {
		t.Errorf("%d modules, want %d", seen, len(want))
	}
}
