package network

import (
	"os"
	"strings"
	"testing"

	"lycoris/internal/algos"
	"lycoris/internal/arch"
	"lycoris/internal/checkpoint"
	"lycoris/internal/kernels/ref"
	"lycoris/internal/tensor"
	"lycoris/internal/testutil"
)

// Folders that peft wrote change the weights as peft's own merge does: scripts/goldens/peft_folders.py.
func TestPeftFolders(t *testing.T) {
	base, err := checkpoint.Open(testutil.GoldenPath(t, "tiny-sd1"))
	if err != nil {
		t.Fatal(err)
	}
	defer base.Close()
	entries, err := os.ReadDir(testutil.GoldenPath(t, "peft"))
	if err != nil {
		t.Fatal(err)
	}
	cases := 0
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		cases++
		t.Run(e.Name(), func(t *testing.T) {
			n, err := Load(testutil.GoldenPath(t, "peft", e.Name()), base, "", algos.Options{})
			if err != nil {
				t.Fatal(err)
			}
			want := testutil.Tensors(t, testutil.GoldenPath(t, "peft", e.Name()+".safetensors"))
			if len(n.Adapters) != len(want) {
				t.Errorf("%d adapters, want %d", len(n.Adapters), len(want))
			}
			for _, a := range n.Adapters {
				change, ok := want[a.Target().Path]
				if !ok {
					t.Errorf("an adapter of %s, which peft has not", a.Target().Path)
					continue
				}
				got, err := algos.Change(ref.Open(), a, weight(t, base, a.Target()))
				if err != nil {
					t.Fatal(err)
				}
				testutil.NearRel(t, a.Target().Path, got, change.Float32(), 1e-5)
			}
		})
	}
	if cases < 7 {
		t.Errorf("%d folders, want 7", cases)
	}
}

// weight reads the frozen weight of a layer.
func weight(t *testing.T, base *checkpoint.Model, target algos.Target) tensor.Tensor {
	t.Helper()
	component, path, _ := strings.Cut(target.Path, ".")
	w, err := base.Read(arch.Component(component), path+".weight")
	if err != nil {
		t.Fatal(err)
	}
	return tensor.FromFloat32(tensor.F32, target.Shape, w.Float32())
}
