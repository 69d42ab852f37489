package algos_test

import (
	"maps"
	"math"
	"slices"
	"testing"

	"lycoris/internal/algos"
	"lycoris/internal/algos/algostest"
	"lycoris/internal/kernels/ref"
	"lycoris/internal/rng"
	"lycoris/internal/tensor"
	"lycoris/internal/testutil"
)

// What is exported, by every algorithm on every kind of layer, acts like the adapter: as full exactly, as a LoRA of full rank too; a LoRA of less says how far
// it is.
func TestExport(t *testing.T) {
	for _, a := range algos.All {
		layers := algostest.Layers(3)
		for _, name := range slices.Sorted(maps.Keys(layers)) {
			t.Run(a.Name+"/"+name, func(t *testing.T) { checkExport(t, a, layers[name]) })
		}
	}
}

func checkExport(t *testing.T, a *algos.Algorithm, p algostest.Probe) {
	if len(p.Target.Shape) == 1 || a == &algos.Norm {
		t.Skip("a norm's file form is already the whole difference: there is nothing to export")
	}
	adapter, err := a.New(p.Target, algos.Options{Rank: 2, Alpha: 1, Strength: 0.7, BlockSize: 1}, rng.New(1, "test", 0, 0))
	if err != nil || adapter == nil {
		t.Skipf("%s makes no adapter for a layer of shape %v (%v): there is nothing to export", a.Name, p.Target.Shape, err)
	}
	if s, ok := adapter.(algos.Starter); ok {
		if err := s.Start(p.W.Float32()); err != nil {
			t.Fatal(err)
		}
	}
	algostest.Move(adapter)
	b := ref.Open()
	want := p.Run(t, b, nil, adapter).Y
	full, err := algos.ExportFull(b, adapter, p.W)
	if err != nil {
		t.Fatal(err)
	}
	testutil.NearRel(t, "as full", p.Run(t, b, nil, load(t, &algos.Full, p, full)).Y, want, 1e-5)

	rank := min(p.Target.Out(), tensor.Elems(p.Target.Shape[1:]))
	lora, relative, err := algos.ExportLoRA(b, adapter, p.W, rank)
	if bc, ok := adapter.(algos.BiasChanger); ok && bc.BiasChange() != nil {
		if err == nil {
			t.Error("a LoRA took the change of a bias")
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if relative > 1e-6 {
		t.Errorf("a LoRA of full rank misses %.1e of the change", relative)
	}
	testutil.NearRel(t, "as a LoRA of full rank", p.Run(t, b, nil, load(t, &algos.LoRA, p, lora)).Y, want, 1e-4)

	dw, err := algos.Change(b, adapter, p.W)
	if err != nil {
		t.Fatal(err)
	}
	lora, relative, err = algos.ExportLoRA(b, adapter, p.W, 1)
	if err != nil {
		t.Fatal(err)
	}
	near, err := algos.Change(b, load(t, &algos.LoRA, p, lora), p.W)
	if err != nil {
		t.Fatal(err)
	}
	var left, all float64
	for i, v := range dw {
		left += float64(v-near[i]) * float64(v-near[i])
		all += float64(v) * float64(v)
	}
	if got := math.Sqrt(left / all); math.Abs(got-relative) > 1e-5 || got > 1 {
		t.Errorf("a LoRA of rank 1 misses %v of the change, says %v", got, relative)
	}
}

func load(t *testing.T, a *algos.Algorithm, p algostest.Probe, module []tensor.Named) algos.Adapter {
	t.Helper()
	file := map[string]tensor.Tensor{}
	for _, f := range module {
		file[f.Name] = f.Tensor
	}
	adapter, err := a.Load(p.Target, file, algos.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return adapter
}
