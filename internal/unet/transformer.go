package unet

import (
	"fmt"

	"lycoris/internal/arch"
	"lycoris/internal/graph"
	"lycoris/internal/nn"
)

// transformer emits one spatial transformer, one segment: group norm, projection in, transformer blocks on the pixels as tokens, projection out, + x.
func (u *net) transformer(path string, x *graph.Node, heads, depth int) (h *graph.Node) {
	u.G.Segment(func() {
		c := x.Last()
		h = u.GroupNorm(path+".norm", x, u.cfg.NormGroups, arch.TransformerNormEps, false)
		h = u.project(path+".proj_in", h, c, nn.Extra{})
		for k := range depth {
			h = u.block(fmt.Sprintf("%s.transformer_blocks.%d", path, k), h, heads)
		}
		h = u.project(path+".proj_out", h, c, nn.Extra{Add: x})
	})
	return h
}

// project is a Linear or a 1×1 convolution, by family; on channels-last pixels both are the same product.
func (u *net) project(path string, x *graph.Node, out int, extra nn.Extra) *graph.Node {
	if u.cfg.LinearProjection {
		return u.Linear(path, x, out, true, extra)
	}
	return u.Conv2d(path, x, out, 1, graph.ConvOptions{}, extra)
}

// block emits self-attention, cross-attention and a GEGLU feed-forward, each on a layer norm and added to its input. h is [N,H,W,C].
func (u *net) block(path string, h *graph.Node, heads int) *graph.Node {
	const eps = 1e-5
	n := u.LayerNorm(path+".norm1", h, eps)
	h = u.attention(path+".attn1", n, n, heads, h)
	n = u.LayerNorm(path+".norm2", h, eps)
	h = u.attention(path+".attn2", n, u.context, heads, h)
	n = u.LayerNorm(path+".norm3", h, eps)
	c := h.Last()
	f := u.G.GEGLU(u.Linear(path+".ff.net.0.proj", n, 8*c, true, nn.Extra{}))
	return u.Linear(path+".ff.net.2", f, c, true, nn.Extra{Add: h})
}

// attention emits multi-head attention of x on context; the projections of q, k and v have no bias. add is the residual.
func (u *net) attention(path string, x, context *graph.Node, heads int, add *graph.Node) *graph.Node {
	c := x.Last()
	q := u.Linear(path+".to_q", x, c, false, nn.Extra{})
	k := u.Linear(path+".to_k", context, c, false, nn.Extra{})
	v := u.Linear(path+".to_v", context, c, false, nn.Extra{})
	a := u.G.Attention(q, k, v, heads, false)
	return u.Linear(path+".to_out.0", a, c, true, nn.Extra{Add: add})
}
