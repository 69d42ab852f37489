package network

import (
	"path"
	"regexp"
	"slices"
	"strings"

	"lycoris/internal/arch"
	"lycoris/internal/fault"
)

// Preset says which layers of a model get an adapter, and what single ones set: LyCORIS's presets, built in and from files (algorithms.md 14.3).
//
// A module is chosen that lies within a block of one of the classes, or whose path one of the patterns matches. Patterns are regular expressions that have to
// fit the beginning of the path within the component, or globs of the whole.
type Preset struct {
	Name            string
	Conv            bool // kernels larger than one pixel too
	UNet, UNetNames []string
	Text, TextNames []string
	Exclude         []string
	Globs           bool
	ByClass, ByName []Overrides // in order; a name's go before a class's
}

// Overrides are settings of the modules of a class or pattern: values by configuration key.
type Overrides struct {
	Of  string
	Set map[string]any
}

var (
	resnet      = []string{"ResnetBlock2D"}
	transformer = []string{"Transformer2DModel"}
	resampling  = []string{"Downsample2D", "Upsample2D"}
	clip        = []string{"CLIPAttention", "CLIPMLP"}
	timeEmbed   = []string{`time_embedding\.linear_1$`, `time_embedding\.linear_2$`}
	ends        = []string{"conv_in$", "conv_out$"}
)

// presets are LyCORIS's (config.py, BUILTIN_PRESET_CONFIGS) with its classes mapped to ours; TimestepEmbedding is not a target, so that the counts are
// the ones of existing files. attn-only and ia3 choose what their names say: upstream's choose nothing in a diffusers UNet (14.4).
var presets = []Preset{
	{Name: "full", Conv: true, UNet: slices.Concat(transformer, resnet, resampling), UNetNames: slices.Concat(ends, timeEmbed), Text: clip},
	{Name: "full-lin", UNet: slices.Concat(transformer, resnet), UNetNames: timeEmbed, Text: clip},
	{Name: "attn-mlp", UNet: transformer, Text: clip},
	{Name: "attn-only", UNet: []string{"Attention"}, Text: []string{"CLIPAttention"}},
	{Name: "unet-only", Conv: true, UNet: slices.Concat(transformer, resnet, resampling), UNetNames: slices.Concat(ends, timeEmbed)},
	{Name: "unet-transformer-only", UNet: transformer},
	{Name: "unet-convblock-only", Conv: true, UNet: slices.Concat(resnet, resampling), UNetNames: ends},
	{Name: "ia3", UNetNames: []string{`.*\.to_k$`, `.*\.to_v$`, `.*\.ff\.net\.2$`}, TextNames: []string{`.*\.k_proj$`, `.*\.v_proj$`, `.*\.mlp\.fc2$`},
		ByName: []Overrides{{`.*\.ff\.net\.2$`, map[string]any{"on_input": true}}, {`.*\.mlp\.fc2$`, map[string]any{"on_input": true}}}},
}

// Presets lists the names of the built-in presets.
func Presets() []string {
	var names []string
	for _, p := range presets {
		names = append(names, p.Name)
	}
	return names
}

// PresetByName returns a built-in preset.
func PresetByName(name string) (Preset, error) {
	i := slices.IndexFunc(presets, func(p Preset) bool { return p.Name == name })
	if i < 0 {
		return Preset{}, fault.BadUsage("targets", "%q is not a preset", name).Advise("there are: %s", strings.Join(Presets(), ", "))
	}
	return presets[i], nil
}

// With returns p in which nil lists are those of the preset full, as a file leaves them that doesn't name them.
func (p Preset) With() Preset {
	full := presets[0]
	for _, list := range []struct{ to, from *[]string }{{&p.UNet, &full.UNet}, {&p.UNetNames, &full.UNetNames}, {&p.Text, &full.Text}, {&p.TextNames, &full.TextNames}} {
		if *list.to == nil {
			*list.to = *list.from
		}
	}
	return p
}

// chooser is a preset whose patterns are compiled.
type chooser struct {
	Preset
	patterns map[string]func(string) bool
}

func (p Preset) compile() (*chooser, error) {
	c := &chooser{p, map[string]func(string) bool{}}
	of := slices.Concat(p.UNetNames, p.TextNames, p.Exclude)
	for _, o := range p.ByName {
		of = append(of, o.Of)
	}
	for _, pattern := range of {
		if p.Globs {
			if _, err := path.Match(pattern, ""); err != nil {
				return nil, fault.BadUsage("targets", "%q is not a glob: %w", pattern, err)
			}
			c.patterns[pattern] = func(s string) bool { ok, _ := path.Match(pattern, s); return ok }
			continue
		}
		r, err := regexp.Compile("^(?:" + pattern + ")")
		if err != nil {
			return nil, fault.BadUsage("targets", "%q is not a regular expression: %w", pattern, err)
		}
		c.patterns[pattern] = r.MatchString
	}
	return c, nil
}

// matches reports whether a pattern fits t's path; a text encoder's path with or without its first level.
func (c *chooser) matches(pattern string, t Target) bool {
	paths := []string{t.Module.Path}
	if t.Component == arch.TextEncoder {
		paths = append(paths, strings.TrimPrefix(t.Module.Path, "text_model."))
	}
	return slices.ContainsFunc(paths, func(p string) bool { return p == pattern || c.patterns[pattern](p) })
}

// choose reports whether t gets an adapter, and what its preset sets for it.
func (c *chooser) choose(t Target) (set map[string]any, chosen bool) {
	is := func(patterns []string) bool {
		return slices.ContainsFunc(patterns, func(p string) bool { return c.matches(p, t) })
	}
	if is(c.Exclude) {
		return nil, false
	}
	classes, names := c.UNet, c.UNetNames
	if t.Component == arch.TextEncoder {
		classes, names = c.Text, c.TextNames
	}
	byName := is(names)
	if !byName && !slices.ContainsFunc(classes, t.Module.Within) {
		return nil, false
	}
	set = c.overrides(t, byName)
	if _, given := set["dim"]; t.HasWindow() && !c.Conv && !given {
		return nil, false
	}
	return set, true
}

// overrides returns what p sets for t: by its name where it was chosen by name, else by the innermost class.
func (c *chooser) overrides(t Target, byName bool) map[string]any {
	if byName {
		for _, o := range c.ByName {
			if o.Of == t.Module.Path {
				return o.Set
			}
		}
		for _, o := range c.ByName {
			if c.matches(o.Of, t) {
				return o.Set
			}
		}
	}
	for _, class := range slices.Backward(append(slices.Clone(t.Module.Classes), t.Module.Kind.String())) {
		for _, o := range c.ByClass {
			if o.Of == class {
				return o.Set
			}
		}
	}
	return nil
}

// hasNorm reports whether t, a norm, is trained with train_norm: it lies within a block of the classes.
func (c *chooser) hasNorm(t Target) bool {
	classes := c.UNet
	if t.Component == arch.TextEncoder {
		classes = c.Text
	}
	return slices.ContainsFunc(classes, t.Module.Within) && !slices.ContainsFunc(c.Exclude, func(p string) bool { return c.matches(p, t) })
}

// Chooser returns what says whether p chooses a layer, or a norm within its blocks, and what p sets for it.
func (p Preset) Chooser() (func(Target) (set map[string]any, chosen bool), error) {
	c, err := p.compile()
	if err != nil {
		return nil, err
	}
	return func(t Target) (map[string]any, bool) {
		if t.IsNorm() {
			return nil, c.hasNorm(t)
		}
		return c.choose(t)
	}, nil
}
