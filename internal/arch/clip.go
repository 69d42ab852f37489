package arch

import "fmt"

// CLIPConfig describes a CLIP text encoder (transformers' CLIPTextModel).
type CLIPConfig struct {
	VocabSize    int
	Width        int // hidden_size
	Intermediate int // width inside the MLP
	Layers       int
	Heads        int
	MaxPositions int     // tokens per prompt with BOS and EOS, 77
	Activation   string  // "quick_gelu" (CLIP-L) or "gelu" (OpenCLIP)
	NormEps      float64 // of every layer norm
}

// CLIPL returns the text encoder of SD1.x, the text half of openai/clip-vit-large-patch14.
func CLIPL() CLIPConfig {
	return CLIPConfig{VocabSize: 49408, Width: 768, Intermediate: 3072, Layers: 12, Heads: 12, MaxPositions: 77, Activation: "quick_gelu", NormEps: 1e-5}
}

// CLIPModules lists the modules of the text encoder in transformers' order.
func CLIPModules(c CLIPConfig) []Module {
	b := &builder{}
	same := func(name, class string, walk func()) { b.in(name, name, class, walk) }
	linear := func(name string, out, in int) { b.linear(name, name, out, in, true) }
	same("", "CLIPTextModel", func() {
		same("text_model", "CLIPTextTransformer", func() {
			same("embeddings", "CLIPTextEmbeddings", func() {
				b.embedding("token_embedding", "token_embedding", c.VocabSize, c.Width)
				b.embedding("position_embedding", "position_embedding", c.MaxPositions, c.Width)
			})
			same("encoder", "CLIPEncoder", func() {
				for i := range c.Layers {
					same(fmt.Sprint("layers.", i), "CLIPEncoderLayer", func() {
						same("self_attn", "CLIPAttention", func() {
							for _, name := range []string{"k_proj", "v_proj", "q_proj", "out_proj"} {
								linear(name, c.Width, c.Width)
							}
						})
						b.layerNorm("layer_norm1", "layer_norm1", c.Width)
						same("mlp", "CLIPMLP", func() {
							linear("fc1", c.Intermediate, c.Width)
							linear("fc2", c.Width, c.Intermediate)
						})
						b.layerNorm("layer_norm2", "layer_norm2", c.Width)
					})
				}
			})
			b.layerNorm("final_layer_norm", "final_layer_norm", c.Width)
		})
	})
	return b.modules
}
