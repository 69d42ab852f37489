package adapter

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"lycoris/internal/arch"
	"lycoris/internal/fault"
	"lycoris/internal/tensor"
)

var loraSet = []KeySet{{Algorithm: "lora", Keys: []string{"lora_down.weight", "lora_up.weight", "lora_mid.weight", "alpha"}, Is: func(shape func(string) []int) bool {
	return shape("lora_up.weight") != nil || shape("lora_down.weight") != nil
}}}

func sd1() *Table { return NewTable(arch.UNetModules(arch.SD15UNet()), arch.CLIPModules(arch.CLIPL())) }

func wantFault(t *testing.T, err error, kind fault.Kind, words ...string) {
	t.Helper()
	if err == nil || fault.KindOf(err) != kind || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v (%v), want kind %v with %q", err, fault.KindOf(err), kind, words)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("got %v, want %q in it", err, w)
		}
	}
}

// TestNameIdentity: every name finds the module that it was made of, for all of SD1's and SDXL's, and no two names are the same.
func TestNameIdentity(t *testing.T) {
	for _, unet := range []arch.UNetConfig{arch.SD15UNet(), arch.SDXLUNet()} {
		table := NewTable(arch.UNetModules(unet), arch.CLIPModules(arch.CLIPL()))
		if len(table.byName) != len(table.Targets()) {
			t.Errorf("%d names for %d modules", len(table.byName), len(table.Targets()))
		}
		for _, target := range table.Targets() {
			got, ok := table.Lookup(Name(target.Component, target.Module.Path))
			if !ok || got != target {
				t.Fatalf("%q finds %+v", target.Name, got)
			}
			got, ok = table.LookupPath(string(target.Component) + "." + target.Module.Path)
			if !ok || got != target {
				t.Fatalf("path of %q finds %+v", target.Name, got)
			}
		}
	}
}

// TestSplit: the schemes of the reference formats, 3.1.
func TestSplit(t *testing.T) {
	table := sd1()
	const q, te = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", "text_model.encoder.layers.0.self_attn.q_proj"
	for key, want := range map[string][2]string{
		"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight": {q, "lora_down.weight"},
		"lora_unet_up_blocks_3_attentions_2_transformer_blocks_0_ff_net_0_proj.alpha":           {"up_blocks.3.attentions.2.transformer_blocks.0.ff.net.0.proj", "alpha"},
		"lora_unet_conv_in.hada_w1_a":                                                                {"conv_in", "hada_w1_a"},
		"lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_up.weight":                        {te, "lora_up.weight"},
		"lora_te_encoder_layers_0_self_attn_q_proj.lora_up.weight":                                   {te, "lora_up.weight"},
		"lora_te1_text_model_encoder_layers_0_self_attn_q_proj.lora_up.weight":                       {te, "lora_up.weight"},
		"lycoris_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.alpha":                   {q, "alpha"},
		"oft_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.oft_blocks":             {q, "oft_blocks"},
		"unet." + q + ".lora_A.weight":                                                               {q, "lora_down.weight"},
		"unet." + q + ".lora_B.default.weight":                                                       {q, "lora_up.weight"},
		"unet." + q + ".lora.down.weight":                                                            {q, "lora_down.weight"},
		"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight": {q, "lora_down.weight"},
		"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora.up.weight": {"down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0", "lora_up.weight"},
		"text_encoder." + te + ".lora_A.weight":                                                      {te, "lora_down.weight"},
		"text_encoder.encoder.layers.0.self_attn.q_proj.lora_A.weight":                               {te, "lora_down.weight"},
		"text_encoder." + te + ".lora_linear_layer.up.weight":                                        {te, "lora_up.weight"},
		"base_model.model." + q + ".lora_A.weight":                                                   {q, "lora_down.weight"},
	} {
		target, suffix, ok := table.Split(key)
		if !ok || target.Module.Path != want[0] || suffix != want[1] {
			t.Errorf("%q: %+v %q %t, want %q", key, target, suffix, ok, want)
		}
	}
	for _, key := range []string{"", ".", "lora_unet_nothing.alpha", "lora_unet_.alpha", "unet..lora_A.weight", "conv_in", "lora_te_nothing.alpha"} {
		if target, _, ok := table.Split(key); ok {
			t.Errorf("%q finds %q", key, target.Name)
		}
	}
}

// FuzzSplit: a key that finds a layer finds the same one under the written name; nothing panics.
func FuzzSplit(f *testing.F) {
	for _, s := range []string{"lora_unet_conv_in.alpha", "unet.conv_in.lora_A.weight", "lora_te_encoder_layers_0_mlp_fc1.lora_up.weight", "a.b_lora.down.weight", "base_model.model.conv_in.alpha"} {
		f.Add(s)
	}
	table := sd1()
	f.Fuzz(func(t *testing.T, key string) {
		target, suffix, ok := table.Split(key)
		if !ok {
			return
		}
		again, suffix2, ok := table.Split(target.Name + "." + suffix)
		if !ok || again != target || suffix2 != suffix {
			t.Errorf("%q -> %q %q -> %+v %q", key, target.Name, suffix, again, suffix2)
		}
	})
}

// keys makes tensors of zeros by name and shape.
func keys(list map[string][]int) []tensor.Named {
	var all []tensor.Named
	for name, shape := range list {
		all = append(all, tensor.Named{Name: name, Tensor: tensor.FromFloat32(tensor.F32, shape, make([]float32, tensor.Elems(shape)))})
	}
	return all
}

func save(t *testing.T, tensors []tensor.Named, meta map[string]string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.safetensors")
	if err := tensor.WriteFile(path, tensors, meta); err != nil {
		t.Fatal(err)
	}
	return path
}

// pair returns a complete rank 4 module for a Linear of the table.
func pair(table *Table, name string) map[string][]int {
	target, ok := table.Lookup(name)
	if !ok {
		panic(name)
	}
	return map[string][]int{name + ".lora_down.weight": {4, target.Module.In()}, name + ".lora_up.weight": {target.Module.Out(), 4}, name + ".alpha": {}}
}

func TestOpen(t *testing.T) {
	table := sd1()
	all := pair(table, "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k")
	for name, shape := range pair(table, "lora_te_text_model_encoder_layers_3_mlp_fc2") {
		all[name] = shape
	}
	for name, shape := range pair(table, "lora_unet_time_embedding_linear_1") {
		if !strings.HasSuffix(name, ".alpha") {
			all[name] = shape
		}
	}
	all["bundle_emb.cat.clip_l"] = []int{2, 768}
	f, err := Open(save(t, keys(all), map[string]string{"ss_v2": "False"}), table, loraSet)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var order []string
	for _, m := range f.Modules {
		order = append(order, m.Target.Name)
		if m.Algorithm != "lora" || m.Shape("lora_down.weight")[0] != 4 || m.Shape("none") != nil {
			t.Errorf("%+v", m)
		}
	}
	if want := []string{"lora_te_text_model_encoder_layers_3_mlp_fc2", "lora_unet_time_embedding_linear_1", "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"}; !slices.Equal(order, want) {
		t.Errorf("order %q, want %q", order, want)
	}
	if f.NoAlpha != 1 || len(f.Extra) != 1 || f.Count(arch.UNet) != 2 || f.Count(arch.TextEncoder) != 1 || f.Metadata["ss_v2"] != "False" {
		t.Errorf("no alpha %d, extra %q, %d + %d modules", f.NoAlpha, f.Extra, f.Count(arch.UNet), f.Count(arch.TextEncoder))
	}
	tensors, err := f.Modules[0].Tensors()
	if err != nil || len(tensors) != 3 || !tensor.SameShape(tensors["lora_up.weight"].Shape, []int{768, 4}) {
		t.Errorf("%v, %v", tensors, err)
	}
}

// TestPeftAlpha: diffusers keeps alpha in its metadata, per module where they differ.
func TestPeftAlpha(t *testing.T) {
	const q, k = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k"
	tensors := keys(map[string][]int{q + ".lora_A.weight": {4, 320}, q + ".lora_B.weight": {320, 4}, k + ".lora_A.weight": {4, 320}, k + ".lora_B.weight": {320, 4}})
	path := save(t, tensors, map[string]string{"lora_adapter_metadata": `{"unet.r":4,"unet.lora_alpha":8,"unet.alpha_pattern":{"` + strings.TrimPrefix(k, "unet.") + `":2}}`})
	f, err := Open(path, sd1(), loraSet)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i, want := range []float32{8, 2} {
		x, err := f.Modules[i].Tensors()
		if err != nil || len(x["alpha"].Float32()) != 1 || x["alpha"].Float32()[0] != want {
			t.Errorf("%s: alpha %v, want %v (%v)", f.Modules[i].Target.Name, x["alpha"], want, err)
		}
	}
	if f.NoAlpha != 0 {
		t.Errorf("NoAlpha %d", f.NoAlpha)
	}
}

// TestBadAdapters: the adapter rows of the reference on bad inputs (2).
func TestBadAdapters(t *testing.T) {
	table := sd1()
	const name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
	with := func(list map[string][]int, more ...string) map[string][]int {
		for _, k := range more {
			list[k] = []int{4, 4}
		}
		return list
	}
	without := func(list map[string][]int, gone string) map[string][]int { delete(list, gone); return list }
	many := map[string][]int{}
	for _, m := range []string{"q", "k", "v"} {
		many["lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_"+m+".lora_up.weight"] = []int{1280, 4}
		many["lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_"+m+".lora_up.weight"] = []int{1280, 4}
	}
	for _, c := range []struct {
		name  string
		list  map[string][]int
		words []string
	}{
		{"up without down", without(pair(table, name), name+".lora_down.weight"), []string{"1 of 2 tensors have no partner", name + ".lora_up.weight"}},
		{"down without up", without(pair(table, name), name+".lora_up.weight"), []string{"have no partner", name + ".lora_down.weight"}},
		{"six halves", many, []string{"6 of 6 tensors have no partner", `_attn1_to_k.lora_up.weight", `, ", …"}},
		{"rank mismatch", func() map[string][]int { l := pair(table, name); l[name+".lora_up.weight"] = []int{1280, 8}; return l }(), []string{"lora_down has shape [4 1280] and lora_up [1280 8]: the ranks don't match"}},
		{"rank 0", map[string][]int{name + ".lora_down.weight": {0, 1280}, name + ".lora_up.weight": {1280, 0}}, []string{"the ranks don't match"}},
		{"unknown prefix", map[string][]int{"lora_foo_x.lora_up.weight": {4, 4}}, []string{"1 of 1 tensors belong to no layer of the model", `"lora_foo_x.lora_up.weight"`}},
		{"half known", with(pair(table, name), "lora_unet_up_blocks_9_x.lora_up.weight", "lora_unet_up_blocks_9_y.alpha"), []string{"2 of 5 tensors belong to no layer"}},
		{"unknown suffix", with(pair(table, name), name+".magic"), []string{"1 of 4 tensors have a meaning that this version doesn't know", name + ".magic"}},
		{"DoRA", with(pair(table, name), name+".dora_scale"), []string{"have a meaning that this version doesn't know", "dora_scale"}},
		{"LoHa", map[string][]int{name + ".hada_w1_a": {4, 4}, name + ".hada_w1_b": {4, 4}, name + ".hada_w2_a": {4, 4}, name + ".hada_w2_b": {4, 4}}, []string{"1 of 1 modules are LoHa, which this version doesn't read"}},
		{"only alpha", map[string][]int{name + ".alpha": {}}, []string{"have a meaning that this version doesn't know"}},
		{"same twice", with(pair(table, name), "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight"), []string{"name the same tensor"}},
		{"a base model", map[string][]int{"model.diffusion_model.out.0.weight": {320}}, []string{"is not an adapter: none of its 1 tensors"}},
		{"nothing", map[string][]int{}, []string{"holds no modules"}},
		{"SDXL, LDM names", map[string][]int{"lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.lora_up.weight": {640, 4}}, []string{"is an SDXL adapter, the model is SD1"}},
		{"SDXL, second text encoder", map[string][]int{"lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": {1, 1}}, []string{"is an SDXL adapter"}},
		{"SDXL, diffusers names", map[string][]int{"lora_unet_down_blocks_1_attentions_0_transformer_blocks_1_attn1_to_q.lora_up.weight": {640, 4}}, []string{"is an SDXL adapter"}},
		{"SDXL, peft", map[string][]int{"unet.down_blocks.2.attentions.0.transformer_blocks.5.attn1.to_q.lora_A.weight": {4, 1280}}, []string{"is an SDXL adapter"}},
		{"SD2", map[string][]int{"lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight": {4, 1024}}, []string{"is an SD2 adapter, the model is SD1"}},
		{"Flux", map[string][]int{"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": {4, 4}}, []string{"is a Flux adapter"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Open(save(t, keys(c.list), nil), table, loraSet)
			wantFault(t, err, fault.Input, c.words...)
		})
	}
	bad := keys(pair(table, name))
	for i := range bad {
		if strings.HasSuffix(bad[i].Name, "lora_up.weight") {
			binary.LittleEndian.PutUint32(bad[i].Data[40:], 0x7fc00000)
		}
	}
	f, err := Open(save(t, bad, nil), table, loraSet)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, err = f.Modules[0].Tensors()
	wantFault(t, err, fault.Input, name+".lora_up.weight", "holds 1 NaN or infinite values, the first at index 10")
}

// TestReferenceNames: what lycoris-lora wrote for a tiny model is found tensor by tensor, and our names are its names but for the text_model level.
func TestReferenceNames(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "testdata", "golden", "lycoris_file.json"))
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Model   string  `json:"model"`
		Tensors [][]any `json:"tensors"`
	}
	if err := json.Unmarshal(text, &golden); err != nil {
		t.Fatal(err)
	}
	read := func(part string) []byte {
		b, err := os.ReadFile(filepath.Join("..", "..", "testdata", "golden", golden.Model, part, "config.json"))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	unet, err := arch.ParseUNet(read("unet"))
	if err != nil {
		t.Fatal(err)
	}
	clip, err := arch.ParseCLIP(read("text_encoder"))
	if err != nil {
		t.Fatal(err)
	}
	table := NewTable(arch.UNetModules(unet), arch.CLIPModules(clip))
	if len(golden.Tensors) == 0 {
		t.Fatal("no tensors in the golden")
	}
	for _, row := range golden.Tensors {
		key := row[0].(string)
		target, suffix, ok := table.Split(key)
		if !ok || strings.Replace(target.Name, "lora_te_text_model_", "lora_te_", 1)+"."+suffix != key {
			t.Errorf("%q is not found", key)
		}
	}
}

func metadata() Metadata {
	return Metadata{OutputName: "../my cat\x07", Algorithm: "locon", Dim: 16, Alpha: 8, ConvDim: 4, ConvAlpha: 1, NetworkArgs: map[string]string{"use_tucker": "True"},
		LearningRate: 1e-4, UNetLR: 1e-4, Optimizer: "AdamW", Scheduler: "cosine", Seed: 42, ClipSkip: 2, Width: 512, Height: 768, Steps: 10, Prediction: "epsilon",
		Dirs: map[string]Dir{"10_cat": {10, 3}}, Tags: map[string]map[string]int{"10_cat": {"cat": 3}}, Buckets: []Bucket{{512, 768, 3}},
		Started: time.Unix(1700000000, 500e6), Finished: time.Unix(1700000100, 0), ModelName: "/home/me/sd15.safetensors", Extra: map[string]string{"ss_tool": "x"}}
}

// TestMetadata: the values that readers look at (reference formats, 4.2 to 4.5).
func TestMetadata(t *testing.T) {
	m := metadata().Map(Full)
	for key, want := range map[string]string{
		"ss_v2": "False", "ss_base_model_version": "sd_v1", "ss_network_module": "lycoris.kohya", "ss_network_dim": "16", "ss_network_alpha": "8",
		"ss_network_args": `{"algo":"locon","conv_alpha":"1","conv_dim":"4","use_tucker":"True"}`,
		"ss_output_name":  "my cat", "ss_learning_rate": "0.0001", "ss_text_encoder_lr": "None", "ss_clip_skip": "2", "ss_seed": "42",
		"ss_resolution": "(512, 768)", "ss_dataset_dirs": `{"10_cat":{"n_repeats":10,"img_count":3}}`, "ss_tag_frequency": `{"10_cat":{"cat":3}}`,
		"ss_bucket_info": `{"buckets":{"0":{"resolution":[512,768],"count":3}}}`, "ss_sd_model_name": "sd15.safetensors", "ss_tool": "x",
		"ss_training_started_at": "1700000000.5", "modelspec.architecture": "stable-diffusion-v1/lora", "modelspec.sai_model_spec": "1.0.1",
		"modelspec.implementation": "diffusers", "modelspec.resolution": "512x768", "modelspec.prediction_type": "epsilon", "modelspec.title": "my cat",
		"modelspec.encoder_layer": "2", "modelspec.date": "2023-11-14T22:15:00",
	} {
		if m[key] != want {
			t.Errorf("%s: %q, want %q", key, m[key], want)
		}
	}
	for key, value := range m {
		if strings.Contains(value, "/home") || key == "ot_branch" {
			t.Errorf("%s: %q", key, value)
		}
	}
	v := metadata()
	v.Prediction, v.Plain, v.ConvDim, v.NetworkArgs = "v_prediction", true, 0, nil
	m = v.Map(Minimal)
	if len(m) != len(minimal) || m["ss_base_model_version"] != "sd_v1_v" || m["ss_network_module"] != "networks.lora" || m["ss_network_args"] != "{}" {
		t.Errorf("minimal: %q", m)
	}
	for _, key := range minimal {
		if _, ok := m[key]; !ok {
			t.Errorf("minimal lacks %s", key)
		}
	}
	if m := v.Map(None); m != nil {
		t.Errorf("none: %q", m)
	}
}

func TestCleanName(t *testing.T) {
	for in, want := range map[string]string{"a": "a", "../../etc/passwd": "passwd", `C:\x\cat`: "cat", "..": "", "/": "", "a\x1b[31mb": "a[31mb", "": "", "é\xff": "é_", "a/": "a"} {
		if got := CleanName(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// TestSave: dtypes, hashes and the order on disk; the hashes are recomputed from the file's bytes by their definition.
func TestSave(t *testing.T) {
	big := make([]float32, 700_000) // over a megabyte as BF16: the legacy hash has something to read
	for i := range big {
		big[i] = float32(i%97) / 8
	}
	tensors := []tensor.Named{
		{Name: "lora_unet_conv_in.lora_up.weight", Tensor: tensor.FromFloat32(tensor.F32, []int{700, 1000}, big)},
		{Name: "lora_unet_conv_in.alpha", Tensor: tensor.FromFloat32(tensor.F32, nil, []float32{0.1})},
		{Name: "lora_unet_conv_in.index", Tensor: tensor.FromInt64([]int{1}, []int64{7})},
	}
	path := filepath.Join(t.TempDir(), "a.safetensors")
	meta := metadata().Map(Full)
	if err := Save(path, tensors, meta, tensor.BF16); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := tensor.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for name, want := range map[string]tensor.DType{tensors[0].Name: tensor.BF16, tensors[1].Name: tensor.F32, tensors[2].Name: tensor.I64} {
		if info, _ := f.Info(name); info.DType != want {
			t.Errorf("%s: %s, want %s", name, info.DType, want)
		}
	}
	if alpha, err := f.Read(tensors[1].Name); err != nil || len(alpha.Shape) != 0 || alpha.Float32()[0] != 0.1 {
		t.Errorf("alpha %v, %v", alpha, err)
	}
	n := binary.LittleEndian.Uint64(raw)
	sum := sha256.Sum256(raw[8+n:])
	got := f.Metadata()
	if got["sshs_model_hash"] != hex.EncodeToString(sum[:]) || got["modelspec.hash_sha256"] != "0x"+hex.EncodeToString(sum[:]) {
		t.Errorf("model hash %s, want %x", got["sshs_model_hash"], sum)
	}
	// The legacy hash: of a file with the ss_ keys alone.
	ss := map[string]string{}
	for k, v := range meta {
		if strings.HasPrefix(k, "ss_") {
			ss[k] = v
		}
	}
	other := filepath.Join(t.TempDir(), "ss.safetensors")
	if err := Save(other, tensors, nil, tensor.BF16); err != nil {
		t.Fatal(err)
	}
	bare, err := tensor.OpenFile(other)
	if err != nil {
		t.Fatal(err)
	}
	defer bare.Close()
	if bare.Metadata() != nil {
		t.Errorf("metadata %q, want none", bare.Metadata())
	}
	var list []tensor.Named
	for _, name := range bare.Names() {
		x, err := bare.Read(name)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, tensor.Named{Name: name, Tensor: x})
	}
	if err := tensor.WriteFile(other, list, ss); err != nil {
		t.Fatal(err)
	}
	if raw, err = os.ReadFile(other); err != nil {
		t.Fatal(err)
	}
	sum = sha256.Sum256(raw[0x100000:0x110000])
	if got["sshs_legacy_hash"] != hex.EncodeToString(sum[:])[:8] {
		t.Errorf("legacy hash %s, want %x", got["sshs_legacy_hash"], sum[:4])
	}
	if _, ok := meta["sshs_model_hash"]; ok {
		t.Error("Save wrote into the caller's metadata")
	}
	// Past the end: the hash of nothing.
	small := filepath.Join(t.TempDir(), "small.safetensors")
	if err := Save(small, tensors[1:2], meta, tensor.F16); err != nil {
		t.Fatal(err)
	}
	s, err := tensor.OpenFile(small)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Metadata()["sshs_legacy_hash"] != "e3b0c442" {
		t.Errorf("legacy hash of a small file: %s", s.Metadata()["sshs_legacy_hash"])
	}
}

// TestSaveRefuses: no file with a value that isn't finite.
func TestSaveRefuses(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.safetensors")
	nan := tensor.Tensor{DType: tensor.F32, Shape: []int{1}, Data: []byte{0, 0, 0xc0, 0x7f}}
	wantFault(t, Save(path, []tensor.Named{{Name: "x", Tensor: nan}}, nil, tensor.F32), fault.Diverged, `"x" holds 1 NaN`)
	large := tensor.FromFloat32(tensor.F32, []int{2}, []float32{1, 70000})
	wantFault(t, Save(path, []tensor.Named{{Name: "x", Tensor: large}}, nil, tensor.F16), fault.Failed, `1 values of "x", the first at index 1, are too large for F16`)
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("left %v, %v", entries, err)
	}
}

// TestReaders repeats the rules by which A1111 and Forge tell the family (reference formats, 4.5) on our metadata.
func TestReaders(t *testing.T) {
	m := metadata().Map(Full)
	a1111 := "unknown"
	switch {
	case strings.HasPrefix(m["ss_base_model_version"], "sdxl_"):
		a1111 = "SDXL"
	case m["ss_v2"] == "True":
		a1111 = "SD2"
	case len(m) > 0:
		a1111 = "SD1"
	}
	if a1111 != "SD1" || m["modelspec.architecture"] != "stable-diffusion-v1/lora" {
		t.Errorf("A1111 sees %s, Forge %s", a1111, m["modelspec.architecture"])
	}
	if !regexp.MustCompile(`^\(\d+, \d+\)$`).MatchString(m["ss_resolution"]) {
		t.Errorf("ss_resolution %q", m["ss_resolution"])
	}
	for _, key := range []string{"ss_dataset_dirs", "ss_tag_frequency", "ss_bucket_info", "ss_network_args"} {
		var v map[string]any
		if err := json.Unmarshal([]byte(m[key]), &v); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
}

// lycoris-lora's alpha of two whole factors is the dim, which means nothing and is infinite as float16 from 65520 on.
func TestInfiniteAlpha(t *testing.T) {
	const name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
	sets := []KeySet{{Algorithm: "lokr", Keys: []string{"lokr_w1", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "alpha"}, Is: func(shape func(string) []int) bool { return shape("lokr_w1") != nil }}}
	for _, whole := range []bool{true, false} {
		list := map[string][]int{name + ".lokr_w1": {4, 4}, name + ".alpha": {}, name + ".lokr_w2": {320, 320}}
		if !whole {
			delete(list, name+".lokr_w2")
			list[name+".lokr_w2_a"], list[name+".lokr_w2_b"] = []int{320, 2}, []int{2, 320}
		}
		tensors := keys(list)
		for i := range tensors {
			if strings.HasSuffix(tensors[i].Name, ".alpha") {
				binary.LittleEndian.PutUint32(tensors[i].Data, 0x7f800000)
			}
		}
		f, err := Open(save(t, tensors, nil), sd1(), sets)
		if err != nil {
			t.Fatal(err)
		}
		got, err := f.Modules[0].Tensors()
		f.Close()
		if !whole {
			wantFault(t, err, fault.Input, name+".alpha", "holds 1 NaN or infinite values")
		} else if _, there := got["alpha"]; err != nil || there || len(got) != 2 {
			t.Errorf("tensors %d, alpha there %v: %v", len(got), there, err)
		}
	}
}
