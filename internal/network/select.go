package network

import (
	"errors"
	"path"
	"slices"

	"lycoris/internal/algos"
	"lycoris/internal/arch"
	"lycoris/internal/checkpoint"
	"lycoris/internal/fault"
)

// Choice is a layer that gets an adapter, with what its preset and the rules for single layers set for it.
type Choice struct {
	algos.Target
	Norm bool             // a norm: its gain and bias
	Set  []map[string]any // values by configuration key; later ones go before earlier ones
	LR   float64          // of the component's
}

// Rule is a rule for single layers.
type Rule struct {
	Match string // a glob
	Skip  bool
	LR    float64
	Set   map[string]any
}

// Selection says which layers are chosen.
type Selection struct {
	Preset  Preset
	Globs   []string // in place of the preset, where there are any
	Exclude []string // globs
	Rules   []Rule   // the first that matches a layer counts
	Norms   bool     // the norms inside the preset's blocks too
}

// Select returns the chosen layers of base, in the order of adapter files. A glob matches a whole path ("unet.…") or the name in adapter files; one that
// matches nothing is an error.
func Select(base *checkpoint.Model, s Selection) ([]Choice, error) {
	all := Targets(base)
	preset, err := s.Preset.compile()
	if err != nil {
		return nil, err
	}
	rules := make([]string, len(s.Rules))
	for i, r := range s.Rules {
		rules[i] = r.Match
	}
	for _, list := range []struct {
		key   string
		globs []string
	}{{"targets", s.Globs}, {"exclude", s.Exclude}, {"layers", rules}} {
		if err := checkGlobs(list.key, list.globs, all); err != nil {
			return nil, err
		}
	}
	var out []Choice
	for _, t := range all {
		c := Choice{Target: t.Target, Norm: t.IsNorm(), LR: 1}
		chosen := false
		switch {
		case c.Norm:
			chosen = s.Norms && (len(s.Globs) > 0 && matchesAny(s.Globs, t) || len(s.Globs) == 0 && preset.hasNorm(t))
		case len(s.Globs) > 0:
			chosen = matchesAny(s.Globs, t)
		default:
			var set map[string]any
			if set, chosen = preset.choose(t); set != nil {
				c.Set = append(c.Set, set)
			}
		}
		if i := slices.IndexFunc(s.Rules, func(r Rule) bool { return matchesAny([]string{r.Match}, t) }); i >= 0 {
			r := s.Rules[i]
			c.Set, c.LR, chosen = append(c.Set, r.Set), r.LR, chosen && !r.Skip
		}
		if chosen && !matchesAny(s.Exclude, t) {
			out = append(out, c)
		}
	}
	return out, nil
}

// IsNorm reports whether t is a GroupNorm or LayerNorm.
func (t Target) IsNorm() bool {
	return t.Module.Kind == arch.GroupNorm || t.Module.Kind == arch.LayerNorm
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
