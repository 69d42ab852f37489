package config

import (
	"fmt"
	"strconv"
	"time"
)

// Config is the resolved configuration: every field holds the value that will be used, except where a comment says "auto".
type Config struct {
	Algo      string
	Dim       int
	Alpha     float64
	ConvDim   int     // 0 leaves 3x3 convolutions out
	ConvAlpha float64 // used with ConvDim
	Dropout   Dropout

	Factor        int     // lokr, glokr: -1 = nearest to square
	BlockSize     int     // dylora
	MinRank       int     // tlora; 0 = auto
	Constraint    float64 // diag-oft, boft
	Rescaled      bool
	DoRA          string // none, in, out
	Tucker        bool
	UseScalar     bool
	RSLora        bool
	DecomposeBoth bool
	FullMatrix    bool
	Unbalanced    bool
	TrainNorm     bool

	Targets Targets
	Exclude []string // globs of modules left out
	Layers  []Layer

	Name  string
	Out   string // folder that holds run folders
	Model Model
	Data  []Folder

	Bucket     Bucket
	DataLimits DataLimits
	Validate   Validate
	Cache      Cache

	Steps     int // 0: Epochs counts
	Epochs    int // 0: Steps counts
	BatchSize int
	GradAccum int
	LR        float64
	LRUnet    float64 // 0: the UNet is frozen
	LRTE      float64 // 0: the text encoder is frozen
	Optimizer Optimizer
	Scheduler Scheduler
	Train     Train

	Precision string // auto, fp32
	Device    string // auto, cpu
	Threads   int    // 0: as many as there are cores
	Seed      uint64
	CPUISA    string // auto, avx512, avx2, portable

	Save   Save
	Sample Sample
	Guard  Guard
	Log    Log
	Compat string // auto, kohya, onetrainer, diffusers, lycoris
}

// Dropout holds probabilities in [0,1).
type Dropout struct{ Rank, Module, Neuron float64 }

// Targets says which modules get an adapter: a preset's name, a preset's file, or globs; all but one are empty.
type Targets struct {
	Preset string
	File   string // of LyCORIS's TOML form
	Globs  []string
}

// Model is the base checkpoint and how it is read.
type Model struct {
	Path       string // file or diffusers folder
	VAE        string // another VAE, or empty
	Family     string // auto, sd1
	Prediction string // auto, eps, v
	ClipSkip   int
	MaxTokens  int // 75, 150 or 225
}

// Folder is one entry of data.
type Folder struct {
	Path           string   `json:"path"`
	Repeats        int      `json:"repeats"` // 0: from the folder's name (N_name), else 1
	CaptionExt     []string `json:"caption_ext"`
	ClassTokens    string   `json:"class_tokens"` // empty: from the folder's name (N_name)
	Flip           bool     `json:"flip"`
	Crop           string   `json:"crop"` // center, random
	KeepTokens     int      `json:"keep_tokens"`
	Shuffle        bool     `json:"shuffle"`
	CaptionDropout float64  `json:"caption_dropout"`
	TagDropout     float64  `json:"tag_dropout"`
	Prefix         string   `json:"prefix"`
	Suffix         string   `json:"suffix"`
}

// Bucket describes the aspect-ratio buckets. A zero Resolution means: by model family.
type Bucket struct {
	Enable     bool
	Resolution Size
	Min, Max   int // pixels
	Step       int // pixels
	NoUpscale  bool
}

// DataLimits are checked before a picture is decoded.
type DataLimits struct {
	MaxPixels int64
	MaxFile   int64  // bytes
	OnBad     string // stop, skip
}

// Validate describes the fixed validation set.
type Validate struct {
	Split float64 // share of the pictures, 0 = none
	Path  string  // folder, or empty
	Every int     // steps, 0 = never
}

// Cache says what is kept between runs. An empty Dir means the user's cache folder.
type Cache struct {
	Dir     string
	Latents bool
	Text    bool
}

// Optimizer is AdamW's description.
type Optimizer struct {
	Name        string
	Betas       [2]float64
	Eps         float64
	WeightDecay float64
}

// Scheduler is the learning rate over time.
type Scheduler struct {
	Name   string // constant, cosine, linear
	Warmup Warmup
	MinLR  float64 // share of the learning rate that is left at the end
}

// Train holds the parts of the loop that have no better place.
type Train struct {
	MaxGradNorm      float64 // 0 = off
	ScaleWeightNorms float64 // 0 = off
	Checkpointing    string  // auto, true, false
	TrainTE          bool
	Timesteps        [2]int // first, one past the last
}

// Save says what is written when.
type Save struct {
	EverySteps  int // 0 = never
	EveryEpochs int // 0 = never
	Keep        int // adapters of intermediate steps and epochs that stay, 0 = all
	StateEvery  Interval
	StateKeep   int
	DType       string // fp32, fp16, bf16
	Metadata    string // full, minimal, none
}

// Sample describes the pictures made while training.
type Sample struct {
	Prompts     []string
	EverySteps  int // 0 = never
	EveryEpochs int // 0 = never
	Size        Size
	Steps       int
	CFG         float64
	Sampler     string // euler, ddim
	Seed        uint64
}

// Guard says what happens when a number isn't finite.
type Guard struct{ Nonfinite string }

// Log says what is written to metrics.jsonl.
type Log struct{ MetricsEvery int }

// Size is a picture size in pixels; zero means auto.
type Size struct{ W, H int }

// IsAuto reports whether the size is left to the model family.
func (s Size) IsAuto() bool { return s == Size{} }

// String writes 512 for a square, [768, 512] else.
func (s Size) String() string {
	switch {
	case s.IsAuto():
		return "auto"
	case s.W == s.H:
		return strconv.Itoa(s.W)
	}
	return fmt.Sprintf("[%d, %d]", s.W, s.H)
}

// Warmup is a number of steps or, where Fraction isn't 0, a share of all steps.
type Warmup struct {
	Steps    int
	Fraction float64
}

// Of returns the warm-up steps of a run of total steps; a share is rounded down, as kohya's trainer does.
func (w Warmup) Of(total int) int {
	if w.Fraction > 0 {
		return int(w.Fraction * float64(total))
	}
	return w.Steps
}

// String writes the value as it stands in a file.
func (w Warmup) String() string {
	if w.Fraction > 0 {
		return formatFloat(w.Fraction)
	}
	return strconv.Itoa(w.Steps)
}

// Interval is a number of steps or a time; both zero means never.
type Interval struct {
	Steps int
	Time  time.Duration
}

// IsZero reports whether nothing ever becomes due.
func (i Interval) IsZero() bool { return i == Interval{} }

// String writes the value as it stands in a file: 500 or 10m.
func (i Interval) String() string {
	if i.Time == 0 {
		return strconv.Itoa(i.Steps)
	}
	for _, u := range []struct {
		d time.Duration
		s string
	}{{time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}} {
		if i.Time%u.d == 0 {
			return strconv.FormatInt(int64(i.Time/u.d), 10) + u.s
		}
	}
	return i.Time.String()
}
