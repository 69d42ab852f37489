package inspect_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lycoris/internal/fault"
	"lycoris/internal/inspect"
	"lycoris/internal/kernels"
	"lycoris/internal/kernels/ref"
	"lycoris/internal/tensor"
)

var options = inspect.Options{Norms: true, Hash: true, Backend: func() (kernels.Backend, error) { return ref.Open(), nil }}

func write(t *testing.T, meta map[string]string, shapes map[string][]int) string {
	t.Helper()
	var all []tensor.Named
	for name, shape := range shapes {
		v := make([]float32, tensor.Elems(shape))
		for i := range v {
			v[i] = float32(i%7) - 3
		}
		all = append(all, tensor.Named{Name: name, Tensor: tensor.FromFloat32(tensor.F16, shape, v)})
	}
	path := filepath.Join(t.TempDir(), "x.safetensors")
	if err := tensor.WriteFile(path, all, meta); err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t *testing.T, path string) *inspect.Report {
	t.Helper()
	r, err := inspect.Open(path, options)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// The family and the prediction type of models, from the marks that tell them.
func TestModels(t *testing.T) {
	const unet = "model.diffusion_model."
	for _, c := range []struct {
		name, family, prediction string
		stated                   bool
		meta                     map[string]string
		shapes                   map[string][]int
	}{
		{"sd1", "sd1", "epsilon", false, nil, map[string][]int{unet + "input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight": {4, 768}}},
		{"sd2", "sd2", "v_prediction", true, map[string]string{"modelspec.prediction_type": "v"}, map[string][]int{unet + "input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight": {4, 1024}}},
		{"sdxl", "sdxl", "v_prediction", true, nil, map[string][]int{unet + "label_emb.0.0.weight": {1, 2816}, "v_pred": {0}}},
		{"sdxl, text encoders alone", "sdxl", "epsilon", false, nil, map[string][]int{"conditioner.embedders.1.model.ln_final.bias": {4}}},
		{"refiner", "sdxl-refiner", "epsilon", false, nil, map[string][]int{unet + "label_emb.0.0.weight": {1, 2560}}},
		{"diffusers' names", "sd1", "epsilon", true, map[string]string{"modelspec.prediction_type": "epsilon"}, map[string][]int{"down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight": {4, 768}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := open(t, write(t, c.meta, c.shapes))
			if r.Kind != "model" || r.Model.Family != c.family || r.Model.Prediction != c.prediction || r.Model.Stated != c.stated {
				t.Errorf("got %s, %+v", r.Kind, r.Model)
			}
		})
	}
	r := open(t, write(t, nil, map[string][]int{unet + "input_blocks.0.0.weight": {4, 9, 3, 3}, unet + "middle_block.1.transformer_blocks.0.attn2.to_k.weight": {4, 768}, "strange": {1}}))
	if !strings.HasSuffix(r.Model.What, "inpainting") || len(r.Model.Unknown) != 1 {
		t.Errorf("inpainting: %+v", r.Model)
	}
}

// What the tensors of a module tell: ‖up·down‖ = 2·alpha/rank·… by hand.
func TestAdapter(t *testing.T) {
	const q = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
	path := filepath.Join(t.TempDir(), "a.safetensors")
	if err := tensor.WriteFile(path, []tensor.Named{
		{Name: q + ".lora_down.weight", Tensor: tensor.FromFloat32(tensor.F32, []int{1, 2}, []float32{3, 4})},
		{Name: q + ".lora_up.weight", Tensor: tensor.FromFloat32(tensor.F32, []int{2, 1}, []float32{0, 2})},
		{Name: q + ".alpha", Tensor: tensor.FromFloat32(tensor.F32, nil, []float32{0.5})},
		{Name: "lora_te_text_model_encoder_layers_0_mlp_fc1.diff", Tensor: tensor.FromFloat32(tensor.F32, []int{1, 1}, []float32{-2})},
	}, map[string]string{"sshs_model_hash": "00", "ss_tag_frequency": `{"10_cat": {"cat": 10, "sofa": 2}, "b": {"cat": 1}}`}); err != nil {
		t.Fatal(err)
	}
	r := open(t, path)
	a := r.Adapter
	if a.Family != "sd1" || a.Modules != 2 || a.Names != "kohya" || len(a.Groups) != 2 {
		t.Fatalf("got %+v", a)
	}
	if g := a.Groups[0]; g.Part != "unet" || g.Algorithm != "lora" || g.Layers != "linear" || g.Rank != 1 || *g.Alpha != 0.5 || g.Modules != 1 {
		t.Errorf("group %+v", g)
	}
	if len(a.Words) != 2 || a.Words[0] != (inspect.Word{Tag: "cat", Count: 11}) {
		t.Errorf("words %v", a.Words)
	}
	if n := a.Norms.Modules[0]; *n.Change != 5 || *n.MaxAbs != 4 || n.Factors["lora_down.weight"] != 5 { // 0.5·‖(0,2)‖·‖(3,4)‖
		t.Errorf("norms %+v: %v, %v", n, *n.Change, *n.MaxAbs)
	}
	if a.Norms.Parts["text_encoder"].Change != 2 || r.Hashes.Stored["sshs_model_hash"] != "wrong" {
		t.Errorf("parts %+v, hashes %+v", a.Norms.Parts, r.Hashes)
	}
}

func TestRun(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"run.json": `{"schema":"lycoris.run/1","id":"x","name":"cat","status":"stopped","step":7,"steps":40,"saved":7,"part":2,"started":"2026-01-02T03:04:05Z","ended":null,"exit":130}`,
		"metrics.jsonl": `{"v":1,"type":"start"}
{"v":1,"type":"step","step":6,"loss":0.5,"loss_avg":0.6}
{"v":1,"type":"step","step":7,"loss":0.25,"loss_avg":0.5}
{"v":1,"type":"step","st`,
		"cat.safetensors": "x",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{dir, filepath.Join(dir, "metrics.jsonl")} {
		r := open(t, path)
		if r.Kind != "run" || r.Run.Status != "stopped" || r.Run.Step != 7 || *r.Run.LastLoss != 0.25 || len(r.Run.Adapters) != 1 || *r.Run.Exit != 130 {
			t.Errorf("got %+v", r.Run)
		}
	}
}

// The distance of two adapters, whatever form each has.
func TestCompare(t *testing.T) {
	const layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
	dir := t.TempDir()
	one, two := filepath.Join(dir, "one.safetensors"), filepath.Join(dir, "two.safetensors")
	if err := tensor.WriteFile(one, []tensor.Named{{Name: layer + ".diff", Tensor: tensor.FromFloat32(tensor.F32, []int{2, 2}, []float32{3, 0, 0, 4})}}, nil); err != nil {
		t.Fatal(err)
	}
	if err := tensor.WriteFile(two, []tensor.Named{
		{Name: "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight", Tensor: tensor.FromFloat32(tensor.F32, []int{1, 2}, []float32{3, 0})},
		{Name: "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_B.weight", Tensor: tensor.FromFloat32(tensor.F32, []int{2, 1}, []float32{1, 0})},
		{Name: "unet.conv_out.lora_A.weight", Tensor: tensor.FromFloat32(tensor.F32, []int{1, 2, 3, 3}, make([]float32, 18))},
		{Name: "unet.conv_out.lora_B.weight", Tensor: tensor.FromFloat32(tensor.F32, []int{2, 1, 1, 1}, make([]float32, 2))},
	}, nil); err != nil {
		t.Fatal(err)
	}
	d, err := inspect.Compare(one, two, options)
	if err != nil {
		t.Fatal(err)
	}
	if d.Same || len(d.Differing) != 1 || d.Differing[0].Name != layer || d.Differing[0].Relative != 0.8 || d.Differing[0].Cosine != 0.6 || d.Relative != 0.8 {
		t.Errorf("got %+v", d)
	}
	if len(d.OnlyThere) != 1 || d.OnlyThere[0] != "lora_unet_conv_out" {
		t.Errorf("only there %q", d.OnlyThere)
	}
}

// Damaged and strange files: a sentence of kind input.
func TestRefused(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct{ text, want string }{
		"empty.safetensors": {"", "too short"},
		"page.safetensors":  {"<!doctype html><html>", "is a web page"},
		"zip.ckpt":          {"PK\x03\x04xxxxxxxxxxxx", "is a PyTorch pickle, which only convert reads"},
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(c.text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := inspect.Open(path, options); fault.KindOf(err) != fault.Input || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if _, err := inspect.Open(filepath.Join(dir, "none"), options); fault.KindOf(err) != fault.Input {
		t.Errorf("no file: %v", err)
	}
}
