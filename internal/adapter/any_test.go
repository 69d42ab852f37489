package adapter

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"lycoris/internal/arch"
	"lycoris/internal/fault"
	"lycoris/internal/tensor"
)

// anySets are the key sets of three algorithms.
var anySets = append(slices.Clone(loraSet),
	KeySet{Algorithm: "loha", Keys: []string{"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2", "alpha", "dora_scale"}, Is: func(shape func(string) []int) bool { return shape("hada_w1_a") != nil }},
	KeySet{Algorithm: "lokr", Keys: []string{"lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2", "alpha"}, Is: func(shape func(string) []int) bool { return shape("lokr_w1") != nil || shape("lokr_w1_a") != nil }})

// tensorsOf makes name.suffix tensors of zeros.
func tensorsOf(name string, shapes map[string][]int) map[string][]int {
	all := map[string][]int{}
	for suffix, s := range shapes {
		all[name+"."+suffix] = s
	}
	return all
}

// Names, families and weight shapes are told without a model.
func TestOpenAny(t *testing.T) {
	lora := func(down, up string, o, i int) map[string][]int {
		return map[string][]int{down: {4, i}, up: {o, 4}}
	}
	for _, c := range []struct {
		name      string // of the module
		shapes    map[string][]int
		meta      map[string]string
		family    string
		component arch.Component
		path      string
		shape     []int
	}{
		{"lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k", lora("lora_down.weight", "lora_up.weight", 1280, 768), nil, "sd1", arch.UNet, "", []int{1280, 768}},
		{"lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_v", lora("lora_down.weight", "lora_up.weight", 1280, 1024), nil, "sd2", arch.UNet, "", []int{1280, 1024}},
		{"unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k", lora("lora_A.weight", "lora_B.weight", 1280, 2048), nil, "sdxl", arch.UNet, "mid_block.attentions.0.transformer_blocks.0.attn2.to_k", []int{1280, 2048}},
		{"lora_unet_input_blocks_4_1_proj_in", lora("lora_down.weight", "lora_up.weight", 640, 640), nil, "sdxl", arch.UNet, "", []int{640, 640}},
		{"lora_te2_text_model_encoder_layers_0_self_attn_q_proj", lora("lora_down.weight", "lora_up.weight", 1280, 1280), nil, "sdxl", "text_encoder_2", "", []int{1280, 1280}},
		{"lora_te_text_model_encoder_layers_0_self_attn_q_proj", lora("lora_down.weight", "lora_up.weight", 1024, 1024), nil, "sd2", arch.TextEncoder, "", []int{1024, 1024}},
		{"lora_te_text_model_encoder_layers_0_self_attn_q_proj", lora("lora_down.weight", "lora_up.weight", 768, 768), nil, "sd1", arch.TextEncoder, "", []int{768, 768}},
		{"base_model.model.encoder.layers.0.self_attn.q_proj", lora("lora_A.weight", "lora_B.weight", 32, 32), map[string]string{"ss_base_model_version": "sd_v1"}, "sd1", arch.TextEncoder, "encoder.layers.0.self_attn.q_proj", []int{32, 32}},
		{"lycoris_conv_in", lora("lora_down.weight", "lora_up.weight", 32, 4), map[string]string{"ss_v2": "True"}, "sd2", arch.UNet, "", []int{32, 4}},
		{"lora_unet_conv_in", map[string][]int{"lora_down.weight": {4, 4, 1, 1}, "lora_mid.weight": {4, 4, 3, 3}, "lora_up.weight": {32, 4, 1, 1}}, nil, "", arch.UNet, "", []int{32, 4, 3, 3}},
		{"lora_unet_conv_in", map[string][]int{"hada_w1_a": {32, 2}, "hada_w1_b": {2, 36}, "hada_w2_a": {32, 2}, "hada_w2_b": {2, 36}}, nil, "", arch.UNet, "", []int{32, 4, 3, 3}},
		{"lora_unet_down_blocks_0_attentions_0_proj_in", map[string][]int{"hada_w1_a": {32, 2}, "hada_w1_b": {2, 36}, "hada_w2_a": {32, 2}, "hada_w2_b": {2, 36}}, nil, "", arch.UNet, "", []int{32, 36, 1, 1}},
		{"lora_unet_input_blocks_0_0", map[string][]int{"hada_w1_a": {32, 2}, "hada_w1_b": {2, 36}, "hada_w2_a": {32, 2}, "hada_w2_b": {2, 36}}, nil, "sdxl", arch.UNet, "", []int{32, 4, 3, 3}},
		{"lora_unet_conv_in", map[string][]int{"hada_w1_a": {2, 32}, "hada_w1_b": {2, 4}, "hada_w2_a": {2, 32}, "hada_w2_b": {2, 4}, "hada_t1": {2, 2, 3, 3}, "hada_t2": {2, 2, 3, 3}}, nil, "", arch.UNet, "", []int{32, 4, 3, 3}},
		{"lora_unet_conv_in", map[string][]int{"lokr_w1": {4, 2}, "lokr_w2": {8, 2, 3, 3}}, nil, "", arch.UNet, "", []int{32, 4, 3, 3}},
		{"lora_unet_conv_in", map[string][]int{"lokr_w1_a": {4, 2}, "lokr_w1_b": {2, 2}, "lokr_w2_a": {8, 2}, "lokr_w2_b": {2, 18}}, nil, "", arch.UNet, "", []int{32, 4, 3, 3}},
		{"lora_unet_conv_in", map[string][]int{"lokr_w1": {4, 2}, "lokr_w2_a": {2, 8}, "lokr_w2_b": {2, 2}, "lokr_t2": {2, 2, 3, 3}}, nil, "", arch.UNet, "", []int{32, 4, 3, 3}},
	} {
		all := tensorsOf(c.name, c.shapes)
		all["bundle_emb.word.string_to_param.*"] = []int{2, 8}
		f, err := OpenAny(save(t, keys(all), c.meta), anySets)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		m := f.Modules[0]
		if len(f.Modules) != 1 || m.Name != c.name || f.Family != c.family || m.Target.Component != c.component || m.Target.Module.Path != c.path || !slices.Equal(m.Target.Module.Shape, c.shape) {
			t.Errorf("%s: %d modules, family %q, %s, path %q, shape %v; want %q, %s, %q, %v", m.Name, len(f.Modules), f.Family, m.Target.Component, m.Target.Module.Path, m.Target.Module.Shape,
				c.family, c.component, c.path, c.shape)
		}
		if len(f.Extra) != 1 || f.Tensors() != len(all) {
			t.Errorf("%s: %v beside %d tensors", c.name, f.Extra, f.Tensors())
		}
		f.Close()
	}
}

// Modules are in order of their names; a tensor's name in the file is found again, or made in the module's spelling.
func TestAnyNames(t *testing.T) {
	all := map[string][]int{}
	for _, name := range []string{"unet.b", "unet.a"} {
		maps.Copy(all, tensorsOf(name, map[string][]int{"lora_A.default.weight": {2, 8}, "lora_B.default.weight": {8, 2}}))
	}
	maps.Copy(all, tensorsOf("lora_unet_c", map[string][]int{"hada_w1_a": {8, 2}, "hada_w1_b": {2, 8}, "hada_w2_a": {8, 2}, "hada_w2_b": {2, 8}, "alpha": {}}))
	f, err := OpenAny(save(t, keys(all), nil), anySets)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var names []string
	for _, m := range f.Modules {
		names = append(names, m.Name)
	}
	if !slices.Equal(names, []string{"lora_unet_c", "unet.a", "unet.b"}) || f.NoAlpha != 2 {
		t.Fatalf("%v, %d without alpha", names, f.NoAlpha)
	}
	for _, c := range []struct {
		i            int
		suffix, want string
	}{
		{0, "alpha", "lora_unet_c.alpha"}, {0, "lora_up.weight", "lora_unet_c.lora_up.weight"}, {0, "hada_w1_a", "lora_unet_c.hada_w1_a"},
		{1, "lora_down.weight", "unet.a.lora_A.default.weight"}, {1, "alpha", "unet.a.alpha"},
	} {
		if got := f.Modules[c.i].Key(c.suffix); got != c.want {
			t.Errorf("%s of %s is %q, want %q", c.suffix, names[c.i], got, c.want)
		}
	}
	if d := f.Modules[0].DType("alpha"); d != tensor.F32 {
		t.Errorf("alpha is %s", d)
	}
	if got, err := f.Modules[1].Stored("lora_up.weight"); err != nil || !slices.Equal(got.Shape, []int{8, 2}) {
		t.Errorf("lora_up: %v, %v", got.Shape, err)
	}
}

// A peft folder's configuration counts.
func TestOpenAnyPeft(t *testing.T) {
	dir := t.TempDir()
	all := tensorsOf("base_model.model.mid.to_q", map[string][]int{"lora_A.weight": {4, 8}, "lora_B.weight": {8, 4}})
	if err := tensor.WriteFile(filepath.Join(dir, peftTensorsName), keys(all), nil); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, peftConfigName), []byte(`{"peft_type": "LORA", "r": 4, "lora_alpha": 2, "alpha_pattern": {"mid.to_q": 6}}`), 0o666); err != nil {
		t.Fatal(err)
	}
	f, err := OpenAny(dir, loraSet)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	values, err := f.Modules[0].Tensors()
	if err != nil {
		t.Fatal(err)
	}
	if a := values["alpha"].Float32(); a[0] != 6 {
		t.Errorf("alpha is %v, want 6", a)
	}
}

func TestOpenAnyRefuses(t *testing.T) {
	whole := pair(sd1(), "lora_unet_conv_out")
	with := func(name string, shape []int) map[string][]int {
		all := maps.Clone(whole)
		all[name] = shape
		return all
	}
	for _, c := range []struct {
		what   string
		shapes map[string][]int
		words  []string
	}{
		{"model", map[string][]int{"model.diffusion_model.out.2.weight": {4, 320}}, []string{"is not an adapter", `"model.diffusion_model.out.2.weight"`}},
		{"layers", map[string][]int{"conv_in.weight": {4, 320}, "conv_in.bias": {4}}, []string{"is not an adapter"}},
		{"mixed", with("vae.decoder.weight", []int{4}), []string{"1 of 4 tensors are not tensors of an adapter", `"vae.decoder.weight"`}},
		{"bundle", map[string][]int{"bundle_emb.a.b": {4}}, []string{"holds no modules"}},
		{"suffix", with("lora_unet_conv_out.lora_magic", []int{4}), []string{"a meaning that this version doesn't know", "lora_magic"}},
		{"twice", with("lora_unet_conv_out.lora_A.weight", []int{4, 320}), []string{"name the same tensor"}},
		{"half", map[string][]int{"lora_unet_x.lora_up.weight": {4, 4}}, []string{"have no partner"}},
		{"ranks", map[string][]int{"lora_unet_x.lora_up.weight": {4, 3}, "lora_unet_x.lora_down.weight": {2, 4}}, []string{"the ranks don't match", `"lora_unet_x"`}},
		{"flux", map[string][]int{"lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight": {4, 4}}, []string{"is a Flux adapter, which is not supported"}},
		{"other algorithm", map[string][]int{"lora_unet_x.oft_blocks": {2, 4, 4}}, []string{"1 of 1 modules are OFT or BOFT, which this version doesn't read"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			f, err := OpenAny(save(t, keys(c.shapes), nil), loraSet)
			if err == nil {
				f.Close()
			}
			wantFault(t, err, fault.Input, c.words...)
		})
	}
	_, err := OpenAny(filepath.Join(t.TempDir(), "none.safetensors"), loraSet)
	wantFault(t, err, fault.Input, "there is no such file")
}
