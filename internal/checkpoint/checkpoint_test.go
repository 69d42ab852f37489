package checkpoint_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"lycoris/internal/arch"
	"lycoris/internal/checkpoint"
	"lycoris/internal/fault"
	"lycoris/internal/tensor"
	"lycoris/internal/testutil/tinymodel"
)

const smallVocab = 64 // the tests don't need the token table

func tiny(t testing.TB, o tinymodel.Options) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tiny.safetensors")
	if o.Layout == checkpoint.Folder {
		path = filepath.Join(t.TempDir(), "tiny")
	}
	if o.Vocab == 0 {
		o.Vocab = smallVocab
	}
	if err := tinymodel.Write(path, o); err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t testing.TB, path string) *checkpoint.Model {
	t.Helper()
	m, err := checkpoint.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func wantInput(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil || fault.KindOf(err) != fault.Input || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v, want an input error with %q", err, words)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("got %v, want %q in it", err, w)
		}
	}
}

// same fails unless two models hold equal tensors.
func same(t *testing.T, a, b *checkpoint.Model) {
	t.Helper()
	for _, c := range b.Components() {
		for _, p := range arch.Params(b.Modules(c)) {
			x, err := a.Read(c, p.Name)
			y, err2 := b.Read(c, p.Name)
			if err != nil || err2 != nil {
				t.Fatal(err, err2)
			}
			if !bytes.Equal(x.Data, y.Data) || x.DType != y.DType || !slices.Equal(x.Shape, p.Shape) || !slices.Equal(y.Shape, p.Shape) {
				t.Fatalf("%s %q differs: %s %v, %s %v, want shape %v", c, p.Name, x.DType, x.Shape, y.DType, y.Shape, p.Shape)
			}
			if info, ok := a.Info(c, p.Name); !ok || !slices.Equal(info.Shape, p.Shape) || info.DType != x.DType {
				t.Fatalf("%q: info %+v", p.Name, info)
			}
		}
	}
}

// TestLayouts: the same model as a file and as folders of both text encoder styles is the same model.
func TestLayouts(t *testing.T) {
	single := open(t, tiny(t, tinymodel.Options{Seed: 3}))
	if single.Layout != checkpoint.SingleFile || single.Family != checkpoint.SD1 || single.Prediction != checkpoint.Epsilon || !single.Stated {
		t.Errorf("single file: %+v", single)
	}
	if got := single.VAE.Factor(); got != 8 || single.VAE.ScalingFactor != 0.18215 {
		t.Errorf("VAE factor %d, scaling %v", got, single.VAE.ScalingFactor)
	}
	for _, noLevel := range []bool{false, true} {
		folder := open(t, tiny(t, tinymodel.Options{Seed: 3, Layout: checkpoint.Folder, NoTextLevel: noLevel, Prediction: checkpoint.VPrediction}))
		if folder.Layout != checkpoint.Folder || folder.Prediction != checkpoint.VPrediction || !folder.Stated {
			t.Errorf("folder: %+v", folder)
		}
		if !reflect.DeepEqual(folder.UNet, single.UNet) || folder.Text != single.Text || !reflect.DeepEqual(folder.VAE, single.VAE) {
			t.Errorf("configs differ:\n%+v %+v %+v\n%+v %+v %+v", folder.UNet, folder.Text, folder.VAE, single.UNet, single.Text, single.VAE)
		}
		same(t, single, folder)
		if a, b := single.Bytes(arch.UNet), folder.Bytes(arch.UNet); a != b || a != 2*int64(arch.ParamCount(arch.UNetModules(single.UNet))) {
			t.Errorf("UNet bytes %d, %d", a, b)
		}
		if got := folder.DTypes(arch.VAE); len(got) != 1 || got[tensor.F16] == 0 {
			t.Errorf("dtypes %v", got)
		}
	}
	for _, d := range []tensor.DType{tensor.F32, tensor.BF16} {
		m := open(t, tiny(t, tinymodel.Options{Seed: 3, DType: d}))
		if x, err := m.Read(arch.UNet, "conv_in.weight"); err != nil || x.DType != d {
			t.Errorf("%s: read %s, %v", d, x.DType, err)
		}
	}
}

// TestReferenceFolders opens what diffusers and transformers wrote: other level counts, bf16, text encoder names of both styles.
func TestReferenceFolders(t *testing.T) {
	for name, want := range map[string]checkpoint.Prediction{"tiny-sd1": checkpoint.Epsilon, "tiny-odd": checkpoint.VPrediction} {
		m := open(t, filepath.Join("..", "..", "testdata", "golden", name))
		if m.Prediction != want || m.Family != checkpoint.SD1 {
			t.Errorf("%s: %s %s", name, m.Family, m.Prediction)
		}
		for _, c := range arch.Components {
			for _, p := range arch.Params(m.Modules(c)) {
				if x, err := m.Read(c, p.Name); err != nil || len(x.Data) != x.DType.Size()*tensor.Elems(p.Shape) {
					t.Errorf("%s %s %q: %v", name, c, p.Name, err)
				}
			}
		}
	}
}

// rewrite copies a safetensors file, each tensor through edit: a nil result leaves it out.
func rewrite(t testing.TB, from, to string, edit func(tensor.Named) []tensor.Named, meta func(map[string]string)) {
	t.Helper()
	f, err := tensor.OpenFile(from)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []tensor.Named
	for _, name := range f.Names() {
		x, err := f.Read(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, edit(tensor.Named{Name: name, Tensor: x})...)
	}
	m := map[string]string{}
	for k, v := range f.Metadata() {
		m[k] = v
	}
	if meta != nil {
		meta(m)
	}
	if err := tensor.WriteFile(to, all, m); err != nil {
		t.Fatal(err)
	}
}

func keep(x tensor.Named) []tensor.Named { return []tensor.Named{x} }

func renamed(r *strings.Replacer) func(tensor.Named) []tensor.Named {
	return func(x tensor.Named) []tensor.Named {
		x.Name = r.Replace(x.Name)
		return []tensor.Named{x}
	}
}

// TestNameForms: the spellings of the reference formats 2.1 to 2.4 that aren't the usual ones.
func TestNameForms(t *testing.T) {
	single := tiny(t, tinymodel.Options{Seed: 5})
	folder := tiny(t, tinymodel.Options{Seed: 5, Layout: checkpoint.Folder})
	want := open(t, single)
	dir := t.TempDir()

	path := filepath.Join(dir, "notext.safetensors") // old merges lack the text_model level
	rewrite(t, single, path, renamed(strings.NewReplacer("transformer.text_model.", "transformer.")), nil)
	same(t, open(t, path), want)

	path = filepath.Join(dir, "extras.safetensors") // what checkpoints carry besides
	rewrite(t, single, path, func(x tensor.Named) []tensor.Named {
		list := []tensor.Named{x}
		if strings.HasSuffix(x.Name, "token_embedding.weight") {
			for _, extra := range []string{"alphas_cumprod", "betas", "model_ema.decay", "model_ema.diffusion_modelout2bias"} {
				list = append(list, tensor.Named{Name: extra, Tensor: tensor.FromFloat32(tensor.F32, []int{1}, []float32{1})})
			}
			list = append(list, tensor.Named{Name: "cond_stage_model.transformer.text_model.embeddings.position_ids", Tensor: tensor.FromInt64([]int{1, 2}, []int64{0, 1})})
		}
		return list
	}, nil)
	same(t, open(t, path), want)

	vae := filepath.Join(folder, "vae", "diffusion_pytorch_model.safetensors")
	old := filepath.Join(dir, "old.safetensors") // diffusers before 0.18
	rewrite(t, vae, old, renamed(strings.NewReplacer("attentions.0.to_q", "attentions.0.query", "attentions.0.to_k", "attentions.0.key",
		"attentions.0.to_v", "attentions.0.value", "attentions.0.to_out.0", "attentions.0.proj_attn")), nil)
	if err := os.Rename(old, vae); err != nil {
		t.Fatal(err)
	}
	same(t, open(t, folder), want)
}

// TestVariantsAndShards: fp16 variants and sharded weights with an index.
func TestVariantsAndShards(t *testing.T) {
	folder := tiny(t, tinymodel.Options{Seed: 6, Layout: checkpoint.Folder})
	want := open(t, tiny(t, tinymodel.Options{Seed: 6}))
	vae := filepath.Join(folder, "vae", "diffusion_pytorch_model")
	if err := os.Rename(vae+".safetensors", vae+".fp16.safetensors"); err != nil {
		t.Fatal(err)
	}
	unet := filepath.Join(folder, "unet", "diffusion_pytorch_model")
	index := map[string]string{}
	for i, name := range []string{"-00001-of-00002.safetensors", "-00002-of-00002.safetensors"} {
		rewrite(t, unet+".safetensors", unet+name, func(x tensor.Named) []tensor.Named {
			if strings.HasPrefix(x.Name, "up_") != (i == 1) {
				return nil
			}
			index[x.Name] = "diffusion_pytorch_model" + name
			return keep(x)
		}, nil)
	}
	if err := os.Remove(unet + ".safetensors"); err != nil {
		t.Fatal(err)
	}
	writeIndex := func(m map[string]string) {
		text, _ := json.Marshal(map[string]any{"metadata": map[string]int{"total_size": 1}, "weight_map": m})
		if err := os.WriteFile(unet+".safetensors.index.json", text, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	writeIndex(index)
	same(t, open(t, folder), want)

	writeIndex(map[string]string{"conv_in.weight": "../../secret.safetensors"})
	_, err := checkpoint.Open(folder)
	wantInput(t, err, `names a file "../../secret.safetensors"`)
	writeIndex(nil)
	_, err = checkpoint.Open(folder)
	wantInput(t, err, "has no weight_map")
}

// TestInference: without stated configs the sizes come from shapes; SD1's own widths and any others that SD1's groups and heads divide.
func TestInference(t *testing.T) {
	u, c, v := arch.SD15UNet(), arch.CLIPL(), arch.SDVAE()
	u.BlockOutChannels, u.CrossAttentionDim, u.TimeEmbedDim = []int{32, 64, 64, 96}, 64, 128
	c.Width, c.Intermediate, c.Layers, c.Heads, c.VocabSize = 64, 128, 2, 1, 50
	v.BlockOutChannels = []int{32, 32, 64, 64}
	path := filepath.Join(t.TempDir(), "m.safetensors")
	writeModel(t, path, u, c, v, nil)
	m := open(t, path)
	if !reflect.DeepEqual(m.UNet, u) || m.Text != c || !reflect.DeepEqual(m.VAE, v) {
		t.Errorf("got\n%+v\n%+v\n%+v\nwant\n%+v\n%+v\n%+v", m.UNet, m.Text, m.VAE, u, c, v)
	}
	if m.Stated || m.Prediction != checkpoint.Epsilon {
		t.Errorf("prediction %s, stated %t", m.Prediction, m.Stated)
	}
	u.BlockOutChannels[1] = 72
	writeModel(t, path, u, c, v, nil)
	_, err := checkpoint.Open(path)
	wantInput(t, err, "the UNet has 72 channels, which can't be split into the 32 norm groups")
}

// writeModel writes a single file of zeros for the configs.
func writeModel(t testing.TB, path string, u arch.UNetConfig, c arch.CLIPConfig, v arch.VAEConfig, meta map[string]string) {
	t.Helper()
	var all []tensor.Lazy
	for part, modules := range map[arch.Component][]arch.Module{arch.UNet: arch.UNetModules(u), arch.TextEncoder: arch.CLIPModules(c), arch.VAE: arch.VAEModules(v)} {
		for _, p := range arch.Params(modules) {
			all = append(all, tensor.Lazy{Name: arch.LDMPrefix(part) + p.LDM, DType: tensor.F16, Shape: p.Shape,
				Data: func() ([]byte, error) { return make([]byte, 2*tensor.Elems(p.Shape)), nil }})
		}
	}
	if err := tensor.WriteStream(path, all, meta); err != nil {
		t.Fatal(err)
	}
}

// TestPrediction: where the type is stated.
func TestPrediction(t *testing.T) {
	single := tiny(t, tinymodel.Options{})
	path := filepath.Join(t.TempDir(), "p.safetensors")
	for _, c := range []struct {
		stated string
		marker bool
		want   checkpoint.Prediction
		ok     bool
	}{{"epsilon", false, checkpoint.Epsilon, true}, {"v", false, checkpoint.VPrediction, true}, {"", true, checkpoint.VPrediction, true}, {"", false, checkpoint.Epsilon, false}} {
		edit := keep
		if c.marker {
			edit = func(x tensor.Named) []tensor.Named {
				if x.Name == "first_stage_model.quant_conv.bias" {
					return []tensor.Named{x, {Name: "v_pred", Tensor: tensor.Tensor{DType: tensor.F32, Shape: []int{0}}}}
				}
				return keep(x)
			}
		}
		rewrite(t, single, path, edit, func(m map[string]string) {
			if m["modelspec.prediction_type"] = c.stated; c.stated == "" {
				delete(m, "modelspec.prediction_type")
			}
		})
		if m := open(t, path); m.Prediction != c.want || m.Stated != c.ok {
			t.Errorf("%+v: %s, stated %t", c, m.Prediction, m.Stated)
		}
	}
	rewrite(t, single, path, keep, func(m map[string]string) { m["modelspec.prediction_type"] = "flow" })
	_, err := checkpoint.Open(path)
	wantInput(t, err, `name the prediction type "flow"`)
}

// TestWrongFiles: everything that isn't a whole SD1.x model is called by its name.
func TestWrongFiles(t *testing.T) {
	dir := t.TempDir()
	type tensors map[string][]int
	const unet = "model.diffusion_model."
	sd1 := tensors{unet + "input_blocks.0.0.weight": {320, 4, 3, 3}, unet + "input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight": {320, 768}}
	with := func(base tensors, more tensors) tensors {
		all := tensors{}
		for k, v := range base {
			all[k] = v
		}
		for k, v := range more {
			all[k] = v
		}
		return all
	}
	const c1 = "conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias"
	for _, c := range []struct {
		name    string
		tensors tensors
		words   string
	}{
		{"SDXL", tensors{c1: {1280}, unet + "input_blocks.0.0.weight": {320, 4, 3, 3}, unet + "output_blocks.8.0.in_layers.2.weight": {1}, unet + "input_blocks.7.1.norm.weight": {1},
			unet + "input_blocks.7.1.transformer_blocks.9.norm1.weight": {1}}, "is an SDXL model; this version trains Stable Diffusion 1.x"},
		{"SSD-1B", tensors{c1: {1280}, unet + "input_blocks.0.0.weight": {320, 4, 3, 3}}, "is a pruned SDXL model (SSD-1B, Vega or kin)"},
		{"SDXL UNet", tensors{unet + "label_emb.0.0.weight": {1280, 2816}, unet + "output_blocks.8.0.in_layers.2.weight": {1}}, "is an SDXL model"},
		{"refiner", tensors{"conditioner.embedders.0.model.transformer.resblocks.9.mlp.c_proj.bias": {1280}}, "is an SDXL refiner"},
		{"refiner UNet", tensors{unet + "label_emb.0.0.weight": {1536, 2560}}, "is an SDXL refiner"},
		{"SD2", tensors{"cond_stage_model.model.ln_final.weight": {1024}, unet + "input_blocks.0.0.weight": {320, 4, 3, 3}}, "is a Stable Diffusion 2.x model"},
		{"SD2 UNet", tensors{unet + "input_blocks.0.0.weight": {320, 4, 3, 3}, unet + "input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight": {320, 1024}}, "is a Stable Diffusion 2.x UNet"},
		{"inpaint", with(sd1, tensors{unet + "input_blocks.0.0.weight": {320, 9, 3, 3}}), "is an inpainting model"},
		{"pix2pix", with(sd1, tensors{unet + "input_blocks.0.0.weight": {320, 8, 3, 3}}), "is an instruct-pix2pix model"},
		{"depth", with(sd1, tensors{unet + "input_blocks.0.0.weight": {320, 5, 3, 3}}), "is a depth-to-image model"},
		{"UNet only", sd1, "holds a UNet but no text encoder and no VAE"},
		{"no VAE", with(sd1, tensors{"cond_stage_model.transformer.text_model.x": {1}}), "holds a UNet but no VAE"},
		{"LoRA", tensors{"lora_unet_conv_in.lora_down.weight": {4, 4}, "lora_unet_conv_in.lora_up.weight": {4, 4}}, "is an adapter (LoRA or kin), not a base model"},
		{"peft LoRA", tensors{"unet.conv_in.lora_A.weight": {4, 4}}, "is an adapter"},
		{"LoKr", tensors{"lora_unet_conv_in.lokr_w1": {4, 4}}, "is an adapter"},
		{"VAE", tensors{"first_stage_model.encoder.conv_in.weight": {128, 3, 3, 3}}, "is a VAE alone"},
		{"diffusers VAE", tensors{"encoder.conv_in.weight": {128, 3, 3, 3}, "decoder.conv_in.weight": {1}}, "is a VAE alone"},
		{"diffusers UNet", tensors{"conv_in.weight": {1}, "down_blocks.0.resnets.0.conv1.weight": {1}}, "is a UNet alone, with diffusers names"},
		{"text encoder", tensors{"text_model.embeddings.token_embedding.weight": {1}}, "is a text encoder alone"},
		{"ControlNet", tensors{"control_model.input_blocks.0.0.weight": {1}}, "is a ControlNet"},
		{"Flux", tensors{"double_blocks.0.img_attn.qkv.weight": {1}}, "is a Flux model"},
		{"SD3", tensors{"model.diffusion_model.joint_blocks.0.x.weight": {1}}, "is a Stable Diffusion 3 model"},
		{"embedding", tensors{"emb_params": {1, 768}}, "is a textual-inversion embedding"},
		{"few", tensors{"x": {1}}, `holds 1 tensors ("x", …)`},
		{"other", tensors{"a": {1}, "b": {1}, "c": {1}, "d": {1}, "e": {1}}, "is a safetensors file of an unknown kind (5 tensors"},
		{"nothing", tensors{}, "holds no tensors"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var all []tensor.Named
			for name, shape := range c.tensors {
				all = append(all, tensor.Named{Name: name, Tensor: tensor.FromFloat32(tensor.F16, shape, make([]float32, tensor.Elems(shape)))})
			}
			path := filepath.Join(dir, "m.safetensors")
			if err := tensor.WriteFile(path, all, nil); err != nil {
				t.Fatal(err)
			}
			_, err := checkpoint.Open(path)
			wantInput(t, err, c.words)
		})
	}
	_, err := checkpoint.Open(filepath.Join(dir, "none"))
	wantInput(t, err, "there is no such file or folder")
}

// TestIncomplete: what is missing or misshapen is named.
func TestIncomplete(t *testing.T) {
	single := tiny(t, tinymodel.Options{})
	path := filepath.Join(t.TempDir(), "m.safetensors")
	rewrite(t, single, path, func(x tensor.Named) []tensor.Named {
		if strings.Contains(x.Name, "output_blocks.5.") {
			return nil
		}
		return keep(x)
	}, nil)
	_, err := checkpoint.Open(path)
	wantInput(t, err, "unet lacks ", `: "up_blocks.1.attentions.2.norm.weight", "up_blocks.1.attentions.2.norm.bias"`, " and ", " more")

	rewrite(t, single, path, func(x tensor.Named) []tensor.Named {
		if strings.HasSuffix(x.Name, "out.2.bias") {
			return nil
		}
		return keep(x)
	}, nil)
	_, err = checkpoint.Open(path)
	wantInput(t, err, `unet lacks 1 tensor: "conv_out.bias"`)

	rewrite(t, single, path, func(x tensor.Named) []tensor.Named {
		if strings.HasSuffix(x.Name, "middle_block.0.in_layers.0.weight") {
			x.Tensor = tensor.FromFloat32(tensor.F16, []int{1}, []float32{1})
		}
		return keep(x)
	}, nil)
	_, err = checkpoint.Open(path)
	wantInput(t, err, `"model.diffusion_model.middle_block.0.in_layers.0.weight" has shape [1], want [96]`)

	rewrite(t, single, path, func(x tensor.Named) []tensor.Named {
		if strings.HasSuffix(x.Name, "out.2.bias") {
			x.Tensor = tensor.FromInt64([]int{4}, make([]int64, 4))
		}
		return keep(x)
	}, nil)
	_, err = checkpoint.Open(path)
	wantInput(t, err, "element type I64")

	rewrite(t, single, path, keep, func(m map[string]string) { m[checkpoint.ConfigKey] = `{"unet":{"class_embed_type":"timestep"}}` })
	_, err = checkpoint.Open(path)
	wantInput(t, err, "m.safetensors: class_embed_type")
	rewrite(t, single, path, keep, func(m map[string]string) { m[checkpoint.ConfigKey] = `[` })
	_, err = checkpoint.Open(path)
	wantInput(t, err, "is not a JSON object")
}

// TestWrongFolders: a folder that isn't an SD1.x model says what it is or lacks.
func TestWrongFolders(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(t *testing.T, dir string)
		words  string
	}{
		{"no index", func(t *testing.T, d string) { remove(t, d, "model_index.json") }, "is not a diffusers model: it has no model_index.json"},
		{"SDXL", func(t *testing.T, d string) {
			put(t, d, "model_index.json", `{"_class_name":"StableDiffusionXLPipeline"}`)
		}, "is an SDXL model (StableDiffusionXLPipeline)"},
		{"inpaint", func(t *testing.T, d string) {
			put(t, d, "model_index.json", `{"_class_name":"StableDiffusionInpaintPipeline"}`)
		}, "is an inpainting model"},
		{"Flux", func(t *testing.T, d string) { put(t, d, "model_index.json", `{"_class_name":"FluxPipeline"}`) }, "is a Flux model"},
		{"other", func(t *testing.T, d string) { put(t, d, "model_index.json", `{"_class_name":"WhisperPipeline"}`) }, `is a "WhisperPipeline" pipeline`},
		{"broken index", func(t *testing.T, d string) { put(t, d, "model_index.json", `{`) }, "is not a JSON object"},
		{"no UNet", func(t *testing.T, d string) { remove(t, d, "unet") }, "has no unet: unet/config.json is missing"},
		{"broken config", func(t *testing.T, d string) { put(t, d, "vae/config.json", `{"act_fn":"relu"}`) }, `vae/config.json: act_fn "relu" is not supported`},
		{"no weights", func(t *testing.T, d string) { remove(t, d, "unet/diffusion_pytorch_model.safetensors") }, "has no weights"},
		{"pickle", func(t *testing.T, d string) {
			remove(t, d, "unet/diffusion_pytorch_model.safetensors")
			put(t, d, "unet/diffusion_pytorch_model.bin", "PK")
		}, "has only PyTorch pickles (diffusion_pytorch_model.bin)"},
		{"LFS", func(t *testing.T, d string) {
			put(t, d, "vae/diffusion_pytorch_model.safetensors", "version https://git-lfs.github.com/spec/v1\n")
		}, "is a Git LFS pointer"},
		{"sample prediction", func(t *testing.T, d string) {
			put(t, d, "scheduler/scheduler_config.json", `{"prediction_type":"sample"}`)
		}, `prediction_type "sample" is not supported`},
		{"9 channels", func(t *testing.T, d string) { edit(t, d, "unet/config.json", "in_channels", 9) }, "is an inpainting model"},
		{"other text width", func(t *testing.T, d string) { edit(t, d, "unet/config.json", "cross_attention_dim", 40) }, "want [32 40]"},
		{"other latents", func(t *testing.T, d string) { edit(t, d, "vae/config.json", "latent_channels", 8) }, "want [16 32 3 3]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := tiny(t, tinymodel.Options{Layout: checkpoint.Folder})
			c.damage(t, dir)
			_, err := checkpoint.Open(dir)
			wantInput(t, err, c.words)
		})
	}
	dir := tiny(t, tinymodel.Options{Layout: checkpoint.Folder})
	_, err := checkpoint.Open(filepath.Join(dir, "unet"))
	wantInput(t, err, "has no model_index.json")
	var f *fault.Error
	if f, _ = err.(*fault.Error); f == nil || !strings.Contains(f.Advice, "one part of a model") {
		t.Errorf("advice %+v", f)
	}
}

func remove(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
}

func edit(t *testing.T, dir, name, key string, value any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	m[key] = value
	if text, err = json.Marshal(m); err != nil {
		t.Fatal(err)
	}
	put(t, dir, name, string(text))
}

// TestOpenVAE: every form in which a VAE comes by itself is the same VAE.
func TestOpenVAE(t *testing.T) {
	single, folder := tiny(t, tinymodel.Options{Seed: 8}), tiny(t, tinymodel.Options{Seed: 8, Layout: checkpoint.Folder})
	want := open(t, single)
	dir := t.TempDir()
	bare := filepath.Join(dir, "bare.safetensors") // LDM names without the prefix, as most VAE files are
	rewrite(t, single, bare, func(x tensor.Named) []tensor.Named {
		name, ok := strings.CutPrefix(x.Name, "first_stage_model.")
		if !ok {
			return nil
		}
		x.Name = name
		return keep(x)
	}, nil)
	for _, path := range []string{single, folder, filepath.Join(folder, "vae"), filepath.Join(folder, "vae", "diffusion_pytorch_model.safetensors"), bare} {
		m, err := checkpoint.OpenVAE(path)
		if err != nil {
			t.Error(err)
			continue
		}
		if got := m.Components(); !slices.Equal(got, []arch.Component{arch.VAE}) || !reflect.DeepEqual(m.VAE, want.VAE) {
			t.Errorf("%s: %v %+v", path, got, m.VAE)
		}
		same(t, want, m)
		m.Close()
	}
	if err := want.FitsVAE(open(t, folder)); err != nil {
		t.Error(err)
	}
	wide := checkpoint.Model{VAE: want.VAE}
	wide.VAE.LatentChannels = 16
	wantInput(t, want.FitsVAE(&wide), "its latents have 16 channels", "works on 4")
	flat := checkpoint.Model{VAE: want.VAE}
	flat.VAE.BlockOutChannels = flat.VAE.BlockOutChannels[:3]
	wantInput(t, want.FitsVAE(&flat), "it makes pictures 4 times smaller", "8 times")
	_, err := checkpoint.OpenVAE(filepath.Join(folder, "unet", "diffusion_pytorch_model.safetensors"))
	wantInput(t, err, "holds no VAE")
	_, err = checkpoint.Open(bare)
	wantInput(t, err, "is a VAE alone, not a whole model")
}

// TestHashes: the hash is the file's; a folder's follows its weights; the identity follows time and size.
func TestHashes(t *testing.T) {
	path := tiny(t, tinymodel.Options{Seed: 1, Vocab: 20000})
	m := open(t, path)
	want, err := tensor.HashFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := m.Hash(); err != nil || got != want {
		t.Errorf("hash %s, %v, want %s", got, err, want)
	}
	if old, err := m.OldHash(); err != nil || len(old) != 8 || old == "e3b0c442" {
		t.Errorf("old hash %s, %v", old, err)
	}
	if id := m.Identity(); id != open(t, path).Identity() || id == open(t, tiny(t, tinymodel.Options{Seed: 2})).Identity() {
		t.Errorf("identity %s", id)
	}
	a, err := open(t, tiny(t, tinymodel.Options{Seed: 1, Layout: checkpoint.Folder})).Hash()
	b, err2 := open(t, tiny(t, tinymodel.Options{Seed: 1, Layout: checkpoint.Folder})).Hash()
	c, err3 := open(t, tiny(t, tinymodel.Options{Seed: 2, Layout: checkpoint.Folder})).Hash()
	if err != nil || err2 != nil || err3 != nil || a != b || a == c || len(a) != 64 {
		t.Errorf("folder hashes %s %s %s", a, b, c)
	}
	if err := m.Unchanged(); err != nil {
		t.Error(err)
	}
	if err := os.Truncate(path, 1000); err != nil {
		t.Fatal(err)
	}
	wantInput(t, m.Unchanged(), "changed while it was in use")
}
