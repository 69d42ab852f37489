package arch

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestAgainstReference compares every module, in order, with what diffusers and transformers print (scripts/goldens/names.py): path, class,
// classes around it, parameter shapes, stride and padding. transformers 5 has no text_model level: there it is taken away first.
func TestAgainstReference(t *testing.T) {
	for _, c := range []struct {
		file    string
		modules []Module
	}{
		{"sd15_unet", UNetModules(SD15UNet())}, {"sd2_unet", UNetModules(SD2UNet())}, {"sdxl_unet", UNetModules(SDXLUNet())},
		{"sd15_vae", VAEModules(SDVAE())}, {"sd15_text_encoder", CLIPModules(CLIPL())},
	} {
		t.Run(c.file, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join("..", "..", "testdata", "names", c.file+".txt"))
			if err != nil {
				t.Fatal(err)
			}
			want := strings.Split(strings.TrimSpace(string(text)), "\n")
			if len(c.modules) != len(want) {
				t.Errorf("%d modules, want %d", len(c.modules), len(want))
			}
			for i, m := range c.modules[:min(len(want), len(c.modules))] {
				if got := strings.NewReplacer("text_model.", "", "CLIPTextTransformer>", "", ">CLIPTextTransformer", "").Replace(line(m)); got != want[i] {
					t.Fatalf("module %d\n got %s\nwant %s", i, got, want[i])
				}
			}
		})
	}
}

// line writes m as the script does.
func line(m Module) string {
	s := fmt.Sprintf("%s %s %s", m.Path, m.Kind, strings.Join(m.Classes, ">"))
	for _, p := range m.Params() {
		s += fmt.Sprintf(" %s%s", p.Name[len(m.Path)+1:], strings.ReplaceAll(fmt.Sprint(p.Shape), " ", ","))
	}
	if m.Kind == Conv2d {
		s += fmt.Sprintf(" stride%d pad%d", m.Stride, m.Pad)
	}
	return s
}

// TestParameterCounts asserts the totals of the reference formats, section 1.6.
func TestParameterCounts(t *testing.T) {
	vae := VAEModules(SDVAE())
	part := func(prefix string) []Module {
		return slices.DeleteFunc(slices.Clone(vae), func(m Module) bool { return !strings.HasPrefix(m.Path, prefix) })
	}
	inpaint := SD15UNet()
	inpaint.InChannels = 9
	openCLIP := CLIPConfig{VocabSize: 49408, Width: 1024, Intermediate: 4096, Layers: 23, Heads: 16, MaxPositions: 77}
	for _, c := range []struct {
		name string
		got  int
		want int
	}{
		{"UNet SD1", ParamCount(UNetModules(SD15UNet())), 859_520_964},
		{"UNet SD1 inpaint", ParamCount(UNetModules(inpaint)), 859_535_364},
		{"UNet SD2", ParamCount(UNetModules(SD2UNet())), 865_910_724},
		{"UNet SDXL", ParamCount(UNetModules(SDXLUNet())), 2_567_463_684},
		{"VAE", ParamCount(vae), 83_653_863},
		{"VAE encoder with quant_conv", ParamCount(part("encoder.")) + ParamCount(part("quant_conv")), 34_163_664},
		{"VAE decoder with post_quant_conv", ParamCount(part("decoder.")) + ParamCount(part("post_quant_conv")), 49_490_199},
		{"CLIP-L", ParamCount(CLIPModules(CLIPL())), 123_060_480},
		{"OpenCLIP-H, 23 layers", ParamCount(CLIPModules(openCLIP)), 340_387_840},
	} {
		if c.got != c.want {
			t.Errorf("%s: %d parameters, want %d", c.name, c.got, c.want)
		}
	}
}

// count returns the Linear layers, 1x1 and larger convolutions among modules that keep says yes to.
func count(modules []Module, keep func(Module) bool) (linear, conv1, conv3 int) {
	for _, m := range modules {
		switch {
		case !keep(m):
		case m.Kind == Linear:
			linear++
		case m.Kind == Conv2d && m.Shape[2] == 1:
			conv1++
		case m.Kind == Conv2d:
			conv3++
		}
	}
	return
}

func all(Module) bool { return true }

// TestModuleCounts asserts the layer counts of the reference formats (1.6) and of the presets (reference algorithms, 14.4, with TimestepEmbedding
// left out as decided there).
func TestModuleCounts(t *testing.T) {
	within := func(classes ...string) func(Module) bool {
		return func(m Module) bool { return slices.ContainsFunc(classes, m.Within) }
	}
	convolutions := func(m Module) bool { // preset unet-convblock-only
		return m.Path == "conv_in" || m.Path == "conv_out" || within("ResnetBlock2D", "Downsample2D", "Upsample2D")(m)
	}
	sd1, sd2, xl, te := UNetModules(SD15UNet()), UNetModules(SD2UNet()), UNetModules(SDXLUNet()), CLIPModules(CLIPL())
	for _, c := range []struct {
		name    string
		modules []Module
		keep    func(Module) bool
		want    [3]int
	}{
		{"SD1, all 282", sd1, all, [3]int{184, 46, 52}},
		{"SD2, all 282", sd2, all, [3]int{216, 14, 52}},
		{"SDXL, all 794", xl, all, [3]int{743, 11, 40}},
		{"SD1, transformers: 192", sd1, within("Transformer2DModel"), [3]int{160, 32, 0}},
		{"SDXL, transformers: 722", xl, within("Transformer2DModel"), [3]int{722, 0, 0}},
		{"SD1, convolutions: 88", sd1, convolutions, [3]int{22, 14, 52}},
		{"SDXL, convolutions: 68", xl, convolutions, [3]int{17, 11, 40}},
		{"SD1, attention: 128", sd1, within("Attention"), [3]int{128, 0, 0}},
		{"SDXL, attention: 560", xl, within("Attention"), [3]int{560, 0, 0}},
		{"CLIP-L: 72", te, within("CLIPAttention", "CLIPMLP"), [3]int{72, 0, 0}},
		{"CLIP-L, attention: 48", te, within("CLIPAttention"), [3]int{48, 0, 0}},
	} {
		linear, conv1, conv3 := count(c.modules, c.keep)
		if got := [3]int{linear, conv1, conv3}; got != c.want {
			t.Errorf("%s: linear, 1x1, 3x3 = %v, want %v", c.name, got, c.want)
		}
	}
}

// loconParams returns the parameters of LoCon factors [R,I,kh,kw] and [O,R] on all layers, or with Tucker cores [R,R,kh,kw], [R,I] and [O,R].
func loconParams(modules []Module, rank int, tucker bool) int {
	n := 0
	for _, m := range modules {
		if m.Kind != Linear && m.Kind != Conv2d {
			continue
		}
		window := 1
		for _, k := range m.Shape[2:] {
			window *= k
		}
		if tucker && window > 1 {
			n += rank * (m.In() + rank*window + m.Out())
		} else {
			n += rank * (m.In()*window + m.Out())
		}
	}
	return n
}

// TestLoConAnchors asserts the parameter counts that lycoris-lora prints for these models (reference algorithms, 14.4).
func TestLoConAnchors(t *testing.T) {
	unet, te := UNetModules(SD15UNet()), CLIPModules(CLIPL())
	xl := UNetModules(SDXLUNet())
	for _, c := range []struct {
		name      string
		got, want int
	}{
		{"SD1.5 UNet, dim 4", loconParams(unet, 4, false), 4_232_864},
		{"CLIP-L, dim 4", loconParams(te, 4, false), 663_552},
		{"SD1.5 UNet, dim 16", loconParams(unet, 16, false), 16_931_456},
		{"SD1.5 UNet, dim 16, Tucker", loconParams(unet, 16, true), 9_923_712},
		{"SDXL UNet, dim 4", loconParams(xl, 4, false), 12_353_184},
	} {
		if c.got != c.want {
			t.Errorf("%s: %d parameters, want %d", c.name, c.got, c.want)
		}
	}
}

// TestNames: the two schemes name the same tensors one to one, and the known pairs of the reference formats (2.1, 2.2) come out.
func TestNames(t *testing.T) {
	pairs := map[string]string{
		"conv_in.weight":                       "model.diffusion_model.input_blocks.0.0.weight",
		"time_embedding.linear_2.bias":         "model.diffusion_model.time_embed.2.bias",
		"down_blocks.2.resnets.1.conv1.weight": "model.diffusion_model.input_blocks.8.0.in_layers.2.weight",
		"down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0.bias": "model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn1.to_out.0.bias",
		"down_blocks.0.downsamplers.0.conv.weight":                            "model.diffusion_model.input_blocks.3.0.op.weight",
		"mid_block.resnets.1.time_emb_proj.weight":                            "model.diffusion_model.middle_block.2.emb_layers.1.weight",
		"up_blocks.0.upsamplers.0.conv.weight":                                "model.diffusion_model.output_blocks.2.1.conv.weight",
		"up_blocks.1.upsamplers.0.conv.weight":                                "model.diffusion_model.output_blocks.5.2.conv.weight",
		"up_blocks.3.resnets.2.conv_shortcut.weight":                          "model.diffusion_model.output_blocks.11.0.skip_connection.weight",
		"conv_norm_out.weight":                                                "model.diffusion_model.out.0.weight",
		"conv_out.bias":                                                       "model.diffusion_model.out.2.bias",
		"text_model.encoder.layers.3.mlp.fc1.weight":                          "cond_stage_model.transformer.text_model.encoder.layers.3.mlp.fc1.weight",
		"encoder.down_blocks.1.resnets.0.conv_shortcut.weight":                "first_stage_model.encoder.down.1.block.0.nin_shortcut.weight",
		"encoder.down_blocks.1.downsamplers.0.conv.weight":                    "first_stage_model.encoder.down.1.downsample.conv.weight",
		"decoder.up_blocks.0.resnets.2.conv2.weight":                          "first_stage_model.decoder.up.3.block.2.conv2.weight",
		"decoder.up_blocks.2.upsamplers.0.conv.weight":                        "first_stage_model.decoder.up.1.upsample.conv.weight",
		"decoder.mid_block.attentions.0.to_out.0.weight":                      "first_stage_model.decoder.mid.attn_1.proj_out.weight",
		"encoder.mid_block.resnets.1.norm2.bias":                              "first_stage_model.encoder.mid.block_2.norm2.bias",
		"post_quant_conv.weight":                                              "first_stage_model.post_quant_conv.weight",
	}
	seen := map[string]bool{}
	for _, part := range []struct {
		c       Component
		modules []Module
	}{{UNet, UNetModules(SD15UNet())}, {TextEncoder, CLIPModules(CLIPL())}, {VAE, VAEModules(SDVAE())}} {
		names := NewNames(part.c, part.modules)
		params := Params(part.modules)
		if len(names.toLDM) != len(params) || len(names.fromLDM) != len(params) {
			t.Errorf("%s: %d tensors, %d diffusers and %d LDM names", part.c, len(params), len(names.toLDM), len(names.fromLDM))
		}
		for _, p := range params {
			ldm, ok := names.LDM(p.Name)
			back, ok2 := names.Diffusers(ldm)
			if !ok || !ok2 || back != p.Name {
				t.Errorf("%q -> %q -> %q", p.Name, ldm, back)
			}
			if want, ok := pairs[p.Name]; ok {
				if seen[p.Name] = true; ldm != want {
					t.Errorf("%q: LDM name %q, want %q", p.Name, ldm, want)
				}
			}
		}
	}
	for name := range pairs {
		if !seen[name] {
			t.Errorf("%q is not in the tables", name)
		}
	}
	xl := NewNames(UNet, UNetModules(SDXLUNet()))
	for name, want := range map[string]string{ // both of SDXL's upsamplers follow a transformer
		"up_blocks.0.upsamplers.0.conv.weight": "model.diffusion_model.output_blocks.2.2.conv.weight",
		"add_embedding.linear_1.weight":        "model.diffusion_model.label_emb.0.0.weight",
	} {
		if got, _ := xl.LDM(name); got != want {
			t.Errorf("SDXL %q: LDM name %q, want %q", name, got, want)
		}
	}
}
