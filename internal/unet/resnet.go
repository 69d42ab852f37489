package unet

import (
	"lycoris/internal/graph"
	"lycoris/internal/nn"
)

// resnet emits one residual block, one segment:
//
//	h   = conv1(silu(norm1(x))) + time_emb_proj(silu(t))
//	out = conv2(silu(norm2(h))) + shortcut(x)
//
// where shortcut is a 1×1 convolution if the channels change.
func (u *net) resnet(path string, x *graph.Node, out int) (h *graph.Node) {
	u.G.Segment(func() { h = u.residual(path, x, out) })
	return h
}

// resnetOnSkip is [net.resnet] on x joined with a skip connection.
func (u *net) resnetOnSkip(path string, x, skip *graph.Node, out int) (h *graph.Node) {
	u.G.Segment(func() { h = u.residual(path, u.G.Concat(x, skip), out) })
	return h
}

func (u *net) residual(path string, x *graph.Node, out int) *graph.Node {
	cfg, same := u.cfg, graph.ConvOptions{Pad: graph.SamePad(1)}
	emb := u.Linear(path+".time_emb_proj", u.emb, out, true, nn.Extra{})
	h := u.GroupNorm(path+".norm1", x, cfg.NormGroups, float32(cfg.NormEps), true)
	h = u.Conv2d(path+".conv1", h, out, 3, same, nn.Extra{PerItem: emb})
	h = u.GroupNorm(path+".norm2", h, cfg.NormGroups, float32(cfg.NormEps), true)
	if x.Last() != out {
		x = u.Conv2d(path+".conv_shortcut", x, out, 1, graph.ConvOptions{}, nn.Extra{})
	}
	return u.Conv2d(path+".conv2", h, out, 3, same, nn.Extra{Add: x})
}
