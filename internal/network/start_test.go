package network

import (
	"testing"

	"lycoris/internal/algos"
	"lycoris/internal/checkpoint"
	"lycoris/internal/testutil"
)

// A T-LoRA file of lycoris-lora doesn't say where it started: the frozen weights do.
func TestStartFromWeights(t *testing.T) {
	base, err := checkpoint.Open(testutil.GoldenPath(t, "tiny-sd1"))
	if err != nil {
		t.Fatal(err)
	}
	defer base.Close()
	n, err := Load(testutil.GoldenPath(t, "replay", "tlora", "adapter.safetensors"), base, "", algos.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(n.Starters()) != len(n.Adapters) {
		t.Errorf("%d of %d adapters wait for their weight", len(n.Starters()), len(n.Adapters))
	}
	before := testutil.Tensors(t, testutil.GoldenPath(t, "replay", "tlora", "adapter.safetensors"))
	if err := n.Start(Frozen(base), func() {}); err != nil {
		t.Fatal(err)
	}
	for _, f := range n.Tensors() {
		if want, ok := before[f.Name]; ok {
			testutil.NearRel(t, f.Name, f.Float32(), want.Float32(), 0)
		} else if v := f.Float32(); v[0] == 0 {
			t.Errorf("%s starts with 0", f.Name)
		}
	}
	if len(n.Starters()) != 0 {
		t.Errorf("%d adapters still wait", len(n.Starters()))
	}
}
