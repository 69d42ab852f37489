package modelfile_test

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lycoris/internal/arch"
	"lycoris/internal/checkpoint"
	"lycoris/internal/fault"
	"lycoris/internal/modelfile"
	"lycoris/internal/tensor"
	"lycoris/internal/testutil/tinymodel"
)

func open(t *testing.T, path string) *modelfile.Model {
	t.Helper()
	m, err := modelfile.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func write(t *testing.T, tensors []tensor.Named) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "m.safetensors")
	if err := tensor.WriteFile(path, tensors, nil); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestSD1: file and folder have the same modules; every tensor of UNet and text encoder belongs to one, and Find leads back to it.
func TestSD1(t *testing.T) {
	for name, o := range map[string]tinymodel.Options{"file": {}, "folder": {Layout: checkpoint.Folder}, "transformers 5": {Layout: checkpoint.Folder, NoTextLevel: true}} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "m.safetensors")
			o.Vocab = 50
			if err := tinymodel.Write(path, o); err != nil {
				t.Fatal(err)
			}
			m := open(t, path)
			base, err := checkpoint.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer base.Close()
			if m.Family != modelfile.SD1 || m.Channels != 4 || m.Folder != (name != "file") || !slices.Equal(m.Components(), []string{"unet", "text_encoder"}) {
				t.Fatalf("%+v %v", m.Family, m.Components())
			}
			for _, c := range []arch.Component{arch.UNet, arch.TextEncoder} {
				modules, want := m.Modules(string(c)), base.Modules(c)
				if len(modules) != len(want) {
					t.Fatalf("%s: %d modules, want %d", c, len(modules), len(want))
				}
				for i, mod := range modules {
					if mod.Path != want[i].Path || !slices.Equal(mod.Shape, want[i].Shape) || mod.Bias != want[i].Bias {
						t.Fatalf("module %+v, want %+v", mod, want[i])
					}
					place, ok := m.Find(string(c), mod.Path, "weight")
					if !ok || place.Rows != [2]int{0, mod.Shape[0]} {
						t.Fatalf("%s: %+v %t", mod.Path, place, ok)
					}
					got, err := m.Read(place.File, place.Name)
					truth, err2 := base.Read(c, mod.Path+".weight")
					if err != nil || err2 != nil || string(got.Data) != string(truth.Data) {
						t.Fatalf("%s: other values (%v, %v)", mod.Path, err, err2)
					}
				}
			}
			for _, f := range m.Files() {
				for _, tn := range f.Tensors {
					if want := strings.HasPrefix(tn.Name, "first_stage_model."); (tn.Role == modelfile.VAE) != want || tn.Role != modelfile.VAE && (tn.Role != modelfile.Module || len(tn.Parts) != 1) {
						t.Errorf("%q: role %v, parts %v", tn.Name, tn.Role, tn.Parts)
					}
				}
			}
		})
	}
}

// TestFamilies: SD2's fused projections are three modules each; SDXL has two encoders; markers, averages and strangers are known as such.
func TestFamilies(t *testing.T) {
	for name, components := range map[string][]string{"sd2": {"unet", "text_encoder"}, "sdxl": {"unet", "text_encoder", "text_encoder_2"}} {
		t.Run(name, func(t *testing.T) {
			m := open(t, write(t, tinymodel.Family{Name: name, DType: tensor.BF16, EMA: true}.Tensors()))
			if m.Family != name || !m.LDM || !slices.Equal(m.Components(), components) {
				t.Fatalf("family %s, %v", m.Family, m.Components())
			}
			fused := components[len(components)-1]
			place, ok := m.Find(fused, "text_model.encoder.layers.1.self_attn.v_proj", "bias")
			if !ok || !strings.HasSuffix(place.Name, "transformer.resblocks.1.attn.in_proj_bias") || place.Rows != [2]int{24, 36} {
				t.Errorf("v_proj lies at %+v", place)
			}
			roles := map[modelfile.Role]int{}
			for _, tn := range m.Files()[0].Tensors {
				roles[tn.Role]++
				switch {
				case strings.Contains(tn.Name, "in_proj"):
					if len(tn.Parts) != 3 || !strings.HasSuffix(tn.Parts[0].Path, "q_proj") || !strings.HasSuffix(tn.Parts[1].Path, "k_proj") || tn.Parts[2].Rows != [2]int{24, 36} {
						t.Errorf("%q: parts %+v", tn.Name, tn.Parts)
					}
				case tn.Role == modelfile.EMA:
					if mod, ok := m.Find(tn.EMA.Component, tn.EMA.Path, tn.EMA.Param); !ok || tn.EMA.Rows != mod.Rows {
						t.Errorf("%q is the average of %+v", tn.Name, tn.EMA)
					}
				case tn.Role == modelfile.Unknown && tn.Name != "somebody.elses.values":
					t.Errorf("%q is unknown", tn.Name)
				}
			}
			markers := 5 // alphas_cumprod, v_pred, position_ids, text_projection, logit_scale
			if roles[modelfile.Marker] != markers || roles[modelfile.VAE] != 1 || roles[modelfile.Unknown] != 1 || roles[modelfile.EMA] == 0 {
				t.Errorf("roles %v", roles)
			}
		})
	}
}

// TestFullSizes: names of full size are counted right: 282 and 794 layers with a weight in the UNets (the reference formats, 1.6).
func TestFullSizes(t *testing.T) {
	for _, c := range []struct {
		name, family string
		unet         arch.UNetConfig
		layers       int
	}{{"SD1", "sd1", arch.SD15UNet(), 282}, {"SD2", "sd2", arch.SD2UNet(), 282}, {"SDXL", "sdxl", arch.SDXLUNet(), 794}} {
		for _, ldm := range []bool{true, false} {
			var all []tensor.Slot
			for _, p := range arch.Params(arch.UNetModules(c.unet)) {
				name := p.Name
				if ldm {
					name = "model.diffusion_model." + p.LDM
				}
				all = append(all, tensor.Slot{Name: name, DType: tensor.F16, Shape: p.Shape})
			}
			m := open(t, hollow(t, all))
			n := 0
			for _, mod := range m.Modules("unet") {
				if len(mod.Shape) > 1 {
					n++
				}
			}
			if m.Family != c.family || n != c.layers || m.LDM != ldm {
				t.Errorf("%s, LDM %t: family %s, %d layers, want %d", c.name, ldm, m.Family, n, c.layers)
			}
		}
	}
}

// hollow writes a file of zeros that takes no room on the disk.
func hollow(t *testing.T, slots []tensor.Slot) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "m.safetensors")
	size := int64(0)
	for _, s := range slots {
		size += s.Bytes()
	}
	if free := tensor.FreeSpace(t.TempDir()); free >= 0 && free < size {
		t.Skipf("%d bytes free, the check for room would refuse", free)
	}
	if err := tensor.WritePlaced(path, slots, nil, func(w io.WriterAt) error { _, err := w.WriteAt([]byte{0}, size-1); return err }); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRefusals(t *testing.T) {
	one := func(names ...string) string {
		var all []tensor.Named
		for _, n := range names {
			all = append(all, tensor.Named{Name: n, Tensor: tensor.FromFloat32(tensor.F32, []int{2, 2}, make([]float32, 4))})
		}
		return write(t, all)
	}
	family := tinymodel.Family{Name: "sd2", DType: tensor.F16}.Tensors()
	folder := t.TempDir()
	os.WriteFile(filepath.Join(folder, "model_index.json"), []byte(`{"_class_name":"FluxPipeline"}`), 0o666)
	for _, c := range []struct{ name, path, words string }{
		{"missing", filepath.Join(folder, "none"), "there is no such file"},
		{"adapter", one("lora_unet_conv_in.lora_down.weight"), "is an adapter"},
		{"flux", one("double_blocks.0.img_attn.qkv.weight"), "is a Flux model"},
		{"VAE", one("encoder.conv_in.weight", "decoder.conv_in.weight"), "a VAE alone"},
		{"unknown", one("a", "b"), "of an unknown kind (2 tensors"},
		{"incomplete", write(t, slices.DeleteFunc(slices.Clone(family), func(n tensor.Named) bool { return strings.HasSuffix(n.Name, "out.2.bias") })), "lacks 1 of its tensors"},
		{"empty folder", t.TempDir(), "no model_index.json"},
		{"flux folder", folder, "a Flux model"},
	} {
		m, err := modelfile.Open(c.path)
		if err == nil {
			m.Close()
		}
		if err == nil || fault.KindOf(err) != fault.Input || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v, want %q", c.name, err, c.words)
		}
	}
}
