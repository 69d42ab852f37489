package network

import (
	"errors"
	"path"
	"slices"
	"strings"

	"lycoris/internal/algos"
	"lycoris/internal/arch"
	"lycoris/internal/checkpoint"
	"lycoris/internal/fault"
)

// preset names classes of blocks: every Linear and Conv2d inside one is chosen, windows only with conv.
type preset struct {
	name  string
	conv  bool     // kernels larger than one pixel too
	unet  []string // classes
	paths []string // UNet modules by path
	text  []string // classes
}

var (
	resnet      = []string{"ResnetBlock2D"}
	transformer = []string{"Transformer2DModel"}
	resampling  = []string{"Downsample2D", "Upsample2D"}
	clip        = []string{"CLIPAttention", "CLIPMLP"}
	timeEmbed   = []string{"time_embedding.linear_1", "time_embedding.linear_2"}
	ends        = []string{"conv_in", "conv_out"}
)

// presets are LyCORIS's (config.py, BUILTIN_PRESET_CONFIGS) with its classes mapped to ours; TimestepEmbedding is not a target, so that the counts are
// the ones of existing files.
var presets = []preset{
	{name: "full", conv: true, unet: slices.Concat(transformer, resnet, resampling), paths: slices.Concat(ends, timeEmbed), text: clip},
	{name: "full-lin", unet: slices.Concat(transformer, resnet), paths: timeEmbed, text: clip},
	{name: "attn-mlp", unet: transformer, text: clip},
	{name: "attn-only", unet: []string{"Attention"}, text: []string{"CLIPAttention"}},
	{name: "unet-only", conv: true, unet: slices.Concat(transformer, resnet, resampling), paths: slices.Concat(ends, timeEmbed)},
	{name: "unet-transformer-only", unet: transformer},
	{name: "unet-convblock-only", conv: true, unet: slices.Concat(resnet, resampling), paths: ends},
}

// has reports whether the preset chooses t.
func (p preset) has(t Target) bool {
	if t.HasWindow() && !p.conv {
		return false
	}
	if t.Component == arch.TextEncoder {
		return slices.ContainsFunc(p.text, t.Module.Within)
	}
	return slices.Contains(p.paths, t.Module.Path) || slices.ContainsFunc(p.unet, t.Module.Within)
}

// Select returns the layers of base that a preset or, where there are any, globs choose, without those that exclude matches. A glob matches a whole
// path ("unet.…") or the name in adapter files; one that matches nothing is an error.
func Select(base *checkpoint.Model, name string, globs, exclude []string) ([]algos.Target, error) {
	all := Targets(base)
	var chosen func(Target) bool
	if len(globs) > 0 {
		if err := checkGlobs("targets", globs, all); err != nil {
			return nil, err
		}
		chosen = func(t Target) bool { return matchesAny(globs, t) }
	} else {
		i := slices.IndexFunc(presets, func(p preset) bool { return p.name == name })
		if i < 0 {
			return nil, fault.BadUsage("targets", "%q is not a preset", name).Advise("there are: %s", strings.Join(PresetNames(), ", "))
		}
		chosen = presets[i].has
	}
	if err := checkGlobs("exclude", exclude, all); err != nil {
		return nil, err
	}
	var out []algos.Target
	for _, t := range all {
		if chosen(t) && !matchesAny(exclude, t) {
			out = append(out, t.Target)
		}
	}
	return out, nil
}

// PresetNames lists the presets.
func PresetNames() []string {
	var names []string
	for _, p := range presets {
		names = append(names, p.name)
	}
	return names
}

func matchesAny(globs []string, t Target) bool {
	return slices.ContainsFunc(globs, func(g string) bool { return matches(g, t.Path) || matches(g, t.Name) })
}

// matches is path.Match; a path holds no slashes, so a star covers dots too. The pattern was checked before.
func matches(glob, name string) bool { ok, _ := path.Match(glob, name); return ok }

func checkGlobs(key string, globs []string, all []Target) error {
	for _, g := range globs {
		if _, err := path.Match(g, ""); err != nil {
			return fault.BadUsage(key, "%q is not a glob: %w", g, err)
		}
		if !slices.ContainsFunc(all, func(t Target) bool { return matchesAny([]string{g}, t) }) {
			return fault.BadUsage(key, "%q matches no layer of the model", g).Advise("a layer is called like %q", all[len(all)-1].Path)
		}
	}
	return nil
}

func asFault(err error, to **fault.Error) bool { return errors.As(err, to) }
