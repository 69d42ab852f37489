package extract_test

import (
	"path/filepath"
	"strings"
	"testing"

	"lycoris/internal/arch"
	"lycoris/internal/extract"
	"lycoris/internal/fault"
	"lycoris/internal/tensor"
	"lycoris/internal/testutil/tinymodel"
)

// family writes two models of a family.
func family(t *testing.T, name string) pair {
	dir := t.TempDir()
	p := pair{base: filepath.Join(dir, "base.safetensors"), tuned: filepath.Join(dir, "tuned.safetensors")}
	for i, path := range []string{p.base, p.tuned} {
		if err := (tinymodel.Family{Name: name, DType: tensor.F32, Seed: uint64(i)}).Write(path); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// SD2's fused projections are three layers; SDXL has two text encoders and LDM names.
func TestFamilies(t *testing.T) {
	for name, want := range map[string][]string{
		"sd2":  {"lora_te_text_model_encoder_layers_0_self_attn_q_proj", "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"},
		"sdxl": {"lora_te1_text_model_encoder_layers_0_self_attn_k_proj", "lora_te2_text_model_encoder_layers_1_self_attn_v_proj", "lora_unet_input_blocks_3_1_transformer_blocks_0_attn1_to_q"},
	} {
		t.Run(name, func(t *testing.T) {
			p := family(t, name)
			r := mustRun(t, p, extract.Options{Algorithm: "full"})
			found := map[string]tensor.Named{}
			for _, x := range r.Tensors() {
				found[x.Name] = x
			}
			for _, n := range want {
				if _, ok := found[n+".diff"]; !ok {
					t.Errorf("no %s", n)
				}
			}
			if name != "sd2" {
				return
			}
			base, tuned := fusedRows(t, p.base, 1), fusedRows(t, p.tuned, 1)
			for i, d := range found["lora_te_text_model_encoder_layers_0_self_attn_k_proj.diff"].Float32() {
				if d != tuned[i]-base[i] {
					t.Fatalf("k_proj: element %d is %v, want %v", i, d, tuned[i]-base[i])
				}
			}
		})
	}
}

// fusedRows returns a third of the first layer's in_proj_weight.
func fusedRows(t *testing.T, path string, part int) []float32 {
	f, err := tensor.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	x, err := f.Read("cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight")
	if err != nil {
		t.Fatal(err)
	}
	v := x.Float32()
	return v[part*len(v)/3 : (part+1)*len(v)/3]
}

func TestMetadata(t *testing.T) {
	for name, want := range map[string][3]string{
		"sd2": {"sd_v2", "True", "stable-diffusion-v2-"}, "sdxl": {"sdxl_base_v1-0", "False", "stable-diffusion-xl-v1-base/lora"},
	} {
		p := family(t, name)
		base, err := extract.Open(p.base)
		if err != nil {
			t.Fatal(err)
		}
		defer base.Close()
		o := extract.Options{Algorithm: "lora", Rule: extract.Rule{Dim: 2}}
		r := mustRun(t, p, o)
		meta := extract.Metadata(r, base, base, o, "some/where.safetensors")
		if v := meta["ss_base_model_version"]; !strings.HasPrefix(v, want[0]) || meta["ss_v2"] != want[1] || !strings.HasPrefix(meta["modelspec.architecture"], want[2]) {
			t.Errorf("%s: %v", name, meta)
		}
		if meta["ss_network_module"] != "networks.lora" || meta["ss_network_dim"] != "2" || meta["ss_network_alpha"] != "2" || meta["ss_output_name"] != "where" {
			t.Errorf("%s: %v", name, meta)
		}
	}
}

func TestOtherFamilyAndParts(t *testing.T) {
	one, two := family(t, "sd2"), family(t, "sdxl")
	_, err := run(t, pair{base: one.base, tuned: two.base}, extract.Options{Algorithm: "lora"})
	wantFault(t, err, fault.Input, "Stable Diffusion XL", "Stable Diffusion 2.x")

	// without its text encoders
	alone := filepath.Join(t.TempDir(), "unet.safetensors")
	f, err := tensor.OpenFile(two.tuned)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []tensor.Named
	for _, name := range f.Names() {
		if strings.HasPrefix(name, "model.diffusion_model.") {
			x, err := f.Read(name)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, tensor.Named{Name: name, Tensor: x})
		}
	}
	if err := tensor.WriteFile(alone, all, nil); err != nil {
		t.Fatal(err)
	}
	p := pair{base: two.base, tuned: alone}
	r := mustRun(t, p, extract.Options{Algorithm: "lora"})
	if len(r.Missing) != 2 || r.Missing[0] != "text_encoder" || r.Missing[1] != "text_encoder_2" || len(r.Parts) != 1 || r.Parts[0].Component != arch.UNet {
		t.Errorf("missing %v, %d parts", r.Missing, len(r.Parts))
	}
	_, err = run(t, p, extract.Options{Algorithm: "lora", Components: []arch.Component{arch.TextEncoder}})
	wantFault(t, err, fault.Input, "no part in common")
	_, err = run(t, one, extract.Options{Algorithm: "lora", Components: []arch.Component{"text_encoder_2"}})
	wantFault(t, err, fault.Usage, "text_encoder_2")
}
