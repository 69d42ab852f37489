// Package textencoder builds CLIP text encoders as graphs.
//
// [Build] emits the transformer of an arch.CLIPConfig under the names of transformers' CLIPTextModel, with the text_model level. Its input are the
// embedded tokens ([Embed] makes them on the host: embeddings are never trained), its output the states that the UNet attends to. The tokenizer has a
// package of its own below this one.
//
// Radford et al., 2021 (CLIP); pre-norm blocks, causal attention.
package textencoder

import (
	"fmt"

	"lycoris/internal/arch"
	"lycoris/internal/graph"
	"lycoris/internal/kernels"
	"lycoris/internal/nn"
)

// Build emits the encoder on embedded tokens x [N,T,Width] and returns the states [N,T,Width]. clipSkip 1 is the last layer, 2 the one before, and so
// on; the final layer norm is applied in every case (the SD1 rule). Layers that are skipped are not built. Each layer is one segment.
func Build(b *nn.Builder, cfg arch.CLIPConfig, x *graph.Node, clipSkip int) *graph.Node {
	h := x
	for i := range cfg.Layers - (clipSkip - 1) {
		b.G.Segment(func() { h = layer(b, cfg, fmt.Sprintf("text_model.encoder.layers.%d", i), h) })
	}
	return b.LayerNorm("text_model.final_layer_norm", h, float32(cfg.NormEps))
}

func layer(b *nn.Builder, cfg arch.CLIPConfig, path string, h *graph.Node) *graph.Node {
	width := cfg.Width
	n := b.LayerNorm(path+".layer_norm1", h, float32(cfg.NormEps))
	q := b.Linear(path+".self_attn.q_proj", n, width, true, nn.Extra{})
	k := b.Linear(path+".self_attn.k_proj", n, width, true, nn.Extra{})
	v := b.Linear(path+".self_attn.v_proj", n, width, true, nn.Extra{})
	a := b.G.Attention(q, k, v, cfg.Heads, true)
	h = b.Linear(path+".self_attn.out_proj", a, width, true, nn.Extra{Add: h})
	n = b.LayerNorm(path+".layer_norm2", h, float32(cfg.NormEps))
	f := b.G.Activate(b.Linear(path+".mlp.fc1", n, cfg.Intermediate, true, nn.Extra{}), activation(cfg))
	return b.Linear(path+".mlp.fc2", f, width, true, nn.Extra{Add: h})
}

func activation(cfg arch.CLIPConfig) kernels.Activation {
	if cfg.Activation == "quick_gelu" {
		return kernels.QuickGELU
	}
	return kernels.GELU
}
