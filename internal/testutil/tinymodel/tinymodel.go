package tinymodel

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"

	"lycoris/internal/arch"
	"lycoris/internal/checkpoint"
	"lycoris/internal/tensor"
)

// Options choose a model and its form on disk. The zero value is the tiny model as one file.
type Options struct {
	Seed        uint64
	Layout      checkpoint.Layout // default: a single file
	DType       tensor.DType      // default F16
	Prediction  checkpoint.Prediction
	NoTextLevel bool // text encoder names without text_model, as transformers 5 writes folders
	Vocab       int  // rows of the token table; default all 49408
}

// Configs of the tiny model: SD1's four levels with narrow widths.
func configs(o Options) (arch.UNetConfig, arch.CLIPConfig, arch.VAEConfig) {
	u := arch.SD15UNet()
	u.BlockOutChannels, u.NormGroups = []int{32, 64, 96, 96}, 4
	u.Heads, u.MidHeads, u.CrossAttentionDim, u.TimeEmbedDim = []int{4, 4, 4, 4}, 4, 48, 128
	c := arch.CLIPL()
	c.Width, c.Intermediate, c.Layers, c.Heads = 48, 96, 3, 3
	if o.Vocab > 0 {
		c.VocabSize = o.Vocab
	}
	v := arch.SDVAE()
	v.BlockOutChannels, v.LayersPerBlock, v.NormGroups = []int{16, 16, 32, 32}, 1, 2
	return u, c, v
}

// WriteTiny writes the tiny model: a UNet of 5.5 million parameters, a text encoder of 0.1 million and its table of 49408 tokens, 16 MB in F16. The same seed gives the same bytes.
func WriteTiny(path string, seed uint64, layout checkpoint.Layout) error {
	return Write(path, Options{Seed: seed, Layout: layout})
}

// Write writes the model that o describes: a file at path, or a folder.
func Write(path string, o Options) error {
	if o.DType == tensor.Invalid {
		o.DType = tensor.F16
	}
	if o.Prediction == "" {
		o.Prediction = checkpoint.Epsilon
	}
	u, c, v := configs(o)
	texts := map[string]map[string]any{"unet": unetJSON(u), "text_encoder": clipJSON(c), "vae": vaeJSON(v)}
	modules := map[arch.Component][]arch.Module{arch.UNet: arch.UNetModules(u), arch.TextEncoder: arch.CLIPModules(c), arch.VAE: arch.VAEModules(v)}
	make := func(part arch.Component) []tensor.Named {
		values := randomParts(part, modules[part], o.Seed)
		switch part {
		case arch.UNet:
			craftUNet(u, values)
		case arch.VAE:
			craftVAE(v, values)
		}
		var all []tensor.Named
		for _, p := range arch.Params(modules[part]) {
			all = append(all, tensor.Named{Name: p.Name, Tensor: tensor.FromFloat32(o.DType, p.Shape, values[p.Name].v)})
		}
		return all
	}
	if o.Layout == checkpoint.Folder {
		return writeFolder(path, o, texts, make)
	}
	var all []tensor.Named
	for _, part := range arch.Components {
		names := arch.NewNames(part, modules[part])
		for _, t := range make(part) {
			if part == arch.VAE && strings.Contains(t.Name, ".attentions.") && len(t.Shape) == 2 {
				t.Shape = append(t.Shape, 1, 1) // as LDM files have them
			}
			t.Name, _ = names.LDM(t.Name)
			all = append(all, t)
		}
	}
	config, err := json.Marshal(texts)
	if err != nil {
		return err
	}
	prediction := "epsilon"
	if o.Prediction == checkpoint.VPrediction {
		prediction = "v"
	}
	return tensor.WriteFile(path, all, map[string]string{checkpoint.ConfigKey: string(config), "modelspec.architecture": "stable-diffusion-v1",
		"modelspec.prediction_type": prediction, "modelspec.title": "lycoris tiny model, random weights"})
}

func writeFolder(path string, o Options, texts map[string]map[string]any, make func(arch.Component) []tensor.Named) error {
	index := map[string]any{"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.42.0", "scheduler": []any{"diffusers", "DDIMScheduler"},
		"text_encoder": []any{"transformers", "CLIPTextModel"}, "tokenizer": []any{"transformers", "CLIPTokenizer"}, "unet": []any{"diffusers", "UNet2DConditionModel"},
		"vae": []any{"diffusers", "AutoencoderKL"}, "safety_checker": []any{nil, nil}, "feature_extractor": []any{nil, nil}}
	scheduler := map[string]any{"_class_name": "DDIMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
		"num_train_timesteps": 1000, "clip_sample": false, "set_alpha_to_one": false, "steps_offset": 1, "prediction_type": o.Prediction}
	if err := writeJSON(filepath.Join(path, "model_index.json"), index); err != nil {
		return err
	}
	if err := writeJSON(filepath.Join(path, "scheduler", "scheduler_config.json"), scheduler); err != nil {
		return err
	}
	for _, part := range arch.Components {
		if err := writeJSON(filepath.Join(path, string(part), "config.json"), texts[string(part)]); err != nil {
			return err
		}
		file := "diffusion_pytorch_model.safetensors"
		if part == arch.TextEncoder {
			file = "model.safetensors"
		}
		all := make(part)
		for i := range all {
			if o.NoTextLevel {
				all[i].Name = strings.TrimPrefix(all[i].Name, "text_model.")
			}
		}
		if err := tensor.WriteFile(filepath.Join(path, string(part), file), all, map[string]string{"format": "pt"}); err != nil {
			return err
		}
	}
	return nil
}

func writeJSON(path string, v any) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	text, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	return tensor.WriteAtomic(path, func(w io.Writer) error { _, err := w.Write(append(text, '\n')); return err })
}

func unetJSON(c arch.UNetConfig) map[string]any {
	down, up := []string{}, []string{}
	for i := range c.Attention {
		down, up = append(down, block("DownBlock2D", c.Attention[i])), append(up, block("UpBlock2D", c.Attention[c.Levels()-1-i]))
	}
	return map[string]any{"_class_name": "UNet2DConditionModel", "in_channels": c.InChannels, "out_channels": c.OutChannels,
		"block_out_channels": c.BlockOutChannels, "layers_per_block": c.LayersPerBlock, "down_block_types": down, "up_block_types": up,
		"attention_head_dim": c.Heads, "cross_attention_dim": c.CrossAttentionDim, "norm_num_groups": c.NormGroups, "norm_eps": c.NormEps, "act_fn": "silu",
		"sample_size": 32, "center_input_sample": false, "flip_sin_to_cos": true, "freq_shift": 0, "downsample_padding": 1, "mid_block_scale_factor": 1}
}

func block(class string, attention bool) string {
	if attention {
		return "CrossAttn" + class
	}
	return class
}

func clipJSON(c arch.CLIPConfig) map[string]any {
	return map[string]any{"architectures": []string{"CLIPTextModel"}, "model_type": "clip_text_model", "vocab_size": c.VocabSize, "hidden_size": c.Width,
		"intermediate_size": c.Intermediate, "num_hidden_layers": c.Layers, "num_attention_heads": c.Heads, "max_position_embeddings": c.MaxPositions,
		"hidden_act": c.Activation, "layer_norm_eps": c.NormEps, "projection_dim": c.Width, "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407}
}

func vaeJSON(c arch.VAEConfig) map[string]any {
	down, up := []string{}, []string{}
	for range c.BlockOutChannels {
		down, up = append(down, "DownEncoderBlock2D"), append(up, "UpDecoderBlock2D")
	}
	return map[string]any{"_class_name": "AutoencoderKL", "in_channels": c.InChannels, "out_channels": c.OutChannels, "latent_channels": c.LatentChannels,
		"block_out_channels": c.BlockOutChannels, "layers_per_block": c.LayersPerBlock, "norm_num_groups": c.NormGroups, "scaling_factor": c.ScalingFactor,
		"down_block_types": down, "up_block_types": up, "act_fn": "silu", "sample_size": 256}
}
