package convert

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"lycoris/internal/arch"
	"lycoris/internal/checkpoint"
	"lycoris/internal/fault"
	"lycoris/internal/modelfile"
	"lycoris/internal/textencoder/tokenizer"
)

// description is the files of a folder beside the weights, by path inside.
type description struct{ files map[string][]byte }

// object is a JSON object.
type object = map[string]any

func (d *description) json(path string, v any) error {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false) // <|endoftext|> stays readable
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return err
	}
	d.files[path] = text.Bytes()
	return nil
}

// maxCopied bounds what is copied from the folder of --like: a tokenizer's largest file has 3.6 MB.
const maxCopied = 16 << 20

// describe makes the configurations, tokenizers, scheduler and index of the folder: those of the folder that --like names, those that the file carries in its metadata, else
// those that its family and shapes tell. Every configuration is held against the tensors.
func (c *container) describe(vae *arch.VAEConfig) (*description, error) {
	d := &description{files: map[string][]byte{}}
	if c.o.Like != "" {
		if err := d.copyFrom(c.o.Like); err != nil {
			return nil, err
		}
	}
	stated := map[string]json.RawMessage{}
	if text, ok := c.model.Files()[0].Raw().Metadata()[checkpoint.ConfigKey]; ok {
		if err := json.Unmarshal([]byte(text), &stated); err != nil {
			return nil, fault.BadInput(c.o.In, "metadata %q is not a JSON object: %v", checkpoint.ConfigKey, err)
		}
	}
	for _, part := range []string{modelfile.UNet, modelfile.TextEncoder, modelfile.TextEncoder2, vaePart} {
		path := filepath.Join(part, "config.json")
		if len(c.parts[part]) == 0 {
			delete(d.files, path)
			continue
		}
		from := filepath.Join(c.o.Like, path)
		if d.files[path] == nil {
			from = c.o.In
			var v any = stated[part]
			if stated[part] == nil {
				v = c.derive(part, vae)
			}
			if err := d.json(path, v); err != nil {
				return nil, err
			}
		}
		if err := c.check(part, from, d.files[path]); err != nil {
			return nil, err
		}
	}
	if err := c.tokenizers(d); err != nil {
		return nil, err
	}
	if d.files["scheduler/scheduler_config.json"] == nil {
		if err := c.scheduler(d); err != nil {
			return nil, err
		}
	}
	return d, d.json("model_index.json", c.index(d))
}

// copyFrom takes the small files of another folder: configurations, tokenizers, scheduler, feature extractor.
func (d *description) copyFrom(folder string) error {
	if stat, err := os.Stat(folder); err != nil || !stat.IsDir() {
		return fault.BadInput(folder, "is not a folder").Advise("--like names a diffusers folder of a model like this one")
	}
	for _, pattern := range []string{"unet/config.json", "vae/config.json", "text_encoder/config.json", "text_encoder_2/config.json", "scheduler/*.json", "tokenizer/*.json", "tokenizer/*.txt",
		"tokenizer_2/*.json", "tokenizer_2/*.txt", "feature_extractor/*.json"} {
		part, file := filepath.Split(pattern)
		entries, err := os.ReadDir(filepath.Join(folder, part))
		if err != nil {
			continue // a part that it doesn't have
		}
		for _, e := range entries {
			stat, err := os.Stat(filepath.Join(folder, part, e.Name()))
			if fits, _ := filepath.Match(file, e.Name()); !fits || err != nil || !stat.Mode().IsRegular() || strings.Contains(e.Name(), ".index.") {
				continue
			}
			path := filepath.Join(folder, part, e.Name())
			if stat.Size() > maxCopied {
				return fault.BadInput(path, "has more than %d bytes", maxCopied)
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return fault.BadInput(path, "can't be read: %w", err)
			}
			d.files[part+e.Name()] = text
		}
	}
	if len(d.files) == 0 {
		return fault.BadInput(folder, "has no config.json in unet/, text_encoder/ or vae/").Advise("--like names a diffusers folder of a model like this one")
	}
	return nil
}

// derive makes a configuration of what shapes and the family tell; heads and norm groups are the family's.
func (c *container) derive(part string, vae *arch.VAEConfig) object {
	switch part {
	case modelfile.UNet:
		return unetConfig(c.model.Structure, c.model.Family, c.prediction())
	case vaePart:
		return vaeConfig(*vae, c.model.Family)
	}
	return c.textConfig(part)
}

func unetConfig(u arch.UNetConfig, family, prediction string) object {
	var down, up []string
	for i, attention := range u.Attention {
		down, up = append(down, blockName("DownBlock2D", attention)), append(up, blockName("UpBlock2D", u.Attention[u.Levels()-1-i]))
	}
	o := object{"_class_name": "UNet2DConditionModel", "act_fn": "silu", "attention_head_dim": 8, "block_out_channels": u.BlockOutChannels, "center_input_sample": false,
		"cross_attention_dim": u.CrossAttentionDim, "down_block_types": down, "up_block_types": up, "downsample_padding": 1, "flip_sin_to_cos": true, "freq_shift": 0,
		"in_channels": u.InChannels, "out_channels": u.OutChannels, "layers_per_block": u.LayersPerBlock, "mid_block_scale_factor": 1, "norm_eps": 1e-5, "norm_num_groups": 32, "sample_size": 64}
	if family != modelfile.SD1 {
		var heads []int
		for _, n := range u.BlockOutChannels {
			heads = append(heads, max(n/64, 1))
		}
		o["attention_head_dim"] = heads
	}
	if u.LinearProjection {
		o["use_linear_projection"] = true
	}
	if family == modelfile.SD2 && prediction == "v_prediction" {
		o["sample_size"] = 96
	}
	if family == modelfile.SDXL {
		o["sample_size"], o["transformer_layers_per_block"] = 128, u.TransformerDepth
		o["addition_embed_type"], o["addition_time_embed_dim"], o["projection_class_embeddings_input_dim"] = "text_time", 256, u.AddedInput
	}
	return o
}

func blockName(class string, attention bool) string {
	if attention {
		return "CrossAttn" + class
	}
	return class
}

func vaeConfig(v arch.VAEConfig, family string) object {
	var down, up []string
	for range v.BlockOutChannels {
		down, up = append(down, "DownEncoderBlock2D"), append(up, "UpDecoderBlock2D")
	}
	o := object{"_class_name": "AutoencoderKL", "act_fn": "silu", "block_out_channels": v.BlockOutChannels, "down_block_types": down, "up_block_types": up, "in_channels": v.InChannels,
		"out_channels": v.OutChannels, "latent_channels": v.LatentChannels, "layers_per_block": v.LayersPerBlock, "norm_num_groups": 32, "sample_size": 512, "scaling_factor": v.ScalingFactor}
	if family == modelfile.SDXL {
		o["sample_size"], o["scaling_factor"], o["force_upcast"] = 1024, 0.13025, true
	}
	if !v.QuantConv {
		o["use_quant_conv"], o["use_post_quant_conv"] = false, false
	}
	return o
}

func (c *container) textConfig(part string) object {
	find := func(path string, axis int) int {
		for _, m := range c.model.Modules(part) {
			if m.Path == path {
				return m.Shape[axis]
			}
		}
		return 0
	}
	width, layers := find("text_model.embeddings.token_embedding", 1), 0
	for _, t := range c.parts[part] {
		if strings.HasSuffix(t.Name, ".mlp.fc1.weight") {
			layers++
		}
	}
	class, act, projection := "CLIPTextModel", "gelu", width
	if _, open := textPrefix(c.model.Family, part); !open {
		act = "quick_gelu"
	}
	if part == modelfile.TextEncoder2 {
		class = "CLIPTextModelWithProjection"
		for _, t := range c.parts[part] {
			if t.Name == "text_projection.weight" {
				projection = t.Shape[0]
			}
		}
	}
	// bos, eos and pad are the ones that published models state; programs have learnt to read past them.
	return object{"architectures": []string{class}, "model_type": "clip_text_model", "vocab_size": find("text_model.embeddings.token_embedding", 0), "hidden_size": width,
		"intermediate_size": find("text_model.encoder.layers.0.mlp.fc1", 0), "num_hidden_layers": layers, "num_attention_heads": max(width/64, 1),
		"max_position_embeddings": find("text_model.embeddings.position_embedding", 0), "hidden_act": act, "layer_norm_eps": 1e-5, "projection_dim": projection,
		"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
}

// check holds a configuration against the tensors.
func (c *container) check(part, from string, text []byte) error {
	var modules []arch.Module
	var err error
	switch part {
	case modelfile.UNet:
		var u arch.UNetConfig
		if u, err = arch.ParseUNet(text); err == nil {
			modules = arch.UNetModules(u)
		}
	case vaePart:
		var v arch.VAEConfig
		if v, err = arch.ParseVAE(text); err == nil {
			modules = arch.VAEModules(v)
		}
	default:
		var t arch.CLIPConfig
		if t, err = arch.ParseCLIP(text); err == nil {
			modules = arch.CLIPModules(t)
		}
	}
	if err != nil {
		return at(from, err)
	}
	shapes := map[string][]int{}
	for _, t := range c.parts[part] {
		shapes[t.Name] = t.Shape
	}
	const advice = "name a diffusers folder of a model like this one: --like FOLDER"
	for _, p := range arch.Params(modules) {
		if got := shapes[p.Name]; !slices.Equal(got, p.Shape) {
			return fault.BadInput(from, "the configuration of %s is another model's: %q is %v there, %v in %s", part, p.Name, p.Shape, got, c.o.In).Advise(advice)
		}
		delete(shapes, p.Name)
	}
	for name := range shapes {
		if !strings.HasPrefix(name, "text_projection.") {
			return fault.BadInput(from, "the configuration of %s is another model's: it has no %q", part, name).Advise(advice)
		}
	}
	return nil
}

// tokenizers adds CLIP's tokenizer where the folder of --like gave none: one for each text encoder.
func (c *container) tokenizers(d *description) error {
	pieces, merges, err := tokenizer.Table()
	if err != nil {
		return err
	}
	vocabulary := make(map[string]int, len(pieces))
	for id, piece := range pieces {
		vocabulary[piece] = id
	}
	for part, name := range map[string]string{modelfile.TextEncoder: "tokenizer", modelfile.TextEncoder2: "tokenizer_2"} {
		if len(c.parts[part]) == 0 || d.files[name+"/merges.txt"] != nil || d.files[name+"/tokenizer.json"] != nil {
			continue
		}
		pad := "<|endoftext|>"
		if _, open := textPrefix(c.model.Family, part); open {
			pad = "!" // id 0: OpenCLIP pads with it
		}
		d.files[name+"/merges.txt"] = []byte("#version: 0.2\n" + strings.Join(merges, "\n") + "\n")
		for file, v := range map[string]any{
			"vocab.json": vocabulary,
			"tokenizer_config.json": object{"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": true, "errors": "replace", "add_prefix_space": false,
				"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "pad_token": pad},
			"special_tokens_map.json": object{"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "pad_token": pad},
		} {
			if err := d.json(name+"/"+file, v); err != nil {
				return err
			}
		}
	}
	return nil
}

// prediction tells the prediction type from metadata and marker tensors; of SD2, whose shapes are the same for both, from a norm that differs (as ComfyUI tells them apart).
func (c *container) prediction() string {
	f := c.model.Files()[0].Raw()
	switch p := strings.ToLower(f.Metadata()["modelspec.prediction_type"]); {
	case p == "v", p == "v_prediction", p == "v-prediction":
		return "v_prediction"
	case strings.HasPrefix(p, "eps"):
		return "epsilon"
	case f.Has("v_pred"):
		return "v_prediction"
	}
	if c.model.Family != modelfile.SD2 {
		return "epsilon"
	}
	t, err := f.Read(ldmPrefix + "output_blocks.11.1.transformer_blocks.0.norm1.bias")
	if err != nil {
		return "epsilon"
	}
	if deviation(t.Float32()) > 0.09 {
		return "v_prediction"
	}
	return "epsilon"
}

// deviation returns the standard deviation of values.
func deviation(v []float32) float64 {
	var sum, squares float64
	for _, x := range v {
		sum, squares = sum+float64(x), squares+float64(x)*float64(x)
	}
	n := float64(max(len(v), 1))
	return math.Sqrt(max(squares/n-sum/n*sum/n, 0))
}

// scheduler adds the one that the family's published folders have.
func (c *container) scheduler(d *description) error {
	o := object{"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000, "steps_offset": 1, "trained_betas": nil, "prediction_type": c.prediction()}
	switch c.model.Family {
	case modelfile.SDXL:
		o["_class_name"], o["timestep_spacing"], o["interpolation_type"], o["use_karras_sigmas"] = "EulerDiscreteScheduler", "leading", "linear", false
	case modelfile.SD2:
		o["_class_name"], o["clip_sample"], o["set_alpha_to_one"] = "DDIMScheduler", false, false
	default:
		o["_class_name"], o["skip_prk_steps"], o["set_alpha_to_one"], o["clip_sample"] = "PNDMScheduler", true, false, false
	}
	if c.model.Files()[0].Raw().Has("ztsnr") {
		o["rescale_betas_zero_snr"] = true
		if c.model.Family == modelfile.SD1 { // PNDM has no such switch
			o["_class_name"] = "DDIMScheduler"
			delete(o, "skip_prk_steps")
		}
	}
	c.r.Notes = append(c.r.Notes, "prediction type: "+c.prediction())
	return d.json("scheduler/scheduler_config.json", o)
}

// index returns model_index.json: which classes load the parts. What the file has no tensors of is null, and said.
func (c *container) index(d *description) object {
	part := func(name, library, class string) []any {
		if len(c.parts[name]) == 0 {
			c.r.Missing = append(c.r.Missing, name)
			return []any{nil, nil}
		}
		return []any{library, class}
	}
	var scheduler struct {
		Class string `json:"_class_name"`
	}
	json.Unmarshal(d.files["scheduler/scheduler_config.json"], &scheduler) // one of another folder may lack it
	if scheduler.Class == "" {
		scheduler.Class = "DDIMScheduler"
	}
	pipeline := "StableDiffusion"
	if c.model.Family == modelfile.SDXL {
		pipeline = "StableDiffusionXL"
	}
	switch c.model.Channels {
	case 9:
		pipeline += "Inpaint"
	case 8:
		pipeline += "InstructPix2Pix"
	}
	o := object{"_class_name": pipeline + "Pipeline", "_diffusers_version": "0.30.0", "unet": part(modelfile.UNet, "diffusers", "UNet2DConditionModel"), "vae": part(vaePart, "diffusers", "AutoencoderKL"),
		"scheduler": []any{"diffusers", scheduler.Class}, "text_encoder": part(modelfile.TextEncoder, "transformers", "CLIPTextModel"), "tokenizer": []any{nil, nil}}
	if len(c.parts[modelfile.TextEncoder]) > 0 {
		o["tokenizer"] = []any{"transformers", "CLIPTokenizer"}
	}
	if c.model.Family == modelfile.SDXL {
		o["text_encoder_2"], o["tokenizer_2"], o["force_zeros_for_empty_prompt"] = part(modelfile.TextEncoder2, "transformers", "CLIPTextModelWithProjection"), []any{nil, nil}, true
		if len(c.parts[modelfile.TextEncoder2]) > 0 {
			o["tokenizer_2"] = []any{"transformers", "CLIPTokenizer"}
		}
		return o
	}
	o["safety_checker"], o["feature_extractor"], o["requires_safety_checker"] = []any{nil, nil}, []any{nil, nil}, false
	for name := range d.files {
		if strings.HasPrefix(name, "feature_extractor/") {
			o["feature_extractor"] = []any{"transformers", "CLIPImageProcessor"}
		}
	}
	return o
}
