package config

import (
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"lycoris/internal/fault"
)

var repeatsPrefix = regexp.MustCompile(`^[0-9]+_`)

// derive fills the values whose default is another value.
func (r *Resolved) derive() {
	c := r.Config
	from := func(path string, fill func()) {
		if _, given := r.sources[path]; !given {
			fill()
			r.sources[path] = "built-in, " + Lookup(path).Derived
		}
	}
	if c.Algo == "ia3" && (r.sources["targets"] == "" || r.builtIn("targets")) {
		c.Targets = Targets{Preset: "ia3"}
		r.sources["targets"] = "built-in, " + Lookup("targets").Derived
	}
	from("alpha", func() { c.Alpha = float64(c.Dim) })
	from("conv_dim", func() { c.ConvDim = c.Dim })
	from("conv_alpha", func() { c.ConvAlpha = c.Alpha })
	from("lr_unet", func() { c.LRUnet = c.LR })
	from("lr_te", func() { c.LRTE = c.LR / 2 })
	if c.Name == "" {
		c.Name = nameOf(c.Data)
		r.sources["name"] = "built-in, " + Lookup("name").Derived
	}
	for _, k := range keys {
		if r.sources[k.Path] == "" {
			r.sources[k.Path] = "built-in"
		}
	}
}

// nameOf returns a run's name made from its first data folder: the last part of the path, without N_.
func nameOf(data []Folder) string {
	if len(data) == 0 {
		return "run"
	}
	base := filepath.Base(filepath.Clean(data[0].Path))
	base = repeatsPrefix.ReplaceAllString(base, "")
	base = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f || strings.ContainsRune(`/\:*?"<>|`, c) {
			return '-'
		}
		return c
	}, base)
	if base == "" || strings.Trim(base, ".-") == "" {
		return "run"
	}
	return base
}

// crossChecks reports values that don't fit each other, and keys that have no effect.
func (l *loader) crossChecks(r *Resolved) {
	c := r.Config
	bad := func(path, format string, args ...any) *fault.Error { return l.f.add(r.sources[path], format, args...) }
	// A resolved file names every key: what stands at its default isn't worth a warning, and a run that goes on was warned when it began.
	unused := func(path, format string, args ...any) {
		standard, known := l.layers[0].values[path]
		resumed := l.in.ResumeFile != "" && strings.HasPrefix(r.sources[path], l.in.ResumeFile+":")
		if !r.builtIn(path) && !resumed && !(known && reflect.DeepEqual(standard, r.value(Lookup(path)))) {
			w := fault.BadUsage(r.sources[path], format, args...)
			l.warnings, r.Warnings = append(l.warnings, w), append(r.Warnings, w)
		}
	}
	if c.Bucket.Min > c.Bucket.Max {
		bad("bucket.min", "bucket.min %d is more than bucket.max %d", c.Bucket.Min, c.Bucket.Max)
	}
	if c.Bucket.Step%8 != 0 {
		bad("bucket.step", "bucket.step %d is not a multiple of 8", c.Bucket.Step)
	}
	if s := c.Sample.Size; s.W%8 != 0 || s.H%8 != 0 {
		bad("sample.size", "sample.size %s is not a multiple of 8", s)
	}
	if t := c.Train.Timesteps; t[0] >= t[1] {
		bad("train.timesteps", "train.timesteps [%d, %d] is empty: the first must be less than the second", t[0], t[1])
	}
	if c.Validate.Split > 0 && c.Validate.Path != "" {
		bad("validate.split", "validate.split and validate.path are both given").Advise("keep one of them")
	}
	if c.LRUnet == 0 && (c.LRTE == 0 || !c.Train.TrainTE) {
		bad("lr_unet", "nothing is trained: lr_unet is 0 and the text encoder is frozen too")
	}
	used := []string{c.Algo}
	for _, rule := range c.Layers {
		if algo, given := rule.Set["algo"]; given {
			used = append(used, algo.(string))
		}
	}
	for _, k := range keys {
		if len(k.Algos) > 0 && !slices.ContainsFunc(used, func(a string) bool { return slices.Contains(k.Algos, a) }) {
			unused(k.Path, "%s has no effect: it means nothing to %s", k.Path, strings.Join(used, ", "))
		}
	}
	if c.DecomposeBoth && c.FullMatrix {
		bad("full_matrix", "decompose_both and full_matrix are both given").Advise("keep one of them")
	}
	if c.Algo == "dylora" && (c.Dim%c.BlockSize != 0 || c.ConvDim%c.BlockSize != 0) {
		bad("block_size", "block_size %d does not divide dim %d and conv_dim %d", c.BlockSize, c.Dim, c.ConvDim)
	}
	if c.ConvDim == 0 {
		unused("conv_alpha", "conv_alpha has no effect: conv_dim is 0")
	}
	if c.Tucker && c.ConvDim == 0 {
		unused("tucker", "tucker has no effect: conv_dim is 0")
	}
	if !c.Train.TrainTE {
		unused("lr_te", "lr_te has no effect: train.train_te is false")
	}
	if (c.Sample.EverySteps > 0 || c.Sample.EveryEpochs > 0) && len(c.Sample.Prompts) == 0 {
		unused("sample.every_steps", "sample.every_steps has no effect: sample.prompts is empty")
		unused("sample.every_epochs", "sample.every_epochs has no effect: sample.prompts is empty")
	}
}

// Require returns an error naming each of the keys that has no value, with the flag that gives it.
func (c *Config) Require(paths ...string) error {
	var f Findings
	for _, p := range paths {
		k := Lookup(p)
		if isUnset(k, c) {
			e := f.add("", "%s is missing", p)
			if k.Flag != "" {
				e.Advise("give it with --%s, or as %s in a configuration file", k.Flag, p)
			}
		}
	}
	return f.err()
}

func isUnset(k *Key, c *Config) bool {
	switch v := k.field(c).(type) {
	case *string:
		return *v == ""
	case *[]Folder:
		return len(*v) == 0
	case *[]string:
		return len(*v) == 0
	case *int:
		return *v == 0
	}
	return false
}
