package algos_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"lycoris/internal/algos"
	"lycoris/internal/algos/algostest"
	"lycoris/internal/fault"
	"lycoris/internal/kernels/ref"
	"lycoris/internal/rng"
	"lycoris/internal/tensor"
	"lycoris/internal/testutil"
)

// nested is what DyLoRA's adapters are besides.
type nested interface {
	algos.Adapter
	Blocks() int
	Use(k int) (input string, values []float32)
}

// newDyLoRA returns a new adapter for p with all factors random.
func newDyLoRA(t *testing.T, p algostest.Probe, o algos.Options) nested {
	t.Helper()
	a, err := algos.DyLoRA.New(p.Target, o, rng.New(1, "test", 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range a.Factors() {
		rng.New(1, "values", 0, uint64(i)).FillNormal(f.Host)
	}
	return a.(nested)
}

// The file cut behind any block, with its alpha as it is, is a LoRA that acts as the adapter did when that block was trained.
func TestDyLoRACut(t *testing.T) {
	for name, p := range algostest.Layers(3) {
		if len(p.Target.Shape) == 1 {
			continue // a norm
		}
		const rank, size = 6, 2
		a := newDyLoRA(t, p, algos.Options{Rank: rank, Alpha: 3, BlockSize: size})
		file := map[string]tensor.Tensor{}
		for _, f := range a.Tensors() {
			file[f.Name] = f.Tensor
		}
		for k := range a.Blocks() {
			ranks := (k + 1) * size
			up, down := file["lora_up.weight"], file["lora_down.weight"]
			var columns []float32
			for row := range slices.Chunk(up.Float32(), rank) {
				columns = append(columns, row[:ranks]...)
			}
			rows := down.Float32()[:ranks*tensor.Elems(down.Shape[1:])]
			cut, err := algos.LoRA.Load(p.Target, map[string]tensor.Tensor{
				"alpha":            file["alpha"],
				"lora_up.weight":   tensor.FromFloat32(tensor.F32, []int{p.Target.Out(), ranks}, columns),
				"lora_down.weight": tensor.FromFloat32(tensor.F32, append([]int{ranks}, down.Shape[1:]...), rows),
			}, algos.Options{})
			if err != nil {
				t.Fatal(err)
			}
			use := func(_ *algos.Network, put func(string, []float32)) { put(a.Use(k)) }
			testutil.NearRel(t, fmt.Sprintf("%s cut behind block %d", name, k), p.Run(t, ref.Open(), nil, cut).Y, p.Run(t, ref.Open(), use, a).Y, 1e-6)
		}
	}
}

// Each rule's scale at two of four ranks and at all, from alpha 8.
func TestDyLoRAScales(t *testing.T) {
	p := algostest.Layers(3)["linear"]
	want := map[string][2]float32{"": {4, 2}, "active": {4, 2}, "kohya": {float32(2 * math.Sqrt2), 2}, "lycoris": {8, 4}}
	if len(want) != len(algos.BlockScales)+1 {
		t.Fatalf("%d rules, want %d", len(algos.BlockScales), len(want)-1)
	}
	for rule, w := range want {
		a := newDyLoRA(t, p, algos.Options{Rank: 4, Alpha: 8, BlockSize: 2, BlockScale: rule})
		_, half := a.Use(0)
		_, all := a.Use(1)
		if !slices.Equal(half, []float32{w[0], 0, 1, 0}) || !slices.Equal(all, []float32{w[1], w[1], 0, 1}) {
			t.Errorf("%q: %v and %v, want scales %v", rule, half, all, w)
		}
		kept := make([]float32, 4)
		a.Inputs()[0].Keep(kept)
		if !slices.Equal(kept, []float32{w[1], w[1], 1, 1}) {
			t.Errorf("%q: nothing left out: %v", rule, kept)
		}
	}
}

// A step draws every block about as often as another, trains the one that it drew and, where the module is dropped, none.
func TestDyLoRADraws(t *testing.T) {
	a := newDyLoRA(t, algostest.Layers(3)["linear"], algos.Options{Rank: 8, BlockSize: 2, ModuleDropout: 0.25})
	in := a.Inputs()[0]
	counts := make([]int, 5)
	const draws = 4000
	for i := range draws {
		v := make([]float32, in.Size)
		in.Fill(v, rng.New(1, "draw", uint64(i), 0), algos.Step{})
		drawn := 4 // none
		for k := range a.Blocks() {
			_, used := a.Use(k)
			if slices.Equal(v, used) {
				drawn = k
			}
			if in.Trains(v, k) != slices.Equal(v, used) {
				t.Fatalf("%v trains block %d: %v", v, k, in.Trains(v, k))
			}
		}
		if drawn == 4 && slices.ContainsFunc(v, func(x float32) bool { return x != 0 }) {
			t.Fatalf("%v is no step", v)
		}
		counts[drawn]++
	}
	for k, n := range counts {
		want := draws * 3 / 16
		if k == 4 {
			want = draws / 4
		}
		if math.Abs(float64(n-want)) > 4*math.Sqrt(draws)/2 {
			t.Errorf("counts %v, want about %d of block %d", counts, want, k)
		}
	}
}

// The rank must be a multiple of the block size, of a new adapter and of a file.
func TestDyLoRABlockSize(t *testing.T) {
	p := algostest.Layers(3)["linear"]
	_, err := algos.DyLoRA.New(p.Target, algos.Options{Rank: 6, BlockSize: 4}, rng.New(1, "test", 0, 0))
	if err == nil || fault.KindOf(err) != fault.Usage || !strings.Contains(err.Error(), "block_size 4") {
		t.Errorf("new: %v", err)
	}
	file := map[string]tensor.Tensor{}
	for _, f := range newDyLoRA(t, p, algos.Options{Rank: 6}).Tensors() {
		file[f.Name] = f.Tensor
	}
	if _, err := algos.DyLoRA.Load(p.Target, file, algos.Options{BlockSize: 4}); err == nil || fault.KindOf(err) != fault.Usage {
		t.Errorf("loaded: %v", err)
	}
}
