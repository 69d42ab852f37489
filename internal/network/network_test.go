package network

import (
	"testing"

	"lycoris/internal/arch"
)

// The counts are those of algorithms.md 14.4 for SD1.5: kohya's and LyCORIS's files have as many modules.
func TestPresetCounts(t *testing.T) {
	var all []Target
	for _, m := range arch.CLIPModules(arch.CLIPL()) {
		all = append(all, target(arch.TextEncoder, m))
	}
	for _, m := range arch.UNetModules(arch.SD15UNet()) {
		all = append(all, target(arch.UNet, m))
	}
	want := map[string][2]int{"full": {282, 72}, "full-lin": {230, 72}, "attn-mlp": {192, 72}, "attn-only": {128, 48}, "unet-only": {282, 0},
		"unet-transformer-only": {192, 0}, "unet-convblock-only": {88, 0}}
	if len(want) != len(presets) {
		t.Fatalf("%d presets, %d counts", len(presets), len(want))
	}
	for _, p := range presets {
		var got [2]int
		for _, x := range all {
			if x.Module.Kind != arch.Linear && x.Module.Kind != arch.Conv2d || !p.has(x) {
				continue
			}
			if x.Component == arch.UNet {
				got[0]++
			} else {
				got[1]++
			}
		}
		if got != want[p.name] {
			t.Errorf("%s: %v modules in UNet and text encoder, want %v", p.name, got, want[p.name])
		}
	}
}
