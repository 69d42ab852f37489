package adapter

import (
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"strconv"
	"strings"
	"time"
)

// Metadata is what a trained adapter says about itself. Zero values are left out where a reader doesn't need them; Extra adds keys or
// replaces what is built.
type Metadata struct {
	Prediction string // epsilon or v_prediction
	OutputName string // A1111's alias; only its last part counts
	Title      string // modelspec.title; empty: OutputName

	Algorithm         string  // lora, loha, …
	Plain             bool    // plain LoRA on Linear and 1x1 layers only: loads as networks.lora
	Dim               int     // rank
	Alpha             float64 // as given
	ConvDim           int     // 0: no windows trained
	ConvAlpha         float64
	NetworkArgs       map[string]string // further arguments, by LyCORIS's names
	NetworkDropout    float64
	LearningRate      float64
	UNetLR, TextLR    float64 // 0: that part isn't trained
	Optimizer         string
	Scheduler         string
	WarmupSteps       int
	MaxGradNorm       float64
	MixedPrecision    string
	Checkpointing     bool
	Accumulation      int
	Seed              int64
	ClipSkip          int // 0 or 1: none
	MaxTokens         int
	CacheLatents      bool
	NoiseOffset       float64
	MinSNRGamma       float64
	CaptionDropout    float64
	TagDropout        float64
	ScaleWeightNorms  float64
	SessionID         string
	Started, Finished time.Time // UTC is written
	Steps, MaxSteps   int
	Epoch, Epochs     int
	Images, RegImages int
	BatchesPerEpoch   int
	BatchSize         int
	Width, Height     int // training resolution
	Bucketing         bool
	BucketNoUpscale   bool
	MinBucket         int
	MaxBucket         int
	FlipAug           bool
	RandomCrop        bool
	ShuffleCaption    bool
	KeepTokens        int
	Dirs              map[string]Dir            // by folder name
	Tags              map[string]map[string]int // by folder name: how often each tag stands in its captions
	Buckets           []Bucket

	ModelName      string // base name of the model's file
	ModelHash      string // SHA-256 of the model; empty: not computed
	ModelOldHash   string // eight digits
	VAEName        string
	VAEHash        string
	Comment        string
	Author         string
	Description    string
	License        string
	TriggerPhrase  string
	ProgramVersion string
	Extra          map[string]string
}

// Dir is a picture folder.
type Dir struct {
	Repeats int `json:"n_repeats"`
	Images  int `json:"img_count"`
}

// Bucket is a size in which pictures are trained.
type Bucket struct {
	Width, Height, Count int
}

// minimal are the keys that stay when only the needed ones are wanted; without them readers take the adapter for another family.
var minimal = []string{"ss_v2", "ss_base_model_version", "ss_network_module", "ss_network_dim", "ss_network_alpha", "ss_network_args"}

// Level is how much an adapter says about its making.
type Level string

// The levels.
const (
	Full    Level = "full"
	Minimal Level = "minimal" // what readers need to tell family and algorithm
	None    Level = "none"
)

// Map returns the metadata as strings. [Save] adds the hashes.
func (m Metadata) Map(level Level) map[string]string {
	if level == None {
		return nil
	}
	out := map[string]string{}
	m.network(out)
	if level == Minimal {
		return out
	}
	m.training(out)
	m.data(out)
	m.modelspec(out)
	maps.Copy(out, m.Extra)
	return out
}

// network sets the keys that describe the base's family and the adapter's form.
func (m Metadata) network(out map[string]string) {
	version := "sd_v1"
	if m.isV() {
		version = "sd_v1_v"
	}
	module, args := "networks.lora", maps.Clone(m.NetworkArgs)
	if args == nil {
		args = map[string]string{}
	}
	if !m.Plain {
		module = "lycoris.kohya"
		args["algo"] = m.Algorithm
	}
	if m.ConvDim > 0 {
		args["conv_dim"], args["conv_alpha"] = strconv.Itoa(m.ConvDim), number(m.ConvAlpha)
	}
	text, _ := json.Marshal(args) // a map of strings always marshals
	out["ss_v2"] = "False"
	out["ss_base_model_version"] = version
	out["ss_network_module"] = module
	out["ss_network_dim"] = strconv.Itoa(m.Dim)
	out["ss_network_alpha"] = number(m.Alpha)
	out["ss_network_args"] = string(text)
}

func (m Metadata) isV() bool { return m.Prediction == "v_prediction" || m.Prediction == "v" }

// training sets what sd-scripts says about a run.
func (m Metadata) training(out map[string]string) {
	out["ss_output_name"] = CleanName(m.OutputName)
	out["ss_learning_rate"], out["ss_unet_lr"], out["ss_text_encoder_lr"] = number(m.LearningRate), optional(m.UNetLR), optional(m.TextLR)
	out["ss_num_train_images"], out["ss_num_reg_images"] = strconv.Itoa(m.Images), strconv.Itoa(m.RegImages)
	out["ss_num_batches_per_epoch"] = strconv.Itoa(m.BatchesPerEpoch)
	out["ss_num_epochs"], out["ss_epoch"] = strconv.Itoa(m.Epochs), strconv.Itoa(m.Epoch)
	out["ss_steps"], out["ss_max_train_steps"] = strconv.Itoa(m.Steps), strconv.Itoa(m.MaxSteps)
	out["ss_gradient_checkpointing"] = boolean(m.Checkpointing)
	out["ss_gradient_accumulation_steps"] = strconv.Itoa(max(m.Accumulation, 1))
	out["ss_lr_scheduler"], out["ss_lr_warmup_steps"] = m.Scheduler, strconv.Itoa(m.WarmupSteps)
	out["ss_network_dropout"] = optional(m.NetworkDropout)
	out["ss_mixed_precision"], out["ss_full_fp16"] = m.MixedPrecision, "False"
	if m.MixedPrecision == "" {
		out["ss_mixed_precision"] = "no"
	}
	out["ss_clip_skip"] = "None"
	if m.ClipSkip > 1 {
		out["ss_clip_skip"] = strconv.Itoa(m.ClipSkip)
	}
	out["ss_max_token_length"] = "None"
	if m.MaxTokens > 75 {
		out["ss_max_token_length"] = strconv.Itoa(m.MaxTokens)
	}
	out["ss_cache_latents"], out["ss_seed"], out["ss_lowram"] = boolean(m.CacheLatents), strconv.FormatInt(m.Seed, 10), "False"
	out["ss_noise_offset"], out["ss_min_snr_gamma"] = optional(m.NoiseOffset), optional(m.MinSNRGamma)
	out["ss_multires_noise_iterations"], out["ss_adaptive_noise_scale"], out["ss_zero_terminal_snr"] = "None", "None", "False"
	out["ss_optimizer"], out["ss_max_grad_norm"] = m.Optimizer, number(m.MaxGradNorm)
	out["ss_caption_dropout_rate"], out["ss_caption_tag_dropout_rate"] = number(m.CaptionDropout), number(m.TagDropout)
	out["ss_scale_weight_norms"], out["ss_prior_loss_weight"] = optional(m.ScaleWeightNorms), "1.0"
	out["ss_loss_type"] = "l2"
	set(out, "ss_training_comment", m.Comment)
	set(out, "ss_session_id", m.SessionID)
	set(out, "ss_sd_model_name", CleanName(m.ModelName))
	set(out, "ss_sd_model_hash", m.ModelOldHash)
	set(out, "ss_new_sd_model_hash", m.ModelHash)
	set(out, "ss_vae_name", CleanName(m.VAEName))
	set(out, "ss_new_vae_hash", m.VAEHash)
	for key, at := range map[string]time.Time{"ss_training_started_at": m.Started, "ss_training_finished_at": m.Finished} {
		if !at.IsZero() {
			out[key] = strconv.FormatFloat(float64(at.UnixMilli())/1000, 'f', -1, 64)
		}
	}
}

// data sets what is known of the pictures.
func (m Metadata) data(out map[string]string) {
	out["ss_batch_size_per_device"], out["ss_total_batch_size"] = strconv.Itoa(m.BatchSize), strconv.Itoa(m.BatchSize)
	out["ss_resolution"] = fmt.Sprintf("(%d, %d)", m.Width, m.Height)
	out["ss_enable_bucket"], out["ss_bucket_no_upscale"] = boolean(m.Bucketing), boolean(m.BucketNoUpscale)
	out["ss_min_bucket_reso"], out["ss_max_bucket_reso"] = strconv.Itoa(m.MinBucket), strconv.Itoa(m.MaxBucket)
	out["ss_flip_aug"], out["ss_color_aug"], out["ss_random_crop"] = boolean(m.FlipAug), "False", boolean(m.RandomCrop)
	out["ss_shuffle_caption"], out["ss_keep_tokens"] = boolean(m.ShuffleCaption), strconv.Itoa(m.KeepTokens)
	if m.Dirs != nil {
		out["ss_dataset_dirs"], out["ss_reg_dataset_dirs"] = asJSON(m.Dirs), "{}"
	}
	if m.Tags != nil {
		out["ss_tag_frequency"] = asJSON(m.Tags)
	}
	if m.Buckets != nil {
		type bucket struct {
			Resolution [2]int `json:"resolution"`
			Count      int    `json:"count"`
		}
		list := map[string]bucket{}
		for i, b := range m.Buckets {
			list[strconv.Itoa(i)] = bucket{[2]int{b.Width, b.Height}, b.Count}
		}
		out["ss_bucket_info"] = asJSON(map[string]any{"buckets": list})
	}
}

// modelspec sets the keys of Stability AI's model metadata, version 1.0.1. Every algorithm is /lora there.
func (m Metadata) modelspec(out map[string]string) {
	title := m.Title
	if title == "" {
		title = CleanName(m.OutputName)
	}
	prediction := "epsilon"
	if m.isV() {
		prediction = "v"
	}
	out["modelspec.sai_model_spec"] = "1.0.1"
	out["modelspec.architecture"] = "stable-diffusion-v1/lora"
	out["modelspec.implementation"] = "diffusers"
	out["modelspec.title"] = title
	out["modelspec.resolution"] = fmt.Sprintf("%dx%d", m.Width, m.Height)
	out["modelspec.prediction_type"] = prediction
	if !m.Finished.IsZero() {
		out["modelspec.date"] = m.Finished.UTC().Format("2006-01-02T15:04:05")
	}
	if m.ClipSkip > 1 {
		out["modelspec.encoder_layer"] = strconv.Itoa(m.ClipSkip)
	}
	set(out, "modelspec.author", m.Author)
	set(out, "modelspec.description", m.Description)
	set(out, "modelspec.license", m.License)
	set(out, "modelspec.trigger_phrase", m.TriggerPhrase)
	set(out, "lycoris.version", m.ProgramVersion)
}

func set(out map[string]string, key, value string) {
	if value != "" {
		out[key] = value
	}
}

// CleanName returns the last part of a name from outside, safe as a file's name and in a list: no folders, no control bytes, never empty
// parts like "..".
func CleanName(name string) string {
	name = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, strings.ToValidUTF8(name, "_"))
	name = path.Base(strings.ReplaceAll(name, `\`, "/"))
	if name == "." || name == ".." || name == "/" {
		return ""
	}
	return name
}

// number writes a number as Python does in most cases, without a trailing .0.
func number(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

// optional is number, with sd-scripts' word for a value that isn't set.
func optional(v float64) string {
	if v == 0 {
		return "None"
	}
	return number(v)
}

func boolean(v bool) string {
	if v {
		return "True"
	}
	return "False"
}

// asJSON marshals maps of strings and numbers, keys in order; these can't fail.
func asJSON(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// KeepMinimal returns the entries of [Minimal].
func KeepMinimal(meta map[string]string) map[string]string {
	out := map[string]string{}
	for _, key := range minimal {
		set(out, key, meta[key])
	}
	return out
}
