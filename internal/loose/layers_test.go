package loose_test

import (
	"testing"

	"lycoris/internal/loose"
)

// Every layer of every family is found again by its name in every naming.
func TestNamesAreFoundAgain(t *testing.T) {
	for _, family := range []string{loose.SD1, loose.SD2, loose.SDXL} {
		l := loose.FamilyLayers(family)
		for _, layer := range l.All() {
			for _, n := range []loose.Naming{loose.Kohya, loose.LDM, loose.Diffusers, loose.Wrapper} {
				if n == loose.Wrapper && layer.Component == "text_encoder_2" {
					continue // the wrapper doesn't say which of two text encoders it is
				}
				name := l.Module(layer, n)
				got, ok := l.Find(name)
				if !ok || got.Path != layer.Path || got.Component != layer.Component {
					t.Errorf("%s: %q of %s %q is found as %s %q (%v)", family, name, layer.Component, layer.Path, got.Component, got.Path, ok)
				}
				suffix := ".lora_down.weight"
				if n == loose.Diffusers {
					suffix = ".lora_A.weight"
				}
				if split, s, ok := l.Split(name + suffix); !ok || split.Path != layer.Path || s != "lora_down.weight" {
					t.Errorf("%s: %q is split into %q and %q (%v)", family, name+suffix, split.Path, s, ok)
				}
			}
		}
	}
}

func TestSpellings(t *testing.T) {
	for _, c := range []struct{ family, key, component, path, suffix string }{
		{loose.SD1, "lora_unet_mid_block_attentions_0_proj_in.lora_mid.weight", "unet", "mid_block.attentions.0.proj_in", "lora_mid.weight"},
		{loose.SD1, "lora_te_encoder_layers_3_mlp_fc2.alpha", "text_encoder", "text_model.encoder.layers.3.mlp.fc2", "alpha"},
		{loose.SD1, "unet.up_blocks.1.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora.down.weight", "unet", "up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0", "lora_down.weight"},
		{loose.SD1, "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer.up.weight", "text_encoder", "text_model.encoder.layers.0.self_attn.q_proj", "lora_up.weight"},
		{loose.SD1, "base_model.model.conv_in.hada_w1_a", "unet", "conv_in", "hada_w1_a"},
		{loose.SDXL, "diffusion_model.input_blocks.4.1.proj_in.lora_up.weight", "unet", "down_blocks.1.attentions.0.proj_in", "lora_up.weight"},
		{loose.SDXL, "text_encoders.clip_g.transformer.text_model.encoder.layers.1.mlp.fc1.lora_A.weight", "text_encoder_2", "text_model.encoder.layers.1.mlp.fc1", "lora_down.weight"},
	} {
		layer, suffix, ok := loose.FamilyLayers(c.family).Split(c.key)
		if !ok || string(layer.Component) != c.component || layer.Path != c.path || suffix != c.suffix {
			t.Errorf("%q: %s %q %q (%v), want %s %q %q", c.key, layer.Component, layer.Path, suffix, ok, c.component, c.path, c.suffix)
		}
	}
	for _, key := range []string{"lora_unet_nothing.alpha", "lora_unet_conv_in", "model.diffusion_model.input_blocks.0.0.weight", ""} {
		if layer, suffix, ok := loose.FamilyLayers(loose.SD1).Split(key); ok {
			t.Errorf("%q is taken for %q %q", key, layer.Path, suffix)
		}
	}
}

func TestGuess(t *testing.T) {
	for _, c := range []struct {
		names []string
		cross int
		want  string
	}{
		{[]string{"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.alpha"}, 768, loose.SD1},
		{[]string{"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.alpha"}, 1024, loose.SD2},
		{[]string{"lora_unet_down_blocks_1_attentions_0_transformer_blocks_1_attn1_to_k.alpha"}, 0, loose.SDXL},
		{[]string{"lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha"}, 0, loose.SDXL},
		{[]string{"lora_unet_input_blocks_1_1_proj_in.alpha"}, 0, loose.SD1},
		{[]string{"lora_unet_input_blocks_8_1_proj_in.alpha", "lora_unet_output_blocks_2_2_conv.alpha"}, 0, loose.SDXL},
	} {
		l, unknown := loose.Fitting(c.names, c.cross)
		if l.Family != c.want || len(unknown) > 0 {
			t.Errorf("%q, cross %d: %s, unknown %q; want %s", c.names, c.cross, l.Family, unknown, c.want)
		}
	}
	if _, unknown := loose.Fitting([]string{"lora_unet_double_blocks_0_img_attn_qkv.alpha"}, 0); len(unknown) != 1 {
		t.Errorf("a Flux adapter: unknown %q", unknown)
	}
}
