package network

import (
	"maps"
	"slices"
	"testing"

	"lycoris/internal/arch"
)

// sd15 returns every module of SD1.5 that can have an adapter.
func sd15() []Target {
	var all []Target
	for _, m := range arch.CLIPModules(arch.CLIPL()) {
		all = append(all, target(arch.TextEncoder, m))
	}
	for _, m := range arch.UNetModules(arch.SD15UNet()) {
		all = append(all, target(arch.UNet, m))
	}
	return slices.DeleteFunc(all, func(t Target) bool { return t.Module.Kind == arch.Embedding })
}

// count returns how many layers of UNet and text encoder p chooses, and how many norms.
func count(t *testing.T, p Preset) (layers, norms [2]int) {
	t.Helper()
	c, err := p.compile()
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range sd15() {
		i := 0
		if x.Component == arch.TextEncoder {
			i = 1
		}
		if x.IsNorm() {
			if c.hasNorm(x) {
				norms[i]++
			}
		} else if _, ok := c.choose(x); ok {
			layers[i]++
		}
	}
	return layers, norms
}

// The counts are those of algorithms.md 14.4 for SD1.5: kohya's and LyCORIS's files have as many modules.
func TestPresetCounts(t *testing.T) {
	want := map[string][2]int{"full": {282, 72}, "full-lin": {230, 72}, "attn-mlp": {192, 72}, "attn-only": {128, 48}, "unet-only": {282, 0},
		"unet-transformer-only": {192, 0}, "unet-convblock-only": {88, 0}, "ia3": {80, 36}}
	if len(want) != len(presets) {
		t.Fatalf("%d presets, %d counts", len(presets), len(want))
	}
	for _, p := range presets {
		got, _ := count(t, p)
		if got != want[p.Name] {
			t.Errorf("%s: %v modules in UNet and text encoder, want %v", p.Name, got, want[p.Name])
		}
	}
}

// Norms lie inside blocks: conv_norm_out and the text encoder's are never among them (algorithms.md 14.6). SD1.5 has 16 transformers with a group norm
// and three layer norms each, and 22 ResBlocks with two group norms.
func TestPresetNorms(t *testing.T) {
	if _, got := count(t, presets[0]); got != [2]int{16*4 + 22*2, 0} {
		t.Errorf("full: norms %v, want 108 and 0", got)
	}
}

// ia3 scales the inputs of what leads out of a feed-forward block, the outputs of the rest.
func TestIA3Inputs(t *testing.T) {
	p, err := PresetByName("ia3")
	if err != nil {
		t.Fatal(err)
	}
	c, err := p.compile()
	if err != nil {
		t.Fatal(err)
	}
	on := 0
	for _, x := range sd15() {
		if set, ok := c.choose(x); ok && set["on_input"] == true {
			on++
		}
	}
	if on != 16+12 {
		t.Errorf("%d layers on their inputs, want 28", on)
	}
}

// Names go before classes, inner classes before outer ones; an excluded path stays out; patterns fit the beginning, or as globs the whole.
func TestOverrides(t *testing.T) {
	p := Preset{UNet: []string{"Transformer2DModel", "ResnetBlock2D"}, UNetNames: []string{`.*attn2\.to_q`, "conv_in"}, Exclude: []string{`mid_block`},
		ByClass: []Overrides{{"Transformer2DModel", map[string]any{"algo": "loha"}}, {"Attention", map[string]any{"algo": "lokr"}}, {"ResnetBlock2D", map[string]any{"dim": 8}}},
		ByName:  []Overrides{{`.*to_q`, map[string]any{"algo": "full"}}}}
	c, err := p.compile()
	if err != nil {
		t.Fatal(err)
	}
	at := func(path string) (map[string]any, bool) {
		all := sd15()
		i := slices.IndexFunc(all, func(x Target) bool { return x.Component == arch.UNet && x.Module.Path == path })
		if i < 0 {
			t.Fatalf("no %s", path)
		}
		return c.choose(all[i])
	}
	for path, want := range map[string]map[string]any{
		"down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q": {"algo": "full"},
		"down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q": {"algo": "lokr"},
		"down_blocks.0.attentions.0.transformer_blocks.0.ff.net.2":   {"algo": "loha"},
		"down_blocks.0.resnets.0.conv1":                              {"dim": 8}, // conv off, but a rank of its own
		"conv_in":                                                    nil,        // a window, conv off
		"mid_block.attentions.0.transformer_blocks.0.attn2.to_q":     nil,
		"up_blocks.1.upsamplers.0.conv":                              nil,
	} {
		set, ok := at(path)
		if ok != (want != nil) || !maps.Equal(set, want) && want != nil {
			t.Errorf("%s: %v %v, want %v", path, set, ok, want)
		}
	}
	if _, err := (Preset{UNetNames: []string{"("}}).compile(); err == nil {
		t.Error("a pattern that is none was taken")
	}
	globs := Preset{UNetNames: []string{"*.to_q"}, Globs: true}
	if got, _ := count(t, globs); got != [2]int{32, 0} {
		t.Errorf("globs: %v, want 32 and 0", got)
	}
	full := Preset{Text: []string{}, Conv: true}.With()
	if got, _ := count(t, full); got != [2]int{282, 0} {
		t.Errorf("what a file doesn't name: %v, want 282 and 0", got)
	}
}
