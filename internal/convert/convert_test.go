package convert_test

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lycoris/internal/adapter"
	"lycoris/internal/algos"
	"lycoris/internal/algos/algostest"
	"lycoris/internal/checkpoint"
	"lycoris/internal/convert"
	"lycoris/internal/fault"
	"lycoris/internal/kernels"
	"lycoris/internal/kernels/ref"
	"lycoris/internal/loose"
	"lycoris/internal/network"
	"lycoris/internal/rng"
	"lycoris/internal/tensor"
	"lycoris/internal/testutil"
	"lycoris/internal/testutil/tinymodel"
)

func backend() (kernels.Backend, error) { return ref.Open(), nil }

// layers are one of each kind, under SD1's names.
var layers = []algos.Target{
	{Path: "text_encoder.text_model.encoder.layers.0.mlp.fc1", Name: "lora_te_text_model_encoder_layers_0_mlp_fc1", Shape: []int{24, 36}},
	{Path: "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", Name: "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q", Shape: []int{20, 12}},
	{Path: "unet.down_blocks.0.attentions.0.proj_in", Name: "lora_unet_down_blocks_0_attentions_0_proj_in", Shape: []int{20, 12, 1, 1}},
	{Path: "unet.down_blocks.0.resnets.0.conv1", Name: "lora_unet_down_blocks_0_resnets_0_conv1", Shape: []int{20, 12, 3, 3}, Pad: 1},
}

// write makes an adapter of an algorithm on the layers and returns its path.
func write(t *testing.T, name string, o algos.Options, meta map[string]string) string {
	t.Helper()
	a, err := algos.ByName(name)
	if err != nil {
		t.Fatal(err)
	}
	var all []algos.Adapter
	for i, target := range layers {
		ad, err := a.New(target, o, rng.New(1, "test", 0, uint64(i)))
		if err != nil {
			t.Fatal(err)
		}
		algostest.Move(ad)
		all = append(all, ad)
	}
	path := filepath.Join(t.TempDir(), name+".safetensors")
	if err := adapter.Save(path, algos.NewNetwork(all).Tensors(), meta, tensor.F32); err != nil {
		t.Fatal(err)
	}
	return path
}

func run(t *testing.T, in string, o convert.Options) (string, *convert.Report) {
	t.Helper()
	o.In, o.Out, o.Backend = in, filepath.Join(t.TempDir(), "out.safetensors"), backend
	r, err := convert.Run(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return o.Out, r
}

// changes returns the change of every module by its path.
func changes(t *testing.T, path string) map[string][]float32 {
	t.Helper()
	src, err := loose.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	a, err := loose.Parse(path, src)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]float32{}
	for _, m := range a.Modules {
		target, ok := m.Target(a.Layers)
		if !ok {
			t.Fatalf("%v tells no size", m.Suffixes())
		}
		tensors, err := m.Tensors()
		if err != nil {
			t.Fatal(err)
		}
		ad, err := m.Algo.Load(target, tensors, algos.Options{})
		if err != nil {
			t.Fatal(err)
		}
		dw, err := algos.Change(ref.Open(), ad, tensor.FromFloat32(tensor.F32, target.Shape, make([]float32, tensor.Elems(target.Shape))))
		if err != nil {
			t.Fatal(err)
		}
		all[target.Path] = dw
	}
	return all
}

func same(t *testing.T, got, want map[string][]float32, tolerance float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d modules, want %d", len(got), len(want))
	}
	for name, w := range want {
		testutil.NearRel(t, name, got[name], w, tolerance)
	}
}

// TestEveryAlgorithmIsAnAdapter: a file of any algorithm is taken for an adapter, not for a model.
func TestEveryAlgorithmIsAnAdapter(t *testing.T) {
	for _, set := range network.KeySets() {
		var names []string
		for _, key := range set.Keys {
			names = append(names, "lora_unet_mid_block_attentions_0_proj_in."+key)
		}
		if !adapter.IsAdapter(names) {
			t.Errorf("%s: %v are not taken for an adapter", set.Algorithm, set.Keys)
		}
	}
}

// As a plain LoRA an adapter with a low-rank form acts exactly the same, and as whole differences every one does.
func TestActsTheSame(t *testing.T) {
	for _, c := range []struct {
		name, algo string
		o          algos.Options
	}{
		{"lora", "lora", algos.Options{Rank: 2, Alpha: 1}}, {"tucker", "lora", algos.Options{Rank: 2, Alpha: 1, Tucker: true}},
		{"loha", "loha", algos.Options{Rank: 2, Alpha: 1}}, {"loha tucker", "loha", algos.Options{Rank: 2, Alpha: 1, Tucker: true}},
		{"lokr", "lokr", algos.Options{Rank: 1, Alpha: 0.5, Factor: 4}}, {"lokr both", "lokr", algos.Options{Rank: 1, Alpha: 0.5, Factor: 4, DecomposeBoth: true}},
		{"lokr tucker", "lokr", algos.Options{Rank: 1, Alpha: 0.5, Factor: 4, Tucker: true}}, {"dylora", "dylora", algos.Options{Rank: 4, Alpha: 2, BlockSize: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := write(t, c.algo, c.o, nil)
			want := changes(t, in)
			out, r := run(t, in, convert.Options{To: "lora"})
			if r.Exact != len(layers) || len(r.Errors) > 0 {
				t.Errorf("%d of %d exact, errors %v", r.Exact, len(layers), r.Errors)
			}
			same(t, changes(t, out), want, 1e-5)
			full, _ := run(t, in, convert.Options{To: "full"})
			same(t, changes(t, full), want, 1e-6)
		})
	}
}

// Without an exact form the rank must be said; the error that is told is the error that is there.
func TestNearest(t *testing.T) {
	in := write(t, "full", algos.Options{}, nil)
	_, err := convert.Run(context.Background(), convert.Options{In: in, Out: filepath.Join(t.TempDir(), "x.safetensors"), To: "lora", Backend: backend})
	if fault.KindOf(err) != fault.Usage || !strings.Contains(err.Error(), "--dim: is missing: 4 of 4 modules (full)") {
		t.Errorf("without --dim: %v", err)
	}
	out, r := run(t, in, convert.Options{To: "lora", Dim: 3})
	got, want := changes(t, out), changes(t, in)
	for name, w := range want {
		var left, all float64
		for i, v := range w {
			d := float64(v - got[name][i])
			left, all = left+d*d, all+float64(v)*float64(v)
		}
		told := 0.0
		for _, l := range layers {
			if l.Path == name {
				told = r.Errors[l.Name]
			}
		}
		if have := math.Sqrt(left / all); math.Abs(have-told) > 1e-5 || have < 0.1 {
			t.Errorf("%s: error %v, told %v", name, have, told)
		}
	}
	if r.Errors[r.Worst] == 0 {
		t.Errorf("the worst is %q with %v", r.Worst, r.Errors[r.Worst])
	}
}

// A change that depends on the frozen weight needs the base, and acts the same with it.
func TestWithBase(t *testing.T) {
	base := filepath.Join(t.TempDir(), "m.safetensors")
	if err := tinymodel.WriteTiny(base, 1, checkpoint.SingleFile); err != nil {
		t.Fatal(err)
	}
	model, err := checkpoint.Open(base)
	if err != nil {
		t.Fatal(err)
	}
	defer model.Close()
	for _, name := range []string{"ia3", "diag-oft", "glora", "tlora"} {
		t.Run(name, func(t *testing.T) {
			a, err := algos.ByName(name)
			if err != nil {
				t.Fatal(err)
			}
			var all []algos.Adapter
			targets := network.Targets(model)
			for i, target := range targets {
				if len(target.Shape) == 1 || len(all) >= 6 {
					continue
				}
				ad, err := a.New(target.Target, algos.Options{Rank: 4, Alpha: 4}, rng.New(1, "test", 0, uint64(i)))
				if err != nil {
					t.Fatal(err)
				}
				if s, ok := ad.(algos.Starter); ok {
					w, err := network.Frozen(model)(target.Target)
					if err != nil {
						t.Fatal(err)
					}
					if err := s.Start(w); err != nil {
						t.Fatal(err)
					}
				}
				algostest.Move(ad)
				all = append(all, ad)
			}
			in := filepath.Join(t.TempDir(), "in.safetensors")
			if err := adapter.Save(in, algos.NewNetwork(all).Tensors(), nil, tensor.F32); err != nil {
				t.Fatal(err)
			}
			_, err = convert.Run(context.Background(), convert.Options{In: in, Out: filepath.Join(t.TempDir(), "x.safetensors"), To: "full", Backend: backend})
			if fault.KindOf(err) != fault.Usage || !strings.HasPrefix(err.Error(), "--model: is missing: 6 of 6 modules ("+name) {
				t.Errorf("without a base: %v", err)
			}
			out, _ := run(t, in, convert.Options{To: "full", Base: base})
			got := changes(t, out)
			for _, ad := range all {
				component, path, _ := strings.Cut(ad.Target().Path, ".")
				w, err := model.Read(network.Targets(model)[0].Component, path+".weight")
				if component == "unet" || err != nil {
					w, err = model.Read("unet", path+".weight")
				}
				if err != nil {
					t.Fatal(err)
				}
				want, err := algos.Change(ref.Open(), ad, w)
				if err != nil {
					t.Fatal(err)
				}
				testutil.NearRel(t, ad.Target().Path, got[ad.Target().Path], want, 1e-5)
			}
		})
	}
}

// Through another naming and back, every factor has its bits and every alpha its value.
func TestRoundTrip(t *testing.T) {
	in := write(t, "lora", algos.Options{Rank: 2, Alpha: 1}, map[string]string{"ss_output_name": "cat"})
	for _, form := range []string{"diffusers", "peft", "ldm", "kohya"} {
		t.Run(form, func(t *testing.T) {
			there, _ := run(t, in, convert.Options{To: form})
			back, _ := run(t, there, convert.Options{To: "kohya"})
			sameTensors(t, back, in)
			if f := openFile(t, back); f.Metadata()["ss_output_name"] != "cat" || f.Metadata()["lora_adapter_metadata"] != "" {
				t.Errorf("metadata %v", f.Metadata())
			}
		})
	}
	t.Run("lycoris", func(t *testing.T) {
		_, err := convert.Run(context.Background(), convert.Options{In: in, Out: filepath.Join(t.TempDir(), "x.safetensors"), To: "lycoris", Backend: backend})
		if err == nil || !strings.Contains(err.Error(), "text_encoder and unet") {
			t.Errorf("two components under one wrapper: %v", err)
		}
	})
}

func openFile(t *testing.T, path string) *tensor.File {
	t.Helper()
	f, err := tensor.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func sameTensors(t *testing.T, got, want string) {
	t.Helper()
	a, b := openFile(t, got), openFile(t, want)
	if len(a.Names()) != len(b.Names()) {
		t.Errorf("%d tensors, want %d", len(a.Names()), len(b.Names()))
	}
	for _, name := range b.Names() {
		x, err := a.Read(name)
		if err != nil {
			t.Error(err)
			continue
		}
		y, err := b.Read(name)
		if err != nil {
			t.Fatal(err)
		}
		if x.DType != y.DType || !tensor.SameShape(x.Shape, y.Shape) || !bytes.Equal(x.Data, y.Data) {
			t.Errorf("%q: %s %v, want %s %v, or other bytes", name, x.DType, x.Shape, y.DType, y.Shape)
		}
	}
}

// What diffusers is told of ranks and alphas.
func TestAdapterMetadata(t *testing.T) {
	in := write(t, "lora", algos.Options{Rank: 2, Alpha: 1}, nil)
	out, _ := run(t, in, convert.Options{To: "diffusers"})
	f := openFile(t, out)
	for _, name := range []string{"unet.down_blocks.0.resnets.0.conv1.lora_A.weight", "text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_B.weight"} {
		if !f.Has(name) {
			t.Errorf("no tensor %q among %q", name, f.Names())
		}
	}
	var config map[string]any
	if err := json.Unmarshal([]byte(f.Metadata()["lora_adapter_metadata"]), &config); err != nil {
		t.Fatal(err)
	}
	if config["unet.r"] != 2.0 || config["unet.lora_alpha"] != 1.0 || len(config["unet.target_modules"].([]any)) != 3 {
		t.Errorf("config %v", config)
	}
}

// SDXL's UNet goes by its LDM names among kohya's, and by diffusers' among peft's.
func TestSDXLNames(t *testing.T) {
	var all []tensor.Named
	for _, name := range []string{"lora_unet_input_blocks_4_1_transformer_blocks_1_attn1_to_q", "lora_te1_text_model_encoder_layers_0_mlp_fc1", "lora_te2_text_model_encoder_layers_31_self_attn_q_proj"} {
		for suffix, shape := range map[string][]int{".lora_down.weight": {2, 6}, ".lora_up.weight": {4, 2}, ".alpha": {}} {
			all = append(all, tensor.Named{Name: name + suffix, Tensor: tensor.FromFloat32(tensor.F16, shape, bytes2(shape))})
		}
	}
	in := filepath.Join(t.TempDir(), "xl.safetensors")
	if err := tensor.WriteFile(in, all, nil); err != nil {
		t.Fatal(err)
	}
	out, r := run(t, in, convert.Options{To: "diffusers"})
	f := openFile(t, out)
	for _, name := range []string{"unet.down_blocks.1.attentions.0.transformer_blocks.1.attn1.to_q.lora_A.weight", "text_encoder_2.text_model.encoder.layers.31.self_attn.q_proj.lora_B.weight"} {
		if !f.Has(name) {
			t.Errorf("no tensor %q among %q", name, f.Names())
		}
	}
	back, _ := run(t, out, convert.Options{To: "kohya"})
	if r.Family != "sdxl" || openFile(t, back).Metadata()["ss_base_model_version"] != "sdxl_base_v1-0" {
		t.Errorf("family %q, metadata %v", r.Family, openFile(t, back).Metadata())
	}
	for _, n := range all {
		if !openFile(t, back).Has(n.Name) {
			t.Errorf("%q is lost", n.Name)
		}
	}
}

func bytes2(shape []int) []float32 {
	v := make([]float32, tensor.Elems(shape))
	for i := range v {
		v[i] = float32(i + 1)
	}
	return v
}

// The element type changes by one rounding, alphas stay float32, and what doesn't fit is refused with nothing written.
func TestDType(t *testing.T) {
	in := write(t, "lora", algos.Options{Rank: 2, Alpha: 1}, nil)
	out, _ := run(t, in, convert.Options{DType: tensor.BF16})
	f := openFile(t, out)
	for _, name := range f.Names() {
		want := tensor.BF16
		if strings.HasSuffix(name, ".alpha") {
			want = tensor.F32
		}
		if info, _ := f.Info(name); info.DType != want {
			t.Errorf("%q is %s, want %s", name, info.DType, want)
		}
	}
	hash, err := tensor.HashFileData(f)
	if err != nil || f.Metadata()["sshs_model_hash"] != hash {
		t.Errorf("sshs_model_hash %q, want %q (%v)", f.Metadata()["sshs_model_hash"], hash, err)
	}
	big := filepath.Join(t.TempDir(), "big.safetensors")
	if err := tensor.WriteFile(big, []tensor.Named{
		{Name: "lora_unet_conv_in.lora_down.weight", Tensor: tensor.FromFloat32(tensor.F32, []int{1, 1}, []float32{1e6})},
		{Name: "lora_unet_conv_in.lora_up.weight", Tensor: tensor.FromFloat32(tensor.F32, []int{1, 1}, []float32{1})},
	}, nil); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "x.safetensors")
	_, err = convert.Run(context.Background(), convert.Options{In: big, Out: to, DType: tensor.F16, Backend: backend})
	if err == nil || !strings.Contains(err.Error(), "too large for F16") {
		t.Errorf("1e6 as fp16: %v", err)
	}
	if _, err := os.Stat(to); err == nil {
		t.Error("a file is left")
	}
}

// torch's files become safetensors with the same values; embeddings get their usual name.
func TestPickles(t *testing.T) {
	out, r := run(t, "../pickle/testdata/zip.ckpt", convert.Options{})
	f := openFile(t, out)
	v, err := f.Read("transposed.weight")
	if err != nil || r.Kind != "model" || r.Others == 0 || v.Float32()[1] != 3 {
		t.Errorf("%v %+v %v", v, r, err)
	}
	out, r = run(t, "../pickle/testdata/embedding.pt", convert.Options{})
	if !openFile(t, out).Has("emb_params") || r.Kind != "embedding" {
		t.Errorf("an embedding: %+v", r)
	}
}

// Bundled embeddings go along where the form has a place for them and are named where it hasn't.
func TestBundle(t *testing.T) {
	in := write(t, "lora", algos.Options{Rank: 2}, nil)
	f := openFile(t, in)
	var all []tensor.Named
	for _, name := range f.Names() {
		v, err := f.Read(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, tensor.Named{Name: name, Tensor: v})
	}
	const key = "bundle_emb.cat.string_to_param.*"
	all = append(all, tensor.Named{Name: key, Tensor: tensor.FromFloat32(tensor.F32, []int{1, 2}, []float32{1, 2})})
	bundled := filepath.Join(t.TempDir(), "bundle.safetensors")
	if err := tensor.WriteFile(bundled, all, nil); err != nil {
		t.Fatal(err)
	}
	out, r := run(t, bundled, convert.Options{To: "lora"})
	if !openFile(t, out).Has(key) || len(r.Embeddings) != 1 {
		t.Errorf("as lora: %+v", r)
	}
	out, r = run(t, bundled, convert.Options{To: "diffusers"})
	if openFile(t, out).Has(key) || len(r.LeftOut) != 1 || r.LeftOut[0] != key {
		t.Errorf("as diffusers: %+v", r)
	}
}

// Ranks and alphas that differ from layer to layer survive, in text encoders too: whatever transformers calls their layers, the end of the path is told.
func TestMixedScales(t *testing.T) {
	var all []tensor.Named
	for name, m := range map[string]struct {
		rank  int
		alpha float32
	}{
		"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q": {2, 1}, "lora_unet_conv_out": {1, 3},
		"lora_te_text_model_encoder_layers_0_mlp_fc1": {2, 5}, "lora_te_text_model_encoder_layers_1_mlp_fc1": {3, 7},
	} {
		all = append(all, tensor.Named{Name: name + ".lora_down.weight", Tensor: tensor.FromFloat32(tensor.F16, []int{m.rank, 4}, bytes2([]int{m.rank, 4}))},
			tensor.Named{Name: name + ".lora_up.weight", Tensor: tensor.FromFloat32(tensor.F16, []int{6, m.rank}, bytes2([]int{6, m.rank}))},
			tensor.Named{Name: name + ".alpha", Tensor: loose.Number(float64(m.alpha))})
	}
	in := filepath.Join(t.TempDir(), "mixed.safetensors")
	if err := tensor.WriteFile(in, all, nil); err != nil {
		t.Fatal(err)
	}
	there, _ := run(t, in, convert.Options{To: "diffusers"})
	var config map[string]any
	if err := json.Unmarshal([]byte(openFile(t, there).Metadata()["lora_adapter_metadata"]), &config); err != nil {
		t.Fatal(err)
	}
	if p := config["text_encoder.alpha_pattern"].(map[string]any); p["encoder.layers.1.mlp.fc1"] != 7.0 {
		t.Errorf("alphas of the text encoder %v", p)
	}
	back, _ := run(t, there, convert.Options{To: "kohya"})
	sameTensors(t, back, in)
}

// A layer that an SDXL checkpoint keeps as rows of a fused projection is read as those rows.
func TestFusedBase(t *testing.T) {
	base := filepath.Join(t.TempDir(), "xl.safetensors")
	if err := (tinymodel.Family{Name: "sdxl", DType: tensor.F16, Seed: 1}).Write(base); err != nil {
		t.Fatal(err)
	}
	const fused = "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight"
	w, err := openFile(t, base).Read(fused)
	if err != nil {
		t.Fatal(err)
	}
	d := w.Shape[1]
	w.Data, w.Shape = w.Data[len(w.Data)/3:2*len(w.Data)/3], []int{d, d} // q, k, v: the middle third
	target := algos.Target{Path: "text_encoder_2.text_model.encoder.layers.0.self_attn.k_proj", Name: "lora_te2_text_model_encoder_layers_0_self_attn_k_proj", Shape: w.Shape, Bias: true}
	ad, err := algos.IA3.New(target, algos.Options{}, rng.New(1, "test", 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	algostest.Move(ad)
	in := filepath.Join(t.TempDir(), "in.safetensors")
	if err := adapter.Save(in, algos.NewNetwork([]algos.Adapter{ad}).Tensors(), nil, tensor.F32); err != nil {
		t.Fatal(err)
	}
	want, err := algos.Change(ref.Open(), ad, w)
	if err != nil {
		t.Fatal(err)
	}
	out, _ := run(t, in, convert.Options{To: "full", Base: base})
	testutil.NearRel(t, "diff", changes(t, out)[target.Path], want, 1e-6)
}
