package inspect

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"lycoris/internal/loose"
	"lycoris/internal/tensor"
)

// Adapter is what the header of an adapter tells.
type Adapter struct {
	Family     string         `json:"family"` // sd1, sd2, sdxl
	Names      string         `json:"names"`  // how its tensors are named
	Prediction string         `json:"prediction,omitempty"`
	Modules    int            `json:"modules"`
	Parts      map[string]int `json:"parts"`    // modules of each component
	Possible   map[string]int `json:"possible"` // layers of each component in the full-size family
	Groups     []Group        `json:"groups"`
	NoAlpha    int            `json:"without_alpha"` // modules whose scale is therefore 1
	Embeddings []string       `json:"embeddings,omitempty"`
	Words      []Word         `json:"words,omitempty"` // the most frequent tags of its captions
	Norms      *Norms         `json:"norms,omitempty"`
}

// Group is modules that are alike.
type Group struct {
	Part      string   `json:"part"`
	Algorithm string   `json:"algorithm"`
	Layers    string   `json:"layers"` // linear, 1x1, 3x3, norm
	Rank      int      `json:"rank,omitempty"`
	Alpha     *float64 `json:"alpha"`            // null: none
	With      string   `json:"with,omitempty"`   // dora in, dora out, tucker, bias
	Blocks    string   `json:"blocks,omitempty"` // OFT's blocks
	Modules   int      `json:"modules"`
}

// Word is a tag with how often it stands in the captions.
type Word struct {
	Tag   string `json:"tag"`
	Count int    `json:"count"`
}

func describeAdapter(a *loose.Adapter, f *tensor.File) (*Adapter, error) {
	d := &Adapter{Family: a.Layers.Family, Names: naming(a), Modules: len(a.Modules), Parts: map[string]int{}, Possible: map[string]int{}, Embeddings: a.Extra,
		Prediction: f.Metadata()["modelspec.prediction_type"], Words: words(f.Metadata()["ss_tag_frequency"])}
	for c, n := range a.Parts() {
		d.Parts[string(c)] = n
	}
	for _, layer := range a.Layers.All() {
		if d.Parts[string(layer.Component)] > 0 && layer.Adaptable {
			d.Possible[string(layer.Component)]++
		}
	}
	groups := map[string]*Group{}
	for _, m := range a.Modules {
		g, err := group(m)
		if err != nil {
			return nil, err
		}
		if g.Alpha == nil && m.Algo.Name != "full" && m.Algo.Name != "norm" && m.Algo.Name != "ia3" {
			d.NoAlpha++
		}
		key, _ := json.Marshal(g) // a Group always marshals
		if groups[string(key)] == nil {
			groups[string(key)] = g
		}
		groups[string(key)].Modules++
	}
	for _, g := range groups {
		d.Groups = append(d.Groups, *g)
	}
	order := func(g Group) string { return fmt.Sprintf("%s %06d", g.Algorithm, g.Rank) }
	slices.SortFunc(d.Groups, func(a, b Group) int {
		return cmp.Or(cmp.Compare(partOrder(a.Part), partOrder(b.Part)), cmp.Compare(order(a), order(b)), cmp.Compare(layerOrder(a.Layers), layerOrder(b.Layers)),
			cmp.Compare(a.With, b.With), cmp.Compare(a.Blocks, b.Blocks), cmp.Compare(alphaText(a.Alpha), alphaText(b.Alpha)))
	})
	return d, nil
}

func partOrder(part string) int {
	return slices.Index([]string{"unet", "text_encoder", "text_encoder_2"}, part)
}

func layerOrder(layers string) int { return slices.Index([]string{"linear", "1x1", "3x3"}, layers) }

func alphaText(a *float64) string {
	if a == nil {
		return ""
	}
	return fmt.Sprint(*a)
}

// naming says how the tensors are named.
func naming(a *loose.Adapter) string {
	m := a.Modules[0]
	key := m.Key(m.Suffixes()[0])
	switch {
	case strings.HasPrefix(key, "lycoris_"):
		return "LyCORIS wrapper"
	case strings.HasPrefix(key, "oft_unet_"):
		return "kohya OFT"
	case strings.HasPrefix(key, "lora_"):
		for _, m := range a.Modules {
			name, _, _ := strings.Cut(m.Key(m.Suffixes()[0]), ".")
			if m.Layer.LDM != "" && name == "lora_unet_"+strings.ReplaceAll(m.Layer.LDM, ".", "_") && m.Layer.LDM != m.Layer.Path {
				return "kohya, UNet by LDM names"
			}
		}
		return "kohya"
	case strings.HasPrefix(key, "diffusion_model."), strings.HasPrefix(key, "text_encoders."):
		return "ComfyUI"
	case strings.HasPrefix(key, "base_model."):
		return "peft folder"
	}
	return "peft, diffusers"
}

// group describes one module.
func group(m *loose.Module) (*Group, error) {
	g := &Group{Part: string(m.Layer.Component), Algorithm: m.Algo.Name, Layers: layerKind(m)}
	alpha, ok, err := m.Alpha()
	if err != nil {
		return nil, err
	}
	if ok {
		g.Alpha = &alpha
	}
	for _, at := range []struct {
		suffix string
		axis   int
	}{{"lora_down.weight", 0}, {"hada_w1_b", 0}, {"lokr_w2_b", 0}, {"lokr_w1_b", 0}, {"q_layer.weight", 0}} {
		if s := m.Shape(at.suffix); len(s) > at.axis && g.Rank == 0 {
			g.Rank = s[at.axis]
		}
	}
	if s := m.Shape("a1.weight"); g.Rank == 0 && len(s) >= 2 && m.Has("a2.weight") {
		g.Rank = min(s[0], s[1])
	}
	if s := m.Shape("oft_blocks"); len(s) >= 3 {
		g.Blocks = strings.Trim(strings.ReplaceAll(fmt.Sprint(s), " ", "x"), "[]")
	}
	var with []string
	if m.Has("lora_mid.weight") || m.Has("hada_t1") || m.Has("lokr_t2") {
		with = append(with, "tucker")
	}
	if s := m.Shape("dora_scale"); s != nil {
		axis := "out"
		if len(s) > 1 && s[0] == 1 && s[1] > 1 {
			axis = "in"
		}
		with = append(with, "dora "+axis)
	}
	if m.Has("diff_b") {
		with = append(with, "bias")
	}
	if m.Has("rescale") {
		with = append(with, "rescale")
	}
	if g.Algorithm == "lokr" {
		with = append(with, kronKind(m))
	}
	g.With = strings.Join(with, ", ")
	return g, nil
}

// kronKind says which factors of a Kronecker product are whole.
func kronKind(m *loose.Module) string {
	switch one, two := m.Has("lokr_w1"), m.Has("lokr_w2"); {
	case one && two:
		return "both factors whole"
	case one:
		return "small factor whole"
	case two:
		return "large factor whole"
	}
	return "both factors split"
}

// layerKind says what the layer is, from its name and the factors.
func layerKind(m *loose.Module) string {
	if m.Algo.Name == "norm" {
		return "norm"
	}
	w := m.Layer.Window
	if s := m.WeightShape(); len(s) == 4 {
		w = s[2:]
	} else if len(s) == 2 && (w == nil || w[0]*w[1] == 1) {
		w = nil
	}
	if w == nil {
		return "linear"
	}
	return fmt.Sprintf("%dx%d", w[0], w[1])
}

// words returns the tags that stand most often in the captions, at most ten; what made the adapter respond is often the first.
func words(text string) []Word {
	var folders map[string]map[string]int
	if json.Unmarshal([]byte(text), &folders) != nil {
		return nil
	}
	count := map[string]int{}
	for _, tags := range folders {
		for tag, n := range tags {
			count[strings.TrimSpace(tag)] += n
		}
	}
	var all []Word
	for tag, n := range count {
		all = append(all, Word{tag, n})
	}
	slices.SortFunc(all, func(a, b Word) int { return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Tag, b.Tag)) })
	return all[:min(len(all), 10)]
}
