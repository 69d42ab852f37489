package adapter

import (
	"os"
	"path/filepath"
	"testing"

	"lycoris/internal/fault"
	"lycoris/internal/tensor"
)

// What is wrong with a folder of peft's is said; what it writes is read in internal/network.
func TestBadPeftFolders(t *testing.T) {
	table := sd1()
	path := "base_model.model.mid_block.attentions.0.transformer_blocks.0.attn1.to_q."
	weights := keys(map[string][]int{path + "lora_A.weight": {4, 1280}, path + "lora_B.weight": {1280, 4}})
	for _, c := range []struct {
		name, config string
		tensors      []tensor.Named
		words        []string
	}{
		{"no configuration", "", weights, []string{"is a folder without adapter_config.json"}},
		{"no tensors", `{"peft_type":"LORA","r":4,"lora_alpha":4}`, nil, []string{"adapter_model.safetensors", "there is no such file"}},
		{"another kind", `{"peft_type":"VERA","r":4}`, weights, []string{"adapter_config.json", `peft_type is "VERA", which this version doesn't read`}},
		{"not JSON", `{"peft_type":`, weights, []string{"adapter_config.json", "is not a peft configuration"}},
		{"no rank", `{"peft_type":"LORA","lora_alpha":4}`, weights, []string{"r is 0, want 1 or more"}},
		{"not a pattern", `{"peft_type":"LORA","r":4,"alpha_pattern":{"to_(q":8}}`, weights, []string{`"to_(q" is not a pattern`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if c.config != "" {
				if err := os.WriteFile(filepath.Join(dir, peftConfigName), []byte(c.config), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if c.tensors != nil {
				if err := tensor.WriteFile(filepath.Join(dir, peftTensorsName), c.tensors, nil); err != nil {
					t.Fatal(err)
				}
			}
			_, err := Open(dir, table, loraSet)
			wantFault(t, err, fault.Input, c.words...)
		})
	}
}
