package arch

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"lycoris/internal/fault"
)

// TestParseDefaults: config.json of SD1.5, as published, gives the built-in values.
func TestParseDefaults(t *testing.T) {
	u, err := ParseUNet([]byte(`{"_class_name":"UNet2DConditionModel","_diffusers_version":"0.6.0","act_fn":"silu","attention_head_dim":8,
		"block_out_channels":[320,640,1280,1280],"center_input_sample":false,"cross_attention_dim":768,
		"down_block_types":["CrossAttnDownBlock2D","CrossAttnDownBlock2D","CrossAttnDownBlock2D","DownBlock2D"],"downsample_padding":1,
		"flip_sin_to_cos":true,"freq_shift":0,"in_channels":4,"layers_per_block":2,"mid_block_scale_factor":1,"norm_eps":1e-05,"norm_num_groups":32,
		"out_channels":4,"sample_size":64,"up_block_types":["UpBlock2D","CrossAttnUpBlock2D","CrossAttnUpBlock2D","CrossAttnUpBlock2D"]}`))
	if err != nil || !reflect.DeepEqual(u, SD15UNet()) {
		t.Errorf("UNet: %+v, %v, want %+v", u, err, SD15UNet())
	}
	c, err := ParseCLIP([]byte(`{"_name_or_path":"openai/clip-vit-large-patch14","architectures":["CLIPTextModel"],"attention_dropout":0.0,"bos_token_id":0,
		"dropout":0.0,"eos_token_id":2,"hidden_act":"quick_gelu","hidden_size":768,"initializer_factor":1.0,"initializer_range":0.02,"intermediate_size":3072,
		"layer_norm_eps":1e-05,"max_position_embeddings":77,"model_type":"clip_text_model","num_attention_heads":12,"num_hidden_layers":12,"pad_token_id":1,
		"torch_dtype":"float32","vocab_size":49408}`))
	if err != nil || c != CLIPL() {
		t.Errorf("CLIP: %+v, %v, want %+v", c, err, CLIPL())
	}
	v, err := ParseVAE([]byte(`{"_class_name":"AutoencoderKL","act_fn":"silu","block_out_channels":[128,256,512,512],
		"down_block_types":["DownEncoderBlock2D","DownEncoderBlock2D","DownEncoderBlock2D","DownEncoderBlock2D"],"in_channels":3,"latent_channels":4,
		"layers_per_block":2,"norm_num_groups":32,"out_channels":3,"sample_size":512,
		"up_block_types":["UpDecoderBlock2D","UpDecoderBlock2D","UpDecoderBlock2D","UpDecoderBlock2D"]}`))
	if err != nil || !reflect.DeepEqual(v, SDVAE()) {
		t.Errorf("VAE: %+v, %v, want %+v", v, err, SDVAE())
	}
	xl, err := ParseUNet([]byte(`{"block_out_channels":[320,640,1280],"down_block_types":["DownBlock2D","CrossAttnDownBlock2D","CrossAttnDownBlock2D"],
		"up_block_types":["CrossAttnUpBlock2D","CrossAttnUpBlock2D","UpBlock2D"],"attention_head_dim":[5,10,20],"transformer_layers_per_block":[1,2,10],
		"cross_attention_dim":2048,"use_linear_projection":true,"addition_embed_type":"text_time","addition_time_embed_dim":256,"addition_embed_type_num_heads":64,
		"projection_class_embeddings_input_dim":2816,"dual_cross_attention":false,"upcast_attention":null,"num_attention_heads":null}`))
	if err != nil || !reflect.DeepEqual(xl, SDXLUNet()) {
		t.Errorf("SDXL UNet: %+v, %v, want %+v", xl, err, SDXLUNet())
	}
}

// TestParseRefuses: what the engine doesn't compute is said, with the key.
func TestParseRefuses(t *testing.T) {
	unet := func(s string) error { _, err := ParseUNet([]byte(s)); return err }
	clip := func(s string) error { _, err := ParseCLIP([]byte(s)); return err }
	vae := func(s string) error { _, err := ParseVAE([]byte(s)); return err }
	for _, c := range []struct {
		parse func(string) error
		text  string
		words string
	}{
		{unet, `[]`, "not a JSON object"},
		{unet, `{"_class_name":"SD3Transformer2DModel"}`, `_class_name "SD3Transformer2DModel" is not supported`},
		{unet, `{"class_embed_type":"timestep"}`, `class_embed_type "timestep" is not supported`},
		{unet, `{"dual_cross_attention":true}`, "dual_cross_attention true"},
		{unet, `{"down_block_types":["SimpleCrossAttnDownBlock2D","DownBlock2D","DownBlock2D","DownBlock2D"]}`, `down block "SimpleCrossAttnDownBlock2D"`},
		{unet, `{"up_block_types":["UpBlock2D","UpBlock2D","CrossAttnUpBlock2D","CrossAttnUpBlock2D"]}`, "does not mirror"},
		{unet, `{"down_block_types":["DownBlock2D"]}`, "1 down and 4 up blocks for 4 levels"},
		{unet, `{"block_out_channels":[320,640,1280,1290]}`, "1290 channels can't be split into 32 norm groups"},
		{unet, `{"block_out_channels":[]}`, "0 levels"},
		{unet, `{"in_channels":4.5}`, "in_channels 4.5 is not a whole number"},
		{unet, `{"in_channels":-1}`, "in_channels -1"},
		{unet, `{"in_channels":"4"}`, "in_channels 4 is not a whole number"},
		{unet, `{"layers_per_block":[2,2,1,2]}`, "one number per level"},
		{unet, `{"layers_per_block":1000000}`, "layers_per_block 1000000 is more than"},
		{unet, `{"transformer_layers_per_block":65}`, "more than the 64"},
		{unet, `{"attention_head_dim":7}`, "320 channels can't be split into 7 attention heads"},
		{unet, `{"attention_head_dim":[8,8]}`, "has 2 entries, the model has 4 levels"},
		{unet, `{"flip_sin_to_cos":1}`, "neither true nor false"},
		{unet, `{"resnet_time_scale_shift":"scale_shift"}`, "resnet_time_scale_shift"},
		{clip, `{"hidden_act":"relu"}`, `hidden_act "relu"`},
		{clip, `{"architectures":["T5EncoderModel"]}`, `text encoder "T5EncoderModel"`},
		{clip, `{"hidden_size":770}`, "770 channels can't be split into 8"},
		{clip, `{"num_hidden_layers":1000}`, "more than the 256"},
		{vae, `{"mid_block_add_attention":false}`, "mid_block_add_attention false"},
		{vae, `{"latents_mean":[0,0,0,0]}`, "latents_mean"},
		{vae, `{"block_out_channels":[128],"down_block_types":["AttnDownEncoderBlock2D"]}`, `"AttnDownEncoderBlock2D"`},
		{vae, `{"scaling_factor":0}`, "scaling_factor 0 is not above 0"},
		{vae, `{"use_quant_conv":false}`, "use_post_quant_conv"},
	} {
		err := c.parse(c.text)
		if err == nil || fault.KindOf(err) != fault.Input || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s\n got %v\nwant an input error with %q", c.text, err, c.words)
		}
	}
}

// TestParseGoldens reads what diffusers and transformers write and rebuilds the shapes.
func TestParseGoldens(t *testing.T) {
	for _, model := range []string{"tiny-sd1", "tiny-odd"} {
		read := func(part string) []byte {
			text, err := os.ReadFile(filepath.Join("..", "..", "testdata", "golden", model, part, "config.json"))
			if err != nil {
				t.Fatal(err)
			}
			return text
		}
		if _, err := ParseUNet(read("unet")); err != nil {
			t.Errorf("%s: %v", model, err)
		}
		if _, err := ParseCLIP(read("text_encoder")); err != nil {
			t.Errorf("%s: %v", model, err)
		}
		if _, err := ParseVAE(read("vae")); err != nil {
			t.Errorf("%s: %v", model, err)
		}
	}
}

// FuzzParse: no config makes the parsers panic or the tables explode.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"block_out_channels":[320,640],"attention_head_dim":[8,8]}`))
	f.Add([]byte(`{"block_out_channels":4}`))
	f.Add([]byte(`{"transformer_layers_per_block":[[1,2],[3]]}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if c, err := ParseUNet(text); err == nil {
			if n := len(UNetModules(c)); n == 0 || n > 1<<17 {
				t.Errorf("%d modules", n)
			}
		}
		if c, err := ParseCLIP(text); err == nil {
			CLIPModules(c)
		}
		if c, err := ParseVAE(text); err == nil {
			VAEModules(c)
		}
	})
}
