package adapter

import (
	"regexp"
	"strings"

	"lycoris/internal/tensor"
)

// algorithmOf tells the algorithm of a tensor by a part of its name, $ being the end; for messages about what this version doesn't read.
var algorithmOf = []struct{ part, name string }{
	{".lora_down.", "LoRA"}, {".lora_up.", "LoRA"}, {".lora_A.", "LoRA"}, {".lora_B.", "LoRA"}, {".lora.down.", "LoRA"}, {".lora.up.", "LoRA"},
	{"_lora.down.", "LoRA"}, {"_lora.up.", "LoRA"}, {".lora_linear_layer.", "LoRA"}, {".lora_mid.", "LoRA"},
	{".hada_", "LoHa"}, {".lokr_", "LoKr"}, {".glokr_", "GLoKr"}, {".on_input", "IA3"}, {".diff$", "full"}, {".diff_b$", "full"}, {".w_norm", "norm"}, {".b_norm", "norm"},
	{".oft_", "OFT or BOFT"}, {".a1.weight", "GLoRA"}, {".b1.weight", "GLoRA"}, {".lambda_layer", "T-LoRA"}, {".W_down", "HCP-Diffusion's LoRA"},
}

func suffixAlgorithm(key string) string {
	for _, a := range algorithmOf {
		if strings.Contains(key+"$", a.part) {
			return a.name
		}
	}
	return ""
}

// sdxlAdapter is what the marks of SDXL say.
const sdxlAdapter = "an SDXL adapter"

// familyMarks are parts of names in adapters of other families.
var familyMarks = []struct {
	mark *regexp.Regexp
	what string
}{
	{regexp.MustCompile(`^lora_te2_|^text_encoder_2\.|^(lora_unet|oft_unet)_(input|output)_blocks_\d+_|^(lora_unet|oft_unet)_middle_block_|^lora_unet_label_emb`), sdxlAdapter},
	{regexp.MustCompile(`^(lora_unet_|lycoris_|unet\.)(down_blocks|up_blocks)[._]\d[._]attentions[._]\d[._]transformer_blocks[._][1-9]`), sdxlAdapter},
	{regexp.MustCompile(`double_blocks[._]\d|single_transformer_blocks[._]\d`), "a Flux adapter"},
	{regexp.MustCompile(`joint_blocks[._]\d|^lora_te3_`), "an SD3 adapter"},
	{regexp.MustCompile(`^(transformer\.|lora_transformer_|diffusion_model\.(layers|blocks)\.)`), "an adapter of a diffusion transformer"},
}

// otherFamily says of which other family an adapter is; "" if nothing speaks against SD1. cross is the width of the model's text states: the
// cross attention of an adapter for another family reads another width.
func otherFamily(f *tensor.File, cross int) string {
	for _, name := range f.Names() {
		for _, m := range familyMarks {
			if m.mark.MatchString(name) {
				return m.what
			}
		}
	}
	for _, name := range f.Names() {
		if !strings.Contains(name, "attn2") || !strings.Contains(name, "to_k") || cross == 0 {
			continue
		}
		info, _ := f.Info(name)
		down := strings.HasSuffix(name, "lora_down.weight") || strings.HasSuffix(name, "lora_A.weight") || strings.HasSuffix(name, "lora.down.weight")
		if !down || len(info.Shape) != 2 || info.Shape[1] == cross {
			continue
		}
		switch info.Shape[1] {
		case 1024:
			return "an SD2 adapter"
		case 2048:
			return "an SDXL adapter"
		}
	}
	return ""
}
