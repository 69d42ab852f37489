package adapter

import (
	"encoding/json"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"lycoris/internal/fault"
	"lycoris/internal/tensor"
)

// Names in the folders that peft's save_pretrained writes.
const (
	peftConfigName  = "adapter_config.json"
	peftTensorsName = "adapter_model.safetensors"
)

// TensorsFile returns the file with the tensors of the adapter at path: of a folder that peft wrote, the one inside; else path itself.
func TensorsFile(path string) string {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return filepath.Join(path, peftTensorsName)
	}
	return path
}

// peftConfig is what a peft folder says about its adapter, and its tensors don't.
type peftConfig struct {
	Type     string             `json:"peft_type"`
	Rank     float64            `json:"r"`
	Alpha    float64            `json:"alpha"`      // LoHa, LoKr
	Lora     float64            `json:"lora_alpha"` // LoRA
	RSLoRA   bool               `json:"use_rslora"`
	RankOf   map[string]float64 `json:"rank_pattern"`
	AlphaOf  map[string]float64 `json:"alpha_pattern"`
	patterns map[string]*regexp.Regexp
}

// readPeft reads the configuration beside the tensors of a peft adapter; nil where path is something else.
func readPeft(path string) (*peftConfig, error) {
	file := TensorsFile(path)
	if filepath.Base(file) != peftTensorsName {
		return nil, nil
	}
	config := filepath.Join(filepath.Dir(file), peftConfigName)
	text, err := os.ReadFile(config)
	switch {
	case errors.Is(err, fs.ErrNotExist) && file != path:
		return nil, fault.BadInput(path, "is a folder without %s", peftConfigName).Advise("pass an adapter: a .safetensors file, or a folder that peft wrote")
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil // the tensors alone
	case err != nil:
		return nil, fault.BadInput(config, "can't be read: %w", err)
	}
	c := &peftConfig{patterns: map[string]*regexp.Regexp{}}
	if err := json.Unmarshal(text, c); err != nil {
		return nil, fault.BadInput(config, "is not a peft configuration: %w", err)
	}
	if c.Type == "LORA" {
		c.Alpha = c.Lora
	} else if !slices.Contains([]string{"LOHA", "LOKR"}, c.Type) {
		return nil, fault.BadInput(config, "peft_type is %q, which this version doesn't read", c.Type).Advise("it reads LORA, LOHA and LOKR")
	}
	for _, patterns := range []map[string]float64{c.RankOf, c.AlphaOf} {
		for p := range patterns {
			// peft: re.match(rf"(.*\.)?({key})$", name)
			if c.patterns[p], err = regexp.Compile(`^(?:.*\.)?(?:` + p + `)$`); err != nil {
				return nil, fault.BadInput(config, "%q is not a pattern: %w", p, err)
			}
		}
	}
	if !(c.Rank > 0) {
		return nil, fault.BadInput(config, "r is %v, want 1 or more", c.Rank)
	}
	return c, nil
}

// of returns the value of the first pattern that a module's path matches, in order of the alphabet; other where none does.
func (c *peftConfig) of(patterns map[string]float64, path string, other float64) float64 {
	names := make([]string, 0, len(patterns))
	for p := range patterns {
		names = append(names, p)
	}
	slices.Sort(names)
	for _, p := range names {
		if c.patterns[p].MatchString(path) || c.patterns[p].MatchString(strings.TrimPrefix(path, "text_model.")) {
			return patterns[p]
		}
	}
	return other
}

// apply gives m the alpha of its configuration. Everything of peft is scaled by alpha/r, a LoKr of two whole factors too; those have no alpha in LyCORIS's files, so
// that one takes the scale up.
func (c *peftConfig) apply(m *Module) {
	path := m.Target.Module.Path
	rank, alpha := c.of(c.RankOf, path, c.Rank), c.of(c.AlphaOf, path, c.Alpha)
	if c.RSLoRA {
		alpha *= math.Sqrt(rank)
	}
	m.alpha, m.hasAlpha = alpha, true
	if m.Has("lokr_w1") && m.Has("lokr_w2") {
		m.whole = alpha / rank
	}
}

// scaled multiplies the values of t.
func scaled(t tensor.Tensor, by float64) tensor.Tensor {
	v := t.Float32()
	for i := range v {
		v[i] = float32(float64(v[i]) * by)
	}
	return tensor.FromFloat32(tensor.F32, t.Shape, v)
}

// magnitudes gives peft's vector of DoRA magnitudes, one per output, the shape of dora_scale for a weight of w's shape.
func magnitudes(t tensor.Tensor, w []int) tensor.Tensor {
	if len(w) == 0 || tensor.Elems(t.Shape) != w[0] {
		return t
	}
	shape := make([]int, len(w))
	for i := range shape {
		shape[i] = 1
	}
	shape[0] = w[0]
	t.Shape = shape
	return t
}
