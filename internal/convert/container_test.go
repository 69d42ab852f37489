package convert_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lycoris/internal/arch"
	"lycoris/internal/checkpoint"
	"lycoris/internal/convert"
	"lycoris/internal/fault"
	"lycoris/internal/modelfile"
	"lycoris/internal/tensor"
	"lycoris/internal/testutil"
	"lycoris/internal/testutil/tinymodel"
)

// carry converts and returns the report.
func carry(t *testing.T, in, out, to string) *convert.Report {
	t.Helper()
	r, err := convert.Run(context.Background(), convert.Options{In: in, Out: out, To: to, Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// sameFiles fails unless two files hold the same bits under the same names; names in except may be in a only.
func sameFiles(t *testing.T, a, b string, except ...string) {
	t.Helper()
	one, two := testutil.Tensors(t, a), testutil.Tensors(t, b)
	for name, x := range one {
		y, ok := two[name]
		switch {
		case slices.ContainsFunc(except, func(p string) bool { return strings.HasPrefix(name, p) }):
			if ok {
				t.Errorf("%q came through", name)
			}
		case !ok:
			t.Errorf("%q is lost", name)
		case x.DType != y.DType || !tensor.SameShape(x.Shape, y.Shape) || !bytes.Equal(x.Data, y.Data):
			t.Errorf("%q is %s %v, was %s %v, or of other values", name, y.DType, y.Shape, x.DType, x.Shape)
		}
	}
	for name := range two {
		if _, ok := one[name]; !ok {
			t.Errorf("%q is new", name)
		}
	}
}

// TestContainersSD1: a single file becomes the folder of the same model and comes back bit for bit; a folder becomes the single file of the same model.
func TestContainersSD1(t *testing.T) {
	dir := t.TempDir()
	file, folder := filepath.Join(dir, "m.safetensors"), filepath.Join(dir, "folder")
	for path, layout := range map[string]checkpoint.Layout{file: checkpoint.SingleFile, folder: checkpoint.Folder} {
		if err := tinymodel.Write(path, tinymodel.Options{Seed: 3, Vocab: 50, Layout: layout}); err != nil {
			t.Fatal(err)
		}
	}
	made, back, single := filepath.Join(dir, "made"), filepath.Join(dir, "back.safetensors"), filepath.Join(dir, "single.safetensors")
	r := carry(t, file, made, "diffusers")
	if r.Kind != "model" || r.Family != "sd1" || len(r.LeftOut)+len(r.Rest)+len(r.Missing) > 0 {
		t.Errorf("report %+v", r)
	}
	for _, part := range []string{"unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"} {
		sameFiles(t, filepath.Join(folder, part+".safetensors"), filepath.Join(made, part+".safetensors"))
	}
	carry(t, made, back, "ldm")
	sameFiles(t, file, back)
	carry(t, folder, single, "ldm")
	sameFiles(t, file, single)

	m, err := checkpoint.Open(made) // with configurations that say what can't be read off shapes
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if m.UNet.NormGroups != 4 || m.Text.Heads != 3 || m.Prediction != checkpoint.Epsilon {
		t.Errorf("%+v %+v %v", m.UNet, m.Text, m.Prediction)
	}
	n, err := checkpoint.Open(single)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if n.UNet.NormGroups != 4 || n.Text.Heads != 3 {
		t.Errorf("%+v %+v", n.UNet, n.Text)
	}
}

// TestContainerNames: transformers 5's names without the level, and the older names of the VAE's attention, come to the same file.
func TestContainerNames(t *testing.T) {
	dir := t.TempDir()
	file, folder, single := filepath.Join(dir, "m.safetensors"), filepath.Join(dir, "folder"), filepath.Join(dir, "single.safetensors")
	for path, o := range map[string]tinymodel.Options{file: {Vocab: 50}, folder: {Vocab: 50, Layout: checkpoint.Folder, NoTextLevel: true}} {
		if err := tinymodel.Write(path, o); err != nil {
			t.Fatal(err)
		}
	}
	vae := filepath.Join(folder, "vae", "diffusion_pytorch_model.safetensors")
	var all []tensor.Named
	old := strings.NewReplacer("0.to_q.", "0.query.", "0.to_k.", "0.key.", "0.to_v.", "0.value.", "0.to_out.0.", "0.proj_attn.")
	for name, x := range testutil.Tensors(t, vae) {
		all = append(all, tensor.Named{Name: old.Replace(name), Tensor: x})
	}
	if err := tensor.WriteFile(vae, all, nil); err != nil {
		t.Fatal(err)
	}
	carry(t, folder, single, "ldm")
	sameFiles(t, file, single)
}

// family writes a small checkpoint of another family, with a whole VAE and the configurations that its widths don't tell.
func family(t *testing.T, name, path string) {
	t.Helper()
	all := tinymodel.Family{Name: name, DType: tensor.F16, EMA: true}.Tensors()
	all = slices.DeleteFunc(all, func(x tensor.Named) bool { return strings.HasPrefix(x.Name, "first_stage_model.") })
	v := arch.SDVAE()
	v.BlockOutChannels, v.LayersPerBlock, v.NormGroups = []int{8, 8}, 1, 2
	for _, p := range arch.Params(arch.VAEModules(v)) {
		shape := p.Shape
		if strings.Contains(p.Name, "attentions.0.to_") && len(shape) == 2 {
			shape = append(slices.Clone(shape), 1, 1)
		}
		values := make([]float32, tensor.Elems(shape))
		for i := range values {
			values[i] = float32(i % 7)
		}
		all = append(all, tensor.Named{Name: "first_stage_model." + p.LDM, Tensor: tensor.FromFloat32(tensor.F16, shape, values)})
	}
	attention := []string{"DownBlock2D", "CrossAttnDownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"}
	unet := map[string]any{"_class_name": "UNet2DConditionModel", "block_out_channels": []int{8, 16}, "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": []int{1, 2},
		"use_linear_projection": true, "cross_attention_dim": 12, "down_block_types": []string{attention[1], attention[1]}, "up_block_types": []string{attention[3], attention[3]}}
	if name == "sdxl" {
		unet["down_block_types"], unet["up_block_types"] = []string{attention[0], attention[1]}, []string{attention[3], attention[2]}
		unet["cross_attention_dim"], unet["transformer_layers_per_block"] = 20, []int{1, 2}
		unet["addition_embed_type"], unet["addition_time_embed_dim"], unet["projection_class_embeddings_input_dim"] = "text_time", 2, 24
	}
	unet["time_embedding_dim"] = nil
	config, err := json.Marshal(map[string]any{"unet": unet, "vae": map[string]any{"_class_name": "AutoencoderKL", "block_out_channels": []int{8, 8}, "layers_per_block": 1, "norm_num_groups": 2,
		"down_block_types": []string{"DownEncoderBlock2D", "DownEncoderBlock2D"}, "up_block_types": []string{"UpDecoderBlock2D", "UpDecoderBlock2D"}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := tensor.WriteFile(path, all, map[string]string{checkpoint.ConfigKey: string(config)}); err != nil {
		t.Fatal(err)
	}
}

// TestContainersFamilies: SD2's fused projections and last layer, SDXL's second encoder and its transposed projection: everything but averages comes back bit for bit, and the folder is
// a model of the family.
func TestContainersFamilies(t *testing.T) {
	for _, name := range []string{"sd2", "sdxl"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file, folder, back := filepath.Join(dir, "m.safetensors"), filepath.Join(dir, "folder"), filepath.Join(dir, "back.safetensors")
			family(t, name, file)
			r := carry(t, file, folder, "diffusers")
			if len(r.LeftOut) == 0 || slices.ContainsFunc(r.LeftOut, func(n string) bool { return !strings.HasPrefix(n, "model_ema.") }) {
				t.Errorf("left out: %q", r.LeftOut)
			}
			if !slices.Contains(r.Rest, "somebody.elses.values") || !slices.Contains(r.Rest, "v_pred") || !slices.Contains(r.Notes, "prediction type: v_prediction") {
				t.Errorf("rest %q, notes %q", r.Rest, r.Notes)
			}
			m, err := modelfile.Open(folder)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			if m.Family != name {
				t.Errorf("the folder is of %s", m.Family)
			}
			whole := testutil.Tensors(t, file)
			fused, part, prefix := "text_encoder", "text_encoder", "cond_stage_model.model."
			if name == "sdxl" {
				fused, part, prefix = "text_encoder_2", "text_encoder_2", "conditioner.embedders.1.model."
			}
			text := testutil.Tensors(t, filepath.Join(folder, part, "model.safetensors"))
			in, k := whole[prefix+"transformer.resblocks.1.attn.in_proj_weight"], text["text_model.encoder.layers.1.self_attn.k_proj.weight"]
			if third := len(in.Data) / 3; !bytes.Equal(k.Data, in.Data[third:2*third]) || !slices.Equal(k.Shape, []int{12, 12}) {
				t.Errorf("%s: k_proj is %v", fused, k.Shape)
			}
			if name == "sd2" {
				if _, ok := text["text_model.encoder.layers.2.mlp.fc1.weight"]; ok {
					t.Error("the folder has the last layer, which diffusers' folders lack")
				}
			} else {
				p, q := whole[prefix+"text_projection"].Float32(), text["text_projection.weight"].Float32()
				if len(q) != 144 || p[3*12+5] != q[5*12+3] || p[3*12+5] == q[3*12+5] {
					t.Error("the projection isn't transposed")
				}
			}
			carry(t, folder, back, "ldm")
			sameFiles(t, file, back, "model_ema.")

			if name == "sd2" { // a folder that was never a single file: the layer that nothing uses is made up, and said
				if err := os.Remove(filepath.Join(folder, "lycoris_rest.safetensors")); err != nil {
					t.Fatal(err)
				}
				bare := filepath.Join(dir, "bare.safetensors")
				if r := carry(t, folder, bare, "ldm"); len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "is a copy of the one before") {
					t.Errorf("notes %q", r.Notes)
				}
				got := testutil.Tensors(t, bare)
				a, b := got[prefix+"transformer.resblocks.1.mlp.c_fc.weight"], got[prefix+"transformer.resblocks.2.mlp.c_fc.weight"]
				if len(a.Data) == 0 || !bytes.Equal(a.Data, b.Data) {
					t.Error("the last layer is no copy")
				}
			}
		})
	}
}

// TestContainerCast: --dtype rounds UNet and text encoders, the VAE stays.
func TestContainerCast(t *testing.T) {
	dir := t.TempDir()
	file, folder := filepath.Join(dir, "m.safetensors"), filepath.Join(dir, "folder")
	if err := tinymodel.Write(file, tinymodel.Options{Vocab: 50}); err != nil {
		t.Fatal(err)
	}
	if _, err := convert.Run(context.Background(), convert.Options{In: file, Out: folder, To: "diffusers", DType: tensor.F32}); err != nil {
		t.Fatal(err)
	}
	for part, want := range map[string]tensor.DType{"unet/diffusion_pytorch_model": tensor.F32, "vae/diffusion_pytorch_model": tensor.F16, "text_encoder/model": tensor.F32} {
		for name, x := range testutil.Tensors(t, filepath.Join(folder, part+".safetensors")) {
			if x.DType != want {
				t.Errorf("%s: %q is %s, want %s", part, name, x.DType, want)
			}
		}
	}
}

// TestContainerLike: configurations of another folder are taken where they fit and refused where they don't, before anything is written.
func TestContainerLike(t *testing.T) {
	dir := t.TempDir()
	file, like := filepath.Join(dir, "m.safetensors"), filepath.Join(dir, "like")
	for path, o := range map[string]tinymodel.Options{file: {Vocab: 50}, like: {Vocab: 50, Layout: checkpoint.Folder, Prediction: checkpoint.VPrediction}} {
		if err := tinymodel.Write(path, o); err != nil {
			t.Fatal(err)
		}
	}
	bare := filepath.Join(dir, "bare.safetensors") // says nothing about heads and groups
	var all []tensor.Named
	for name, x := range testutil.Tensors(t, file) {
		all = append(all, tensor.Named{Name: name, Tensor: x})
	}
	if err := tensor.WriteFile(bare, all, nil); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out")
	o := convert.Options{In: bare, Out: out, To: "diffusers", Like: like}
	if _, err := convert.Run(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"unet/config.json", "vae/config.json", "scheduler/scheduler_config.json"} {
		one, _ := os.ReadFile(filepath.Join(like, name))
		two, err := os.ReadFile(filepath.Join(out, name))
		if err != nil || !bytes.Equal(one, two) {
			t.Errorf("%s is another: %v", name, err)
		}
	}
	wrong := filepath.Join(dir, "wrong")
	if err := tinymodel.Write(wrong, tinymodel.Options{Vocab: 60, Layout: checkpoint.Folder}); err != nil {
		t.Fatal(err)
	}
	o.Out, o.Like = filepath.Join(dir, "none"), wrong
	_, err := convert.Run(context.Background(), o)
	wantInput(t, err, "configuration of text_encoder is another model's")
	o.Like = ""
	_, err = convert.Run(context.Background(), o) // 32 norm groups don't divide the VAE's 16 channels
	wantInput(t, err, "norm groups")
	if _, err := os.Stat(o.Out); err == nil {
		t.Error("a folder was written")
	}
}

// wantInput fails unless err is a fault of the input that says something.
func wantInput(t *testing.T, err error, says string) {
	t.Helper()
	var e *fault.Error
	if !errors.As(err, &e) || e.Kind != fault.Input || !strings.Contains(err.Error(), says) {
		t.Errorf("%v, want a fault of the input with %q", err, says)
	}
}
