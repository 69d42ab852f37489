package algos

import (
	"maps"
	"math"
	"strings"
	"testing"

	"lycoris/internal/fault"
	"lycoris/internal/tensor"
)

// A file whose tensors don't fit a layer is refused with one sentence that names the module and what is wrong.
func TestLoadErrors(t *testing.T) {
	linear := Target{Path: "unet.x", Name: "lora_unet_x", Shape: []int{8, 6}}
	conv := Target{Path: "unet.x", Name: "lora_unet_x", Shape: []int{8, 6, 3, 3}, Stride: 1, Pad: 1}
	type file = map[string][]int // shapes by key
	lora := file{keyUp: {8, 4}, keyDown: {4, 6}, keyAlpha: {}}
	locon := file{keyUp: {8, 4, 1, 1}, keyDown: {4, 6, 3, 3}, keyAlpha: {}}
	tucker := file{keyUp: {8, 4, 1, 1}, keyDown: {4, 6, 1, 1}, keyMid: {4, 4, 3, 3}, keyAlpha: {}}
	loha := file{keyHada1A: {8, 4}, keyHada1B: {4, 6}, keyHada2A: {8, 4}, keyHada2B: {4, 6}, keyAlpha: {}}
	lohaConv := file{keyHada1A: {8, 4}, keyHada1B: {4, 54}, keyHada2A: {8, 4}, keyHada2B: {4, 54}, keyAlpha: {}}
	lohaTucker := file{keyHada1A: {4, 8}, keyHada1B: {4, 6}, keyHada2A: {4, 8}, keyHada2B: {4, 6}, keyHadaT1: {4, 4, 3, 3}, keyHadaT2: {4, 4, 3, 3}, keyAlpha: {}}
	biased, gain := linear, Target{Path: "unet.x", Name: "lora_unet_x", Shape: []int{8}, Bias: true}
	biased.Bias = true
	full, norm := file{keyDiff: {8, 6}, keyDiffBias: {8}}, file{keyNormGain: {8}, keyNormBias: {8}}
	ia3 := file{keyIA3: {8}, keyOnInput: {}}
	glora := file{keyGLoRAA1: {6, 4}, keyGLoRAA2: {4, 6}, keyGLoRAB1: {8, 4}, keyGLoRAB2: {4, 6}, keyAlpha: {}}
	gloraTucker := file{keyGLoRAA1: {6, 4, 1, 1}, keyGLoRAA2: {4, 6, 1, 1}, keyGLoRAB1: {8, 4, 1, 1}, keyGLoRAB2: {4, 6, 1, 1}, keyGLoRABM: {4, 4, 3, 3}}
	oft := file{keyOFT: {4, 2, 2}, keyAlpha: {}}
	boft := file{keyOFT: {2, 2, 4, 4}, keyAlpha: {}}
	for _, c := range []struct {
		name   string
		algo   *Algorithm
		target Target
		whole  file
		change file   // nil: left out
		want   string // part of the message; "" = loads
	}{
		{"whole", &LoRA, linear, lora, nil, ""},
		{"whole", &LoRA, conv, locon, nil, ""},
		{"whole", &LoRA, conv, tucker, nil, ""},
		{"whole", &LoHa, linear, loha, nil, ""},
		{"whole", &LoHa, conv, lohaConv, nil, ""},
		{"whole", &LoHa, conv, lohaTucker, nil, ""},
		{"no alpha", &LoRA, linear, lora, file{keyAlpha: nil}, ""},
		{"no alpha", &LoHa, linear, loha, file{keyAlpha: nil}, ""},
		{"alpha of one element", &LoRA, linear, lora, file{keyAlpha: {1}}, ""},
		{"factors of a 1×1 kernel on a Linear", &LoRA, linear, lora, file{keyUp: {8, 4, 1, 1}, keyDown: {4, 6, 1, 1}}, ""},
		{"magnitudes per output", &LoRA, linear, lora, file{keyDoRA: {8, 1}}, ""},
		{"magnitudes per input", &LoHa, conv, lohaConv, file{keyDoRA: {1, 6, 1, 1}}, ""},

		{"whole", &IA3, linear, ia3, nil, ""},
		{"whole", &IA3, conv, file{keyIA3: {1, 8, 1, 1}, keyOnInput: {1}}, nil, ""},
		{"whole", &Full, biased, full, nil, ""},
		{"no diff_b", &Full, biased, full, file{keyDiffBias: nil}, ""},
		{"1×1 kernel on a Linear", &Full, linear, file{keyDiff: {8, 6, 1, 1}}, nil, ""},
		{"whole", &Norm, gain, norm, nil, ""},
		{"no b_norm", &Norm, gain, norm, file{keyNormBias: nil}, ""},

		{"whole", &DyLoRA, linear, lora, nil, ""},
		{"whole", &DyLoRA, conv, locon, nil, ""},
		{"up of a convolution without its window", &DyLoRA, conv, locon, file{keyUp: {8, 4}}, ""},
		{"no up", &DyLoRA, linear, lora, file{keyUp: nil}, keyUp},
		{"no down", &DyLoRA, linear, lora, file{keyDown: nil}, keyDown},
		{"up of another rank", &DyLoRA, linear, lora, file{keyUp: {8, 5}}, keyUp},

		{"whole", &GLoRA, linear, glora, nil, ""},
		{"old", &GLoRA, linear, file{keyGLoRAA1: {4, 6}, keyGLoRAA2: {6, 4}, keyGLoRAB1: {4, 6}, keyGLoRAB2: {8, 4}}, nil, ""},
		{"whole", &GLoRA, conv, gloraTucker, nil, ""},

		{"no a1", &GLoRA, linear, glora, file{keyGLoRAA1: nil}, keyGLoRAA1},
		{"no a2", &GLoRA, linear, glora, file{keyGLoRAA2: nil}, keyGLoRAA2},
		{"no b1", &GLoRA, linear, glora, file{keyGLoRAB1: nil}, keyGLoRAB1},
		{"no b2", &GLoRA, linear, glora, file{keyGLoRAB2: nil}, keyGLoRAB2},
		{"pairs of different ranks", &GLoRA, linear, glora, file{keyGLoRAB1: {8, 5}, keyGLoRAB2: {5, 6}}, keyGLoRAB1},
		{"a1 of another width", &GLoRA, linear, glora, file{keyGLoRAA1: {7, 4}}, keyGLoRAA1},
		{"core without a window", &GLoRA, linear, glora, file{keyGLoRABM: {4, 4, 1, 1}}, keyGLoRABM},
		{"core of another rank", &GLoRA, conv, gloraTucker, file{keyGLoRABM: {5, 4, 3, 3}}, keyGLoRABM},
		{"no weight", &IA3, linear, ia3, file{keyIA3: nil}, keyIA3},
		{"no on_input", &IA3, linear, ia3, file{keyOnInput: nil}, keyOnInput},
		{"on_input of two", &IA3, linear, ia3, file{keyOnInput: {2}}, keyOnInput},
		{"weight of another width", &IA3, linear, ia3, file{keyIA3: {6}}, keyIA3},
		{"no diff", &Full, biased, full, file{keyDiff: nil}, keyDiff},
		{"diff of another shape", &Full, biased, full, file{keyDiff: {6, 8}}, keyDiff},
		{"diff_b of another length", &Full, biased, full, file{keyDiffBias: {6}}, keyDiffBias},
		{"diff_b without a bias", &Full, linear, full, nil, keyDiffBias},
		{"a norm's on a layer", &Norm, linear, norm, nil, keyNormGain},
		{"no w_norm", &Norm, gain, norm, file{keyNormGain: nil}, keyNormGain},
		{"w_norm of another length", &Norm, gain, norm, file{keyNormGain: {6}}, keyNormGain},
		{"b_norm of another length", &Norm, gain, norm, file{keyNormBias: {6}}, keyNormBias},

		{"no up", &LoRA, linear, lora, file{keyUp: nil}, keyUp},
		{"no down", &LoRA, linear, lora, file{keyDown: nil}, keyDown},
		{"down of another width", &LoRA, linear, lora, file{keyDown: {4, 7}}, keyDown},
		{"up of another width", &LoRA, linear, lora, file{keyUp: {9, 4}}, keyUp},
		{"up the wrong way round", &LoRA, linear, lora, file{keyUp: {4, 8}}, keyUp},
		{"up of another rank", &LoRA, linear, lora, file{keyUp: {8, 5}}, keyUp},
		{"rank 0", &LoRA, linear, lora, file{keyUp: {8, 0}, keyDown: {0, 6}}, keyDown},
		{"down of one axis", &LoRA, linear, lora, file{keyDown: {24}}, keyDown},
		{"down a number", &LoRA, linear, lora, file{keyDown: {}}, keyDown},
		{"up a number", &LoRA, linear, lora, file{keyUp: {}}, keyUp},
		{"two alphas", &LoRA, linear, lora, file{keyAlpha: {2}}, keyAlpha},
		{"no number in alpha", &LoRA, linear, lora, file{keyAlpha: {0}}, keyAlpha},
		{"alpha not a number", &LoRA, linear, lora, nil, keyAlpha},
		{"another window", &LoRA, conv, locon, file{keyDown: {4, 6, 1, 1}}, keyDown},
		{"core of another rank", &LoRA, conv, tucker, file{keyMid: {5, 4, 3, 3}}, keyMid},
		{"core without a window", &LoRA, linear, lora, file{keyMid: {4, 4, 1, 1}}, keyMid},
		{"magnitudes of another axis", &LoRA, linear, lora, file{keyDoRA: {7, 1}}, keyDoRA},
		{"magnitudes of one axis", &LoRA, linear, lora, file{keyDoRA: {8}}, keyDoRA},
		{"magnitudes per weight", &LoHa, conv, lohaConv, file{keyDoRA: {8, 6, 1, 1}}, keyDoRA},

		{"no w1_a", &LoHa, linear, loha, file{keyHada1A: nil}, keyHada1A},
		{"no w1_b", &LoHa, linear, loha, file{keyHada1B: nil}, keyHada1B},
		{"no w2_a", &LoHa, linear, loha, file{keyHada2A: nil}, keyHada2A},
		{"no w2_b", &LoHa, linear, loha, file{keyHada2B: nil}, keyHada2B},
		{"ranks that differ", &LoHa, linear, loha, file{keyHada2A: {8, 5}, keyHada2B: {5, 6}}, keyHada2A},
		{"rank 0", &LoHa, linear, loha, file{keyHada1A: {8, 0}, keyHada1B: {0, 6}}, keyHada1B},
		{"w1_b of another width", &LoHa, conv, lohaConv, file{keyHada1B: {4, 6}}, keyHada1B},
		{"w1_a the wrong way round", &LoHa, linear, loha, file{keyHada1A: {4, 8}}, keyHada1A},
		{"two alphas", &LoHa, linear, loha, file{keyAlpha: {1, 2}}, keyAlpha},
		{"one core", &LoHa, conv, lohaTucker, file{keyHadaT1: nil}, keyHadaT1},
		{"the other core", &LoHa, conv, lohaTucker, file{keyHadaT2: nil}, keyHadaT2},
		{"core without a window", &LoHa, linear, loha, file{keyHadaT1: {4, 4, 1, 1}, keyHadaT2: {4, 4, 1, 1}}, keyHadaT1},
		{"core of another window", &LoHa, conv, lohaTucker, file{keyHadaT1: {4, 4, 5, 3}}, keyHadaT1},

		{"whole", &DiagOFT, linear, oft, nil, ""},
		{"whole", &BOFT, conv, boft, nil, ""},
		{"no constraint", &DiagOFT, linear, oft, file{keyAlpha: nil}, ""},
		{"no constraint", &BOFT, linear, boft, file{keyAlpha: nil}, ""},
		{"rescaled", &DiagOFT, linear, oft, file{keyRescale: {8, 1}}, ""},
		{"rescaled", &BOFT, conv, boft, file{keyRescale: {8, 1, 1, 1}}, ""},
		{"rotations themselves", &DiagOFT, linear, file{keyOldOFT: {1, 8, 8}}, nil, ""},
		{"fewer stages", &BOFT, linear, boft, file{keyOFT: {1, 2, 4, 4}}, ""},
		{"no blocks", &DiagOFT, linear, oft, file{keyOFT: nil}, keyOFT},
		{"no blocks", &BOFT, linear, boft, file{keyOFT: nil}, keyOFT},
		{"blocks of another width", &DiagOFT, linear, oft, file{keyOFT: {3, 2, 2}}, keyOFT},
		{"blocks of another width", &BOFT, linear, boft, file{keyOFT: {2, 2, 2, 2}}, keyOFT},
		{"blocks that aren't square", &DiagOFT, linear, oft, file{keyOFT: {4, 2, 1}}, keyOFT},
		{"blocks that aren't square", &BOFT, linear, boft, file{keyOFT: {2, 2, 4, 2}}, keyOFT},
		{"no elements", &DiagOFT, linear, oft, file{keyOFT: {0, 2, 2}}, keyOFT},
		{"no stage", &BOFT, linear, boft, file{keyOFT: {0, 2, 4, 4}}, keyOFT},
		{"too many stages", &BOFT, linear, boft, file{keyOFT: {3, 2, 4, 4}}, keyOFT},
		{"odd blocks", &BOFT, linear, boft, file{keyOFT: {4, 8, 1, 1}}, keyOFT},
		{"factors of another width", &DiagOFT, linear, oft, file{keyRescale: {7, 1}}, keyRescale},
		{"two constraints", &BOFT, linear, boft, file{keyAlpha: {2}}, keyAlpha},
	} {
		t.Run(c.algo.Name+"/"+c.name, func(t *testing.T) {
			shapes := maps.Clone(c.whole)
			maps.Copy(shapes, c.change)
			tensors := map[string]tensor.Tensor{}
			for key, shape := range shapes {
				if shape != nil {
					values := make([]float32, tensor.Elems(shape))
					if c.name == "alpha not a number" && key == keyAlpha {
						values[0] = float32(math.NaN())
					}
					tensors[key] = tensor.FromFloat32(tensor.F32, shape, values)
				}
			}
			a, err := c.algo.Load(c.target, tensors, Options{})
			switch {
			case c.want == "" && (err != nil || a == nil):
				t.Errorf("%v, %v", a, err)
			case c.want != "" && (err == nil || fault.KindOf(err) != fault.Input || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), `"lora_unet_x"`)):
				t.Errorf("%v, want a fault of the input about %q and %s", err, c.target.Name, c.want)
			}
		})
	}
}
