package extract

import (
	"fmt"
	"slices"
	"strings"

	"lycoris/internal/algos"
	"lycoris/internal/arch"
	"lycoris/internal/fault"
	"lycoris/internal/network"
	"lycoris/internal/tensor"
)

// secondText is the larger text encoder of SDXL.
const secondText arch.Component = "text_encoder_2"

// flatName is the module's name in adapter files: kohya's form, which has LDM names in an SDXL UNet and numbers where there are two text encoders.
func flatName(family string, c arch.Component, m arch.Module) string {
	prefix, path := "lora_te_", m.Path
	switch {
	case c == arch.UNet:
		prefix = "lora_unet_"
		if family == "sdxl" {
			path = m.LDM
		}
	case c == secondText:
		prefix = "lora_te2_"
	case family == "sdxl":
		prefix = "lora_te1_"
	}
	return prefix + strings.ReplaceAll(path, ".", "_")
}

// plan lists what is looked at, in the order of adapter files, and the parts that only one side has. Only headers are read.
func plan(base, tuned *Model, o *Options) (tasks []*task, missing []string, err error) {
	preset := "full"
	if o.Algorithm == "ia3" {
		preset = "ia3"
	}
	p, err := network.PresetByName(preset)
	if err != nil {
		return nil, nil, err
	}
	choose, err := p.Chooser()
	if err != nil {
		return nil, nil, err
	}
	for _, c := range base.Components {
		if o.Components != nil && !slices.Contains(o.Components, c) {
			continue
		}
		if !tuned.has(c) {
			missing = append(missing, string(c))
			continue
		}
		for _, m := range base.modules(c) {
			if m.Kind == arch.Embedding {
				continue
			}
			t := &task{component: c, module: m}
			t.Target = algos.Target{Path: string(c) + "." + m.Path, Name: flatName(base.Family, c, m), Shape: m.Shape, Bias: m.Bias, Stride: m.Stride, Pad: m.Pad}
			kind := c // what a preset knows
			if c == secondText {
				kind = arch.TextEncoder
			}
			set, chosen := choose(network.Target{Target: t.Target, Component: kind, Module: m})
			if !chosen {
				continue
			}
			t.onInput, _ = set["on_input"].(bool)
			t.leftOut = o.Algorithm != "full" && (t.HasWindow() && o.ConvDim == 0 || t.isNorm() && !o.Norms)
			if b, a := base.Channels, tuned.Channels; b != a && c == arch.UNet && m.Path == "conv_in" { // an inpainting model and one that isn't
				missing = append(missing, fmt.Sprintf("unet.conv_in (%d and %d input channels)", b, a))
				continue
			}
			if err := t.check(base, tuned); err != nil {
				return nil, nil, err
			}
			tasks = append(tasks, t)
		}
	}
	for _, c := range tuned.Components {
		if !base.has(c) {
			missing = append(missing, string(c))
		}
	}
	for _, c := range o.Components {
		if !base.has(c) && !tuned.has(c) {
			return nil, nil, fault.BadUsage("--parts", "these models have no %s", c)
		}
	}
	if len(tasks) == 0 {
		return nil, nil, fault.BadInput(tuned.Path, "has no part in common with the base %q", base.Path).Advise("pass two models that both have the UNet or a text encoder")
	}
	return tasks, missing, nil
}

// isNorm reports whether t is a norm.
func (t *task) isNorm() bool { return len(t.Shape) == 1 }

// HasWindow is algos.Target's, for norms too.
func (t *task) HasWindow() bool { return len(t.Shape) == 4 && t.Target.HasWindow() }

// check compares what the headers say of t's tensors.
func (t *task) check(base, tuned *Model) error {
	for _, param := range t.params() {
		b, inBase := base.values(t.component, t.module.Path, param)
		a, inTuned := tuned.values(t.component, t.module.Path, param)
		switch {
		case !inBase:
			return fault.BadInput(base.Path, "has no %s.%s", t.Path, param).Advise("pass two whole models of one family")
		case !inTuned:
			return fault.BadInput(tuned.Path, "has no %s.%s", t.Path, param).Advise("pass two whole models of one family")
		case !sameWeight(b.shape, a.shape):
			return fault.BadInput(tuned.Path, "%q has shape %v, in the base %q %v", t.Path, a.shape, base.Path, b.shape).Advise("pass the base that it was trained from")
		case !b.dtype.IsFloat() || !a.dtype.IsFloat():
			return fault.BadInput(tuned.Path, "%q is of type %s, in the base %s: not floating-point numbers", t.Path, a.dtype, b.dtype)
		}
	}
	return nil
}

// params are the names of t's tensors.
func (t *task) params() []string {
	if t.Bias {
		return []string{"weight", "bias"}
	}
	return []string{"weight"}
}

// start says that t will be read soon.
func (t *task) start(models ...*Model) {
	for _, m := range models {
		if v, ok := m.values(t.component, t.module.Path, "weight"); ok {
			v.start()
		}
	}
}

// bytes estimates the memory that working on t takes at once.
func (t *task) bytes(algorithm string) int64 {
	each := int64(4) // Δ
	switch {
	case t.leftOut:
		each = 0
	case algorithm != "lora":
		each += 4 // the base, or Δ rearranged
	}
	return each * int64(tensor.Elems(t.Shape))
}
