package config

import (
	"math"
	"slices"
	"strings"
)

// Type is what a key's value looks like.
type Type int

// The types of values.
const (
	Bool       Type = iota // true, false
	Int                    // whole number
	Seed                   // whole number up to 2^64-1
	Float                  // number
	Text                   // text
	Enum                   // one of Key.Enum
	IntEnum                // whole number, one of Key.Enum
	Path                   // file or folder, relative to the file that holds it
	Texts                  // list of text; a single text is short for a list of one
	AutoInt                // auto or whole number
	Tri                    // auto, true, false
	Resolution             // auto, number, or [width, height]
	IntPair                // [a, b]
	FloatPair              // [a, b]
	Steps                  // whole number of steps, or a share below 1
	Every                  // whole number of steps, or a time such as 10m
	Bytes                  // number of bytes, or 256MiB
	Count                  // whole number, or 100M
	Selection              // name of a set of modules, or list of globs
	Folders                // list of data folders
	Layers                 // list of rules for single layers
)

// Key is one line of the table.
type Key struct {
	Path       string
	Type       Type
	Default    string // as it would stand in a file; empty: derived or unset
	Derived    string // what an empty default stands for, as in "= dim"
	Min, Max   float64
	OpenMin    bool // Min itself isn't allowed
	OpenMax    bool // Max itself isn't allowed
	Enum       []string
	Later      []string // values that later versions will serve, refused with a sentence of their own
	LaterWhy   string
	Flag       string // name of the flag without dashes; empty: only --set
	Doc        string
	Resumable  bool     // ↻ may differ when a run is resumed
	Foreign    []string // names that other trainers use
	Algos      []string // algorithms that it means something to; empty: all
	field      func(*Config) any
	mayBeEmpty bool // may be unset or the empty text
}

var inf = math.Inf(1)

// algorithms are the values of algo, and what each key that is for some of them is for.
var (
	algorithms = []string{"lora", "locon", "loha", "lokr", "full", "ia3", "dylora", "glora", "glokr", "diag-oft", "boft", "tlora"}
	ranked     = []string{"lora", "locon", "loha", "lokr", "dylora", "glora", "glokr", "tlora"}
	blocked    = []string{"diag-oft", "boft"}
	scalable   = []string{"lora", "locon", "loha", "lokr", "glora", "glokr"}
	kronecker  = []string{"lokr", "glokr"}
)

// targetSets are the sets of modules with a name (algorithms.md 14.4).
var targetSets = []string{"full", "full-lin", "attn-mlp", "attn-only", "unet-only", "unet-transformer-only", "unet-convblock-only", "ia3"}

// keys is the table, in the order of files, help and config keys.
var keys = []*Key{
	{Path: "algo", Type: Enum, Default: "lora", Enum: algorithms, Flag: "algo", Doc: "algorithm", Foreign: []string{"network_module", "peft_type", "lycoris_algo"}, field: func(c *Config) any { return &c.Algo }},
	{Path: "dim", Type: Int, Default: "16", Min: 1, Max: 1e15, Flag: "dim", Algos: slices.Concat(ranked, blocked), Doc: "rank; block size of diag-oft and boft", Foreign: []string{"network_dim", "rank", "lora_rank", "linear"}, field: func(c *Config) any { return &c.Dim }},
	{Path: "alpha", Type: Float, Derived: "= dim", Min: 0, OpenMin: true, Max: inf, Flag: "alpha", Algos: ranked, Doc: "strength; the change is scaled by alpha/dim", Foreign: []string{"network_alpha", "lora_alpha", "linear_alpha"}, field: func(c *Config) any { return &c.Alpha }},
	{Path: "conv_dim", Type: Int, Derived: "= dim", Min: 0, Max: 1e15, Flag: "conv-dim", Doc: "rank for 3x3 convolutions; 0 leaves them out", Foreign: []string{"conv", "conv_rank"}, field: func(c *Config) any { return &c.ConvDim }},
	{Path: "conv_alpha", Type: Float, Derived: "= alpha", Min: 0, OpenMin: true, Max: inf, Flag: "conv-alpha", Algos: ranked, Doc: "alpha for 3x3 convolutions", field: func(c *Config) any { return &c.ConvAlpha }},
	{Path: "dropout.rank", Type: Float, Default: "0", Min: 0, Max: 1, OpenMax: true, Doc: "chance that a rank is left out in a step", Foreign: []string{"rank_dropout"}, field: func(c *Config) any { return &c.Dropout.Rank }},
	{Path: "dropout.module", Type: Float, Default: "0", Min: 0, Max: 1, OpenMax: true, Doc: "chance that a layer's adapter is left out in a step", Foreign: []string{"module_dropout"}, field: func(c *Config) any { return &c.Dropout.Module }},
	{Path: "dropout.neuron", Type: Float, Default: "0", Min: 0, Max: 1, OpenMax: true, Doc: "chance that an activation is left out in a step", Foreign: []string{"network_dropout", "dropout_probability"}, field: func(c *Config) any { return &c.Dropout.Neuron }},
	{Path: "factor", Type: Int, Default: "-1", Min: -1, Max: 32768, Flag: "factor", Algos: kronecker, Doc: "how lokr splits a layer; -1 = nearest to square", Foreign: []string{"lokr_factor", "decompose_factor"}, field: func(c *Config) any { return &c.Factor }},
	{Path: "block_size", Type: Int, Default: "1", Min: 1, Max: 32768, Flag: "block-size", Algos: []string{"dylora"}, Doc: "ranks that dylora trains together; must divide dim", field: func(c *Config) any { return &c.BlockSize }},
	{Path: "min_rank", Type: AutoInt, Default: "auto", Min: 1, Max: 32768, Algos: []string{"tlora"}, Doc: "ranks that tlora trains at the highest noise; dim or more = all at any noise; auto = 1, all for a file of lycoris-lora", field: func(c *Config) any { return &c.MinRank }},
	{Path: "constraint", Type: Float, Default: "0", Min: 0, Max: inf, Flag: "constraint", Algos: blocked, Doc: "bound on the rotation; 0 = none", Foreign: []string{"constrain"}, field: func(c *Config) any { return &c.Constraint }},
	{Path: "rescaled", Type: Bool, Default: "false", Algos: blocked, Doc: "a trained factor per output beside the rotation", field: func(c *Config) any { return &c.Rescaled }},
	{Path: "dora", Type: Enum, Default: "none", Enum: []string{"none", "in", "out"}, Algos: []string{"lora", "locon", "loha", "lokr"}, Doc: "train magnitudes apart from directions, per input or output channel", Foreign: []string{"dora_wd", "use_dora", "weight_decompose"}, field: func(c *Config) any { return &c.DoRA }},
	{Path: "tucker", Type: Bool, Default: "false", Algos: []string{"lora", "locon", "loha", "lokr", "glokr"}, Doc: "3x3 convolutions in Tucker form", Foreign: []string{"use_tucker", "use_cp", "use_conv_cp"}, field: func(c *Config) any { return &c.Tucker }},
	{Path: "use_scalar", Type: Bool, Default: "false", Algos: scalable, Doc: "a trained factor per layer that starts at 0", field: func(c *Config) any { return &c.UseScalar }},
	{Path: "rs_lora", Type: Bool, Default: "false", Algos: scalable, Doc: "scale by alpha/sqrt(dim)", Foreign: []string{"use_rslora", "rslora"}, field: func(c *Config) any { return &c.RSLora }},
	{Path: "decompose_both", Type: Bool, Default: "false", Algos: kronecker, Doc: "low rank for the small factor too", field: func(c *Config) any { return &c.DecomposeBoth }},
	{Path: "full_matrix", Type: Bool, Default: "false", Algos: kronecker, Doc: "factors of full rank", field: func(c *Config) any { return &c.FullMatrix }},
	{Path: "unbalanced", Type: Bool, Default: "false", Algos: kronecker, Doc: "more of the outputs for the small factor", Foreign: []string{"unbalanced_factorization"}, field: func(c *Config) any { return &c.Unbalanced }},
	{Path: "train_norm", Type: Bool, Default: "false", Doc: "train the norms inside chosen blocks too", field: func(c *Config) any { return &c.TrainNorm }},
	{Path: "targets", Type: Selection, Default: "full", Derived: "ia3 for algo ia3", Enum: targetSets, Doc: "which layers get an adapter: a set's name, a LyCORIS preset file, or a list of globs", Foreign: []string{"preset", "target_modules"}, field: func(c *Config) any { return &c.Targets }},
	{Path: "exclude", Type: Texts, Default: "[]", Doc: "globs of layers left out", Foreign: []string{"exclude_name", "exclude_modules"}, field: func(c *Config) any { return &c.Exclude }},
	{Path: "layers", Type: Layers, Default: "[]", Doc: "rules for single layers; the first that matches wins", field: func(c *Config) any { return &c.Layers }},

	{Path: "name", Type: Text, mayBeEmpty: true, Derived: "from the data folder", Flag: "name", Doc: "name of the run folder and of its adapters", Foreign: []string{"output_name"}, field: func(c *Config) any { return &c.Name }},
	{Path: "out", Type: Path, Default: "runs", Flag: "out", Doc: "folder that holds run folders", Resumable: true, Foreign: []string{"output_dir"}, field: func(c *Config) any { return &c.Out }},
	{Path: "model.path", Type: Path, Flag: "model", Doc: "base checkpoint: .safetensors file or diffusers folder", mayBeEmpty: true, Foreign: []string{"pretrained_model_name_or_path", "base_model_name", "name_or_path"}, field: func(c *Config) any { return &c.Model.Path }},
	{Path: "model.vae", Type: Path, Flag: "vae", Doc: "another VAE than the model's own", mayBeEmpty: true, Foreign: []string{"vae"}, field: func(c *Config) any { return &c.Model.VAE }},
	{Path: "model.family", Type: Enum, Default: "auto", Enum: []string{"auto", "sd1"}, Later: []string{"sd2", "sdxl"}, LaterWhy: "this version trains sd1", Doc: "model family", field: func(c *Config) any { return &c.Model.Family }},
	{Path: "model.prediction", Type: Enum, Default: "auto", Enum: []string{"auto", "eps", "v"}, Doc: "what the UNet predicts", Foreign: []string{"prediction_type", "v_parameterization"}, field: func(c *Config) any { return &c.Model.Prediction }},
	{Path: "model.clip_skip", Type: Int, Default: "1", Min: 1, Max: 12, Doc: "text encoder layer counted from the end", Foreign: []string{"clip_skip"}, field: func(c *Config) any { return &c.Model.ClipSkip }},
	{Path: "model.max_tokens", Type: IntEnum, Default: "75", Enum: []string{"75", "150", "225"}, Doc: "length of captions in tokens", Foreign: []string{"max_token_length"}, field: func(c *Config) any { return &c.Model.MaxTokens }},
	{Path: "data", Type: Folders, Default: "[]", Flag: "data", Doc: "folders of pictures with captions", Foreign: []string{"train_data_dir", "datasets", "instance_data_dir"}, field: func(c *Config) any { return &c.Data }},

	{Path: "bucket.enable", Type: Bool, Default: "true", Doc: "keep aspect ratios", Foreign: []string{"enable_bucket"}, field: func(c *Config) any { return &c.Bucket.Enable }},
	{Path: "bucket.resolution", Type: Resolution, Default: "auto", Min: 64, Max: 8192, Flag: "resolution", Doc: "training size in pixels, by family when auto", Foreign: []string{"resolution"}, field: func(c *Config) any { return &c.Bucket.Resolution }},
	{Path: "bucket.min", Type: Int, Default: "256", Min: 64, Max: 8192, Doc: "shortest side of a bucket", Foreign: []string{"min_bucket_reso"}, field: func(c *Config) any { return &c.Bucket.Min }},
	{Path: "bucket.max", Type: Int, Default: "2048", Min: 64, Max: 8192, Doc: "longest side of a bucket", Foreign: []string{"max_bucket_reso"}, field: func(c *Config) any { return &c.Bucket.Max }},
	{Path: "bucket.step", Type: Int, Default: "64", Min: 8, Max: 1024, Doc: "sides are multiples of this", Foreign: []string{"bucket_reso_steps"}, field: func(c *Config) any { return &c.Bucket.Step }},
	{Path: "bucket.no_upscale", Type: Bool, Default: "false", Doc: "never enlarge pictures", Foreign: []string{"bucket_no_upscale"}, field: func(c *Config) any { return &c.Bucket.NoUpscale }},
	{Path: "data_limits.max_pixels", Type: Count, Default: "100M", Min: 1, Max: 1e9, Doc: "largest picture", field: func(c *Config) any { return &c.DataLimits.MaxPixels }},
	{Path: "data_limits.max_file", Type: Bytes, Default: "256MiB", Min: 1, Max: 4 << 30, Doc: "largest picture file", field: func(c *Config) any { return &c.DataLimits.MaxFile }},
	{Path: "data_limits.on_bad", Type: Enum, Default: "stop", Enum: []string{"stop", "skip"}, Doc: "what to do with a picture that can't be used", field: func(c *Config) any { return &c.DataLimits.OnBad }},
	{Path: "validate.split", Type: Float, Default: "0", Min: 0, Max: 1, OpenMax: true, Doc: "share of the pictures kept for validation", Foreign: []string{"validation_split"}, field: func(c *Config) any { return &c.Validate.Split }},
	{Path: "validate.path", Type: Path, Doc: "folder of pictures for validation", mayBeEmpty: true, field: func(c *Config) any { return &c.Validate.Path }},
	{Path: "validate.every", Type: Int, Default: "0", Min: 0, Max: 1e9, Doc: "steps between validations; 0 = never", Foreign: []string{"validate_every_n_steps"}, field: func(c *Config) any { return &c.Validate.Every }},
	{Path: "cache.dir", Type: Path, Derived: "user cache", Doc: "folder of latents and text states", mayBeEmpty: true, Resumable: true, field: func(c *Config) any { return &c.Cache.Dir }},
	{Path: "cache.latents", Type: Bool, Default: "true", Doc: "keep VAE latents", Foreign: []string{"cache_latents", "cache_latents_to_disk"}, Resumable: true, field: func(c *Config) any { return &c.Cache.Latents }},
	{Path: "cache.text", Type: Bool, Default: "true", Doc: "keep text states", Foreign: []string{"cache_text_encoder_outputs"}, Resumable: true, field: func(c *Config) any { return &c.Cache.Text }},

	{Path: "steps", Type: Int, mayBeEmpty: true, Default: "1600", Min: 1, Max: 1e9, Flag: "steps", Doc: "optimiser updates; or give epochs", Resumable: true, Foreign: []string{"max_train_steps"}, field: func(c *Config) any { return &c.Steps }},
	{Path: "epochs", Type: Int, mayBeEmpty: true, Min: 1, Max: 1e9, Flag: "epochs", Doc: "passes over the data; or give steps", Resumable: true, Foreign: []string{"max_train_epochs", "num_train_epochs"}, field: func(c *Config) any { return &c.Epochs }},
	{Path: "batch_size", Type: Int, Default: "1", Min: 1, Max: 4096, Flag: "batch-size", Doc: "pictures in a batch", Foreign: []string{"train_batch_size", "batch"}, field: func(c *Config) any { return &c.BatchSize }},
	{Path: "grad_accum", Type: Int, Default: "1", Min: 1, Max: 65536, Doc: "batches in a step", Foreign: []string{"gradient_accumulation_steps"}, field: func(c *Config) any { return &c.GradAccum }},
	{Path: "lr", Type: Float, Default: "1.0e-4", Min: 0, OpenMin: true, Max: inf, Flag: "lr", Doc: "learning rate", Foreign: []string{"learning_rate"}, field: func(c *Config) any { return &c.LR }},
	{Path: "lr_unet", Type: Float, Derived: "= lr", Min: 0, Max: inf, Flag: "lr-unet", Doc: "learning rate of the UNet's adapters; 0 = frozen", Foreign: []string{"unet_lr"}, field: func(c *Config) any { return &c.LRUnet }},
	{Path: "lr_te", Type: Float, Derived: "= lr/2", Min: 0, Max: inf, Flag: "lr-te", Doc: "learning rate of the text encoder's adapters; 0 = frozen", Foreign: []string{"text_encoder_lr"}, field: func(c *Config) any { return &c.LRTE }},
	{Path: "optimizer.name", Type: Enum, Default: "adamw", Enum: []string{"adamw"}, Later: []string{"adamw8bit", "lion", "adafactor", "prodigy", "sgd"}, LaterWhy: "this version has adamw", Flag: "optimizer", Doc: "optimiser", Foreign: []string{"optimizer_type"}, field: func(c *Config) any { return &c.Optimizer.Name }},
	{Path: "optimizer.betas", Type: FloatPair, Default: "[0.9, 0.999]", Min: 0, Max: 1, OpenMax: true, Doc: "decay of the two moments", field: func(c *Config) any { return &c.Optimizer.Betas }},
	{Path: "optimizer.eps", Type: Float, Default: "1.0e-8", Min: 0, OpenMin: true, Max: 1, Doc: "added to the root of the second moment", field: func(c *Config) any { return &c.Optimizer.Eps }},
	{Path: "optimizer.weight_decay", Type: Float, Default: "0.01", Min: 0, Max: 1, Doc: "decoupled weight decay", Foreign: []string{"weight_decay"}, field: func(c *Config) any { return &c.Optimizer.WeightDecay }},
	{Path: "scheduler.name", Type: Enum, Default: "cosine", Enum: []string{"constant", "cosine", "linear"}, Later: []string{"cosine_with_restarts", "polynomial", "rex", "inverse_sqrt", "warmup_stable_decay"}, LaterWhy: "this version has constant, cosine and linear", Flag: "scheduler", Doc: "learning rate over time", Foreign: []string{"lr_scheduler"}, field: func(c *Config) any { return &c.Scheduler.Name }},
	{Path: "scheduler.warmup", Type: Steps, Default: "0.05", Min: 0, Max: 1e9, Flag: "warmup", Doc: "warm-up: steps, or a share of all steps", Foreign: []string{"lr_warmup_steps"}, field: func(c *Config) any { return &c.Scheduler.Warmup }},
	{Path: "scheduler.min_lr", Type: Float, Default: "0", Min: 0, Max: 1, Doc: "share of the learning rate left at the end", Foreign: []string{"lr_scheduler_min_lr_ratio"}, field: func(c *Config) any { return &c.Scheduler.MinLR }},
	{Path: "train.max_grad_norm", Type: Float, Default: "1.0", Min: 0, Max: inf, Doc: "gradients are scaled down to this norm; 0 = off", Foreign: []string{"max_grad_norm"}, field: func(c *Config) any { return &c.Train.MaxGradNorm }},
	{Path: "train.scale_weight_norms", Type: Float, Default: "0", Min: 0, Max: inf, Algos: []string{"lora", "locon", "loha", "lokr", "glokr", "diag-oft", "boft"}, Doc: "layer changes are scaled down to this norm; 0 = off", Foreign: []string{"scale_weight_norms"}, field: func(c *Config) any { return &c.Train.ScaleWeightNorms }},
	{Path: "train.checkpointing", Type: Tri, Default: "auto", Doc: "recompute activations to save memory", Foreign: []string{"gradient_checkpointing"}, field: func(c *Config) any { return &c.Train.Checkpointing }},
	{Path: "train.train_te", Type: Bool, Default: "true", Flag: "train-te", Doc: "train the text encoder too", Foreign: []string{"train_text_encoder"}, field: func(c *Config) any { return &c.Train.TrainTE }},
	{Path: "train.timesteps", Type: IntPair, Default: "[0, 1000]", Min: 0, Max: 1000, Doc: "range of noise levels: first, one past the last", Foreign: []string{"min_timestep", "max_timestep"}, field: func(c *Config) any { return &c.Train.Timesteps }},

	{Path: "precision", Type: Enum, Default: "auto", Enum: []string{"auto", "fp32"}, Later: []string{"fp16", "bf16"}, LaterWhy: "the CPU engine computes in fp32", Flag: "precision", Doc: "arithmetic of the frozen model", Foreign: []string{"mixed_precision"}, field: func(c *Config) any { return &c.Precision }},
	{Path: "device", Type: Enum, Default: "auto", Enum: []string{"auto", "cpu"}, Later: []string{"cuda"}, LaterWhy: "this version trains on the CPU", Flag: "device", Doc: "where to compute", field: func(c *Config) any { return &c.Device }},
	{Path: "threads", Type: AutoInt, Default: "auto", Min: 1, Max: 1024, Flag: "threads", Doc: "worker threads; results don't depend on it", Resumable: true, Foreign: []string{"max_data_loader_n_workers"}, field: func(c *Config) any { return &c.Threads }},
	{Path: "seed", Type: Seed, Default: "42", Min: 0, Max: math.MaxUint64, Flag: "seed", Doc: "seed of every random number", field: func(c *Config) any { return &c.Seed }},
	{Path: "cpu_isa", Type: Enum, Default: "auto", Enum: []string{"auto", "avx512", "avx2", "portable"}, Doc: "set of kernels", Resumable: true, field: func(c *Config) any { return &c.CPUISA }},

	{Path: "save.every_steps", Type: Int, Default: "0", Min: 0, Max: 1e9, Doc: "steps between adapters; 0 = never", Resumable: true, Foreign: []string{"save_every_n_steps"}, field: func(c *Config) any { return &c.Save.EverySteps }},
	{Path: "save.every_epochs", Type: Int, Default: "1", Min: 0, Max: 1e9, Doc: "epochs between adapters; 0 = never", Resumable: true, Foreign: []string{"save_every_n_epochs"}, field: func(c *Config) any { return &c.Save.EveryEpochs }},
	{Path: "save.keep", Type: Int, Default: "5", Min: 0, Max: 1e6, Doc: "earlier adapters kept; 0 = all", Resumable: true, Foreign: []string{"save_last_n_epochs"}, field: func(c *Config) any { return &c.Save.Keep }},
	{Path: "save.state_every", Type: Every, Default: "10m", Min: 0, Max: 1e9, Doc: "steps or time between states; 0 = only when stopped", Resumable: true, Foreign: []string{"save_state"}, field: func(c *Config) any { return &c.Save.StateEvery }},
	{Path: "save.state_keep", Type: Int, Default: "2", Min: 1, Max: 1e6, Doc: "states kept", Resumable: true, field: func(c *Config) any { return &c.Save.StateKeep }},
	{Path: "save.dtype", Type: Enum, Default: "bf16", Enum: []string{"fp32", "fp16", "bf16"}, Doc: "element type of adapters", Resumable: true, Foreign: []string{"save_precision"}, field: func(c *Config) any { return &c.Save.DType }},
	{Path: "save.metadata", Type: Enum, Default: "full", Enum: []string{"full", "minimal", "none"}, Doc: "what adapters say about their making", Resumable: true, Foreign: []string{"no_metadata"}, field: func(c *Config) any { return &c.Save.Metadata }},
	{Path: "sample.prompts", Type: Texts, Default: "[]", Doc: "prompt lines, kohya's --w --h --d --s --l --n allowed", Resumable: true, Foreign: []string{"sample_prompts"}, field: func(c *Config) any { return &c.Sample.Prompts }},
	{Path: "sample.every_steps", Type: Int, Default: "0", Min: 0, Max: 1e9, Doc: "steps between samples; 0 = never", Resumable: true, Foreign: []string{"sample_every_n_steps"}, field: func(c *Config) any { return &c.Sample.EverySteps }},
	{Path: "sample.every_epochs", Type: Int, Default: "0", Min: 0, Max: 1e9, Doc: "epochs between samples; 0 = never", Resumable: true, Foreign: []string{"sample_every_n_epochs"}, field: func(c *Config) any { return &c.Sample.EveryEpochs }},
	{Path: "sample.size", Type: Resolution, Default: "auto", Min: 64, Max: 8192, Doc: "size of samples", Resumable: true, field: func(c *Config) any { return &c.Sample.Size }},
	{Path: "sample.steps", Type: Int, Default: "20", Min: 1, Max: 1000, Doc: "sampling steps", Resumable: true, field: func(c *Config) any { return &c.Sample.Steps }},
	{Path: "sample.cfg", Type: Float, Default: "7.0", Min: 0, Max: 100, Doc: "guidance scale", Resumable: true, Foreign: []string{"guidance_scale"}, field: func(c *Config) any { return &c.Sample.CFG }},
	{Path: "sample.sampler", Type: Enum, Default: "euler", Enum: []string{"euler", "ddim"}, Doc: "sampler", Resumable: true, Foreign: []string{"sample_sampler"}, field: func(c *Config) any { return &c.Sample.Sampler }},
	{Path: "sample.seed", Type: Seed, Default: "42", Min: 0, Max: math.MaxUint64, Doc: "seed of the samples", Resumable: true, field: func(c *Config) any { return &c.Sample.Seed }},
	{Path: "guard.nonfinite", Type: Enum, Default: "stop", Enum: []string{"stop"}, Later: []string{"skip", "rollback"}, LaterWhy: "this version stops", Doc: "what happens when the loss is not a number", field: func(c *Config) any { return &c.Guard.Nonfinite }},
	{Path: "log.metrics_every", Type: Int, Default: "1", Min: 1, Max: 1e6, Doc: "steps between lines in metrics.jsonl", Resumable: true, field: func(c *Config) any { return &c.Log.MetricsEvery }},
	{Path: "compat", Type: Enum, Default: "auto", Enum: []string{"auto", "kohya", "onetrainer", "diffusers", "lycoris"}, Doc: "whose formula where trainers differ", field: func(c *Config) any { return &c.Compat }},
}

// folderKeys are the keys of one entry of data.
var folderKeys = []*Key{
	{Path: "path", Type: Path, Doc: "folder of pictures, or of N_name folders"},
	{Path: "repeats", Type: Int, mayBeEmpty: true, Derived: "N of N_name, else 1", Min: 1, Max: 1e6, Doc: "times a picture is shown in an epoch", Foreign: []string{"num_repeats"}},
	{Path: "caption_ext", Type: Texts, Default: "[.txt, .caption]", Doc: "endings of caption files, first found wins", Foreign: []string{"caption_extension"}},
	{Path: "class_tokens", Type: Text, Derived: "name of N_name", mayBeEmpty: true, Doc: "caption of pictures without a caption file"},
	{Path: "flip", Type: Bool, Default: "false", Doc: "mirror half of the pictures", Foreign: []string{"flip_aug", "random_flip"}},
	{Path: "crop", Type: Enum, Default: "center", Enum: []string{"center", "random"}, Doc: "which part is cut out", Foreign: []string{"random_crop"}},
	{Path: "keep_tokens", Type: Int, Default: "0", Min: 0, Max: 10000, Doc: "tags at the start that aren't shuffled or dropped"},
	{Path: "shuffle", Type: Bool, Default: "false", Doc: "shuffle tags", Foreign: []string{"shuffle_caption"}},
	{Path: "caption_dropout", Type: Float, Default: "0", Min: 0, Max: 1, Doc: "chance of an empty caption", Foreign: []string{"caption_dropout_rate"}},
	{Path: "tag_dropout", Type: Float, Default: "0", Min: 0, Max: 1, Doc: "chance that a tag is left out", Foreign: []string{"caption_tag_dropout_rate"}},
	{Path: "prefix", Type: Text, mayBeEmpty: true, Doc: "put before every caption", Foreign: []string{"caption_prefix"}},
	{Path: "suffix", Type: Text, mayBeEmpty: true, Doc: "put after every caption", Foreign: []string{"caption_suffix"}},
}

// layerKeys are the keys of one entry of layers: these, and the keys of the table that an algorithm may take.
var layerKeys = layerTable()

func layerTable() []*Key {
	table := []*Key{
		{Path: "match", Type: Text, Doc: "glob of whole module paths, or of names in adapter files"},
		{Path: "skip", Type: Bool, Default: "false", Doc: "leave these layers out"},
		{Path: "lr_scale", Type: Float, Default: "1.0", Min: 0, Max: inf, Doc: "learning rate of these layers, relative to the component's"},
		{Path: "on_input", Type: Bool, Default: "false", Doc: "ia3 scales inputs instead of outputs", Foreign: []string{"train_on_input"}},
	}
	for _, path := range []string{"algo", "dim", "alpha", "factor", "block_size", "min_rank", "constraint", "rescaled", "dora", "tucker", "use_scalar", "rs_lora", "decompose_both",
		"full_matrix", "unbalanced"} {
		table = append(table, Lookup(path))
	}
	return table
}

// Keys returns the table.
func Keys() []*Key { return slices.Clone(keys) }

// LayerKeys returns the keys of one entry of layers.
func LayerKeys() []*Key { return slices.Clone(layerKeys) }

// FolderKeys returns the keys of one entry of data.
func FolderKeys() []*Key { return slices.Clone(folderKeys) }

// Lookup returns the key with the given path, nil if there is none.
func Lookup(path string) *Key {
	if i := slices.IndexFunc(keys, func(k *Key) bool { return k.Path == path }); i >= 0 {
		return keys[i]
	}
	return nil
}

// EnvName returns the name of the environment variable for k: LYCORIS_TRAIN_TRAIN_TE for train.train_te.
func (k *Key) EnvName() string {
	return "LYCORIS_" + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(k.Path))
}
