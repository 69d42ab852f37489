package adapter

import (
	"slices"
	"strings"
	"sync"

	"lycoris/internal/arch"
	"lycoris/internal/tensor"
)

// foreignFamily says of which kind of model an adapter is that is none of Stable Diffusion's; "" if nothing speaks for one.
func foreignFamily(names []string) string {
	for _, name := range names {
		for _, m := range familyMarks {
			if m.what != sdxlAdapter && m.mark.MatchString(name) {
				return m.what
			}
		}
	}
	return ""
}

// componentOf tells a module's part of the model from its name.
func componentOf(name string) arch.Component {
	switch {
	case strings.HasPrefix(name, "lora_te2_"), strings.HasPrefix(name, "text_encoder_2."):
		return "text_encoder_2"
	case strings.HasPrefix(name, "lora_te"), strings.HasPrefix(name, "text_encoder."), strings.Contains(name, "self_attn"):
		return arch.TextEncoder
	}
	return arch.UNet
}

// dottedPath returns the layer's path of a dotted name, "" of a flat one.
func dottedPath(name string) string {
	if !strings.Contains(name, ".") {
		return ""
	}
	for _, prefix := range []string{"base_model.model.", "unet.", "text_encoder.", "text_encoder_2."} {
		name = strings.TrimPrefix(name, prefix)
	}
	return name
}

// family tells the model's family from names, then from widths, then from metadata.
func family(modules []*Module, meta map[string]string) string {
	inputs := map[string][]int{"attn2": nil, "text": nil}
	for _, m := range modules {
		name := m.Target.Name
		for _, mark := range familyMarks {
			if mark.what == sdxlAdapter && mark.mark.MatchString(name) {
				return "sdxl"
			}
		}
		shape := m.weightShape("")
		switch {
		case len(shape) < 2:
		case strings.Contains(name, "attn2") && (strings.HasSuffix(name, "to_k") || strings.HasSuffix(name, "to_v")):
			inputs["attn2"] = append(inputs["attn2"], shape[1])
		case strings.HasSuffix(name, "self_attn_q_proj") || strings.HasSuffix(name, "self_attn.q_proj"):
			inputs["text"] = append(inputs["text"], shape[1])
		}
	}
	has := func(what string, width int) bool { return slices.Contains(inputs[what], width) }
	version := meta["ss_base_model_version"]
	switch {
	case has("attn2", 2048) || has("text", 1280):
		return "sdxl"
	case has("attn2", 1024) || has("text", 1024):
		return "sd2"
	case has("attn2", 768):
		return "sd1"
	case strings.HasPrefix(version, "sdxl"):
		return "sdxl"
	case strings.HasPrefix(version, "sd_v2"), meta["ss_v2"] == "True":
		return "sd2"
	case strings.HasPrefix(version, "sd_v1"), has("text", 768):
		return "sd1"
	}
	return ""
}

// knownUNet returns the UNet layers of a family by flat name, diffusers' and LDM's; of SD1 where the family is unknown.
func knownUNet(family string) map[string]arch.Module {
	switch family {
	case "sd2":
		return unetSD2()
	case "sdxl":
		return unetSDXL()
	}
	return unetSD1()
}

var (
	unetSD1  = sync.OnceValue(func() map[string]arch.Module { return flatNames(arch.SD15UNet()) })
	unetSD2  = sync.OnceValue(func() map[string]arch.Module { return flatNames(arch.SD2UNet()) })
	unetSDXL = sync.OnceValue(func() map[string]arch.Module { return flatNames(arch.SDXLUNet()) })
)

func flatNames(c arch.UNetConfig) map[string]arch.Module {
	all := map[string]arch.Module{}
	for _, m := range arch.UNetModules(c) {
		all[flat(m.Path)], all[flat(m.LDM)] = m, m
	}
	return all
}

// knownModule finds the layer of the family that a module of the UNet is named after.
func (m *Module) knownModule(family string) (arch.Module, bool) {
	name := m.Target.Name
	if path := dottedPath(name); path != "" {
		name = flat(strings.TrimPrefix(path, "diffusion_model."))
	} else {
		for _, prefix := range append([]string{"unet_"}, namePrefixes...) {
			name = strings.TrimPrefix(strings.TrimPrefix(name, prefix), "unet_")
		}
	}
	found, ok := knownUNet(family)[name]
	return found, ok
}

// weightShape returns the shape of the weight that m changes, as far as its tensors and, for what they leave open, the name of its layer tell; nil where they don't.
func (m *Module) weightShape(family string) []int {
	shape := func(key string, axes int) []int {
		if s := m.Shape(key); len(s) >= axes {
			return s
		}
		return nil
	}
	join := func(o, i int, window []int) []int { return append([]int{o, i}, window...) }
	switch {
	case m.Has("lora_down.weight"):
		down, up, window := shape("lora_down.weight", 2), shape("lora_up.weight", 2), []int(nil)
		if down == nil || up == nil {
			return nil
		}
		window = down[2:]
		if mid := shape("lora_mid.weight", 4); mid != nil {
			window = mid[2:]
		}
		return join(up[0], down[1], window)
	case m.Has("hada_t1"):
		core, a, b := shape("hada_t1", 4), shape("hada_w1_a", 2), shape("hada_w1_b", 2)
		if core == nil || a == nil || b == nil {
			return nil
		}
		return join(a[1], b[1], core[2:])
	case m.Has("hada_w1_a"):
		a, b := shape("hada_w1_a", 2), shape("hada_w1_b", 2)
		if a == nil || b == nil {
			return nil
		}
		return m.unfold(family, a[0], tensor.Elems(b[1:]))
	case m.Has("lokr_w1") || m.Has("lokr_w1_a"):
		return m.kronShape(family)
	case m.Has("diff"):
		return shape("diff", 1)
	case m.Has("w_norm"):
		return shape("w_norm", 1)
	}
	return nil
}

// kronShape is weightShape of a Kronecker product.
func (m *Module) kronShape(family string) []int {
	var small, large []int // [L,M], [K,N·…] or [K,N,kh,kw]
	get := func(key string) []int {
		if s := m.Shape(key); len(s) >= 2 {
			return s
		}
		return []int{0, 0}
	}
	if small = get("lokr_w1"); m.Has("lokr_w1_a") {
		small = []int{get("lokr_w1_a")[0], get("lokr_w1_b")[1]}
	}
	switch {
	case m.Has("lokr_t2"):
		core := get("lokr_t2")
		large = append([]int{get("lokr_w2_a")[1], get("lokr_w2_b")[1]}, core[2:]...)
	case m.Has("lokr_w2"):
		large = get("lokr_w2")
	default:
		b := get("lokr_w2_b")
		shape := m.unfold(family, small[0]*get("lokr_w2_a")[0], small[1]*tensor.Elems(b[1:]))
		if len(b) > 2 {
			shape = append([]int{small[0] * get("lokr_w2_a")[0], small[1] * b[1]}, b[2:]...)
		}
		return shape
	}
	return append([]int{small[0] * large[0], small[1] * large[1]}, large[2:]...)
}

// unfold tells the shape of a weight of which the tensors give [O, I·kh·kw] only, from the layer that m is named after: the columns are the window's pixels of each
// input. A layer of another name counts as a Linear.
func (m *Module) unfold(family string, o, columns int) []int {
	known, ok := m.knownModule(family)
	if !ok || len(known.Shape) != 4 {
		return []int{o, columns}
	}
	if window := known.Shape[2:]; columns%tensor.Elems(window) == 0 {
		return append([]int{o, columns / tensor.Elems(window)}, window...)
	}
	return []int{o, columns}
}
