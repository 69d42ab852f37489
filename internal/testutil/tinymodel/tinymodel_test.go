package tinymodel

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"lycoris/internal/adapter"
	"lycoris/internal/arch"
	"lycoris/internal/checkpoint"
	"lycoris/internal/rng"
	"lycoris/internal/tensor"
)

// TestDeterministic: the same seed gives the same bytes, another seed other ones; the file opens and holds finite values only.
func TestDeterministic(t *testing.T) {
	dir := t.TempDir()
	var hashes []string
	for i, seed := range []uint64{1, 1, 2} {
		path := filepath.Join(dir, string(rune('a'+i)))
		if err := Write(path, Options{Seed: seed, Vocab: 100}); err != nil {
			t.Fatal(err)
		}
		h, err := tensor.HashFile(path)
		if err != nil {
			t.Fatal(err)
		}
		hashes = append(hashes, h)
	}
	if hashes[0] != hashes[1] || hashes[0] == hashes[2] {
		t.Errorf("hashes %v", hashes)
	}
	m, err := checkpoint.Open(filepath.Join(dir, "a"))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for _, c := range arch.Components {
		for _, p := range arch.Params(m.Modules(c)) {
			x, err := m.Read(c, p.Name)
			if err != nil {
				t.Fatal(err)
			}
			if n, _ := x.NonFinite(); n > 0 {
				t.Errorf("%s %q: %d values aren't finite", c, p.Name, n)
			}
		}
	}
}

// TestWriteTiny writes both layouts in full.
func TestWriteTiny(t *testing.T) {
	dir := t.TempDir()
	for _, layout := range []checkpoint.Layout{checkpoint.SingleFile, checkpoint.Folder} {
		path := filepath.Join(dir, string(layout))
		if err := WriteTiny(path, 7, layout); err != nil {
			t.Fatal(err)
		}
		m, err := checkpoint.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if m.Layout != layout || m.Text.VocabSize != 49408 || m.VAE.Factor() != 8 {
			t.Errorf("%s: %+v %+v", m.Layout, m.Text, m.VAE)
		}
		m.Close()
	}
}

// TestPass: the identity that the crafted path rests on, silu(x) - silu(-x) = x, and the norm's scale with gamma, for a group of n channels.
func TestPass(t *testing.T) {
	p := pass{signals: 2, perGroup: 2, k: 8}
	n := 8
	x := make([]float64, n)
	x[p.channel(0, n)], x[p.channel(0, n)+1] = 0.7, -0.7
	x[p.channel(1, n)], x[p.channel(1, n)+1] = -1.2, 1.2
	x[p.constant(0, n)], x[p.constant(0, n)+1] = float64(p.k), -float64(p.k)
	var sum float64
	for _, v := range x {
		sum += v * v
	}
	gamma := float64(p.k) * math.Sqrt(2/float64(n))
	silu := func(v float64) float64 { return v / (1 + math.Exp(-v)) }
	for i, want := range []float64{0.7, -1.2} {
		v := x[p.channel(i, n)] / math.Sqrt(sum/float64(n)) * gamma
		if got := silu(v) - silu(-v); math.Abs(got-want) > 0.03*math.Abs(want) { // the signal itself widens the group by 3 % of k
			t.Errorf("signal %d: %v, want %v", i, got, want)
		}
	}
}

// TestFullSize: the streamed writer's file has SD1.5's tensors. The whole file is 2.1 GB, so that only its size and order are looked at, with
// the values of a part.
func TestFullSize(t *testing.T) {
	data := make([]byte, 2*3*5)
	m := arch.Module{Kind: arch.Linear, Shape: []int{3, 5}, Path: "x"}
	fillFullSize(data, m, false, streamFor(1))
	values := tensor.Tensor{DType: tensor.F16, Shape: []int{3, 5}, Data: data}.Float32()
	bound, sum := float32(1/math.Sqrt(5)), float32(0)
	for _, v := range values {
		if v < -bound*1.001 || v > bound*1.001 {
			t.Errorf("%v is outside ±%v", v, bound)
		}
		sum += v * v
	}
	if sum == 0 {
		t.Error("all values are zero")
	}
	norm := make([]byte, 2*3)
	fillFullSize(norm, arch.Module{Kind: arch.GroupNorm, Shape: []int{3}}, false, streamFor(1))
	for _, v := range (tensor.Tensor{DType: tensor.F16, Shape: []int{3}, Data: norm}).Float32() {
		if v != 1 {
			t.Errorf("a norm's gain is %v, want 1", v)
		}
	}
	if os.Getenv("LYCORIS_FULL_SIZE") == "" {
		return
	}
	path := filepath.Join(t.TempDir(), "full.safetensors")
	if err := WriteFullSize(path, 1); err != nil {
		t.Fatal(err)
	}
	full, err := checkpoint.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	if got := full.Bytes(arch.UNet); got != 2*859_520_964 {
		t.Errorf("UNet of %d bytes", got)
	}
}

func streamFor(seed uint64) *rng.Stream { return rng.New(seed, "test", 0, 0) }

// TestAdapter: every kind of random adapter is read by the reader of adapter files, with a module for each layer that it should have.
func TestAdapter(t *testing.T) {
	u, c, _ := configs(Options{})
	table := adapter.NewTable(arch.UNetModules(u), arch.CLIPModules(c))
	kind := func(name, key string, keys ...string) adapter.KeySet {
		return adapter.KeySet{Algorithm: name, Keys: append(keys, key, "alpha"), Is: func(shape func(string) []int) bool { return shape(key) != nil }}
	}
	sets := []adapter.KeySet{kind("lora", "lora_down.weight", "lora_up.weight"), kind("loha", "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
		kind("lokr", "lokr_w1", "lokr_w2_a", "lokr_w2_b")}
	for _, algo := range []string{"lora", "loha", "lokr"} {
		for all, unet := range map[bool]int{false: 192, true: 282} {
			path := filepath.Join(t.TempDir(), "a.safetensors")
			if err := (Adapter{Model: "tiny", Algo: algo, Dim: 3, All: all, Seed: 1}).Write(path); err != nil {
				t.Fatal(err)
			}
			f, err := adapter.Open(path, table, sets)
			if err != nil {
				t.Fatal(err)
			}
			if f.Count(arch.UNet) != unet || f.Count(arch.TextEncoder) != 6*c.Layers || f.Modules[0].Algorithm != algo {
				t.Errorf("%s, all %v: %d modules of the UNet and %d of the text encoder, %s", algo, all, f.Count(arch.UNet), f.Count(arch.TextEncoder), f.Modules[0].Algorithm)
			}
			f.Close()
		}
	}
	for _, a := range []Adapter{{Model: "sd3", Algo: "lora", Dim: 1}, {Model: "tiny", Algo: "ia3", Dim: 1}} {
		if err := a.Write(filepath.Join(t.TempDir(), "a")); err == nil {
			t.Errorf("%+v was written", a)
		}
	}
}

// TestFullSizeXL: the parameters of SDXL's two text encoders, UNet and VAE, and names of every part.
func TestFullSizeXL(t *testing.T) {
	all := fullSizeXL(1)
	n, names := 0, map[string][]int{}
	for _, x := range all {
		n += tensor.Elems(x.Shape)
		names[x.Name] = x.Shape
	}
	if want := 2_567_463_684 + 123_060_480 + 694_659_840 + 1 + 83_653_863; n != want || len(names) != len(all) {
		t.Errorf("%d parameters, want %d; %d tensors of %d names", n, want, len(all), len(names))
	}
	for name, want := range map[string][]int{"model.diffusion_model.label_emb.0.0.weight": {1280, 2816}, "first_stage_model.decoder.mid.attn_1.q.weight": {512, 512, 1, 1},
		"conditioner.embedders.0.transformer.text_model.encoder.layers.0.mlp.fc1.weight": {3072, 768},
		"conditioner.embedders.1.model.transformer.resblocks.31.attn.in_proj_weight":     {3840, 1280},
		"conditioner.embedders.1.model.token_embedding.weight":                           {49408, 1280}} {
		if !slices.Equal(names[name], want) {
			t.Errorf("%s has shape %v, want %v", name, names[name], want)
		}
	}
}
