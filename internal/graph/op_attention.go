package graph

import (
	"math"

	"lycoris/internal/kernels"
)

// Attention returns softmax(q·kᵀ/√D)·v per head: q [N,TQ,heads·D], k and v [N,TK,heads·D]; images [N,H,W,C] count as [N,H·W,C].
func (g *Graph) Attention(q, k, v *Node, heads int, causal bool) *Node {
	n, width := q.shape[0], q.Last()
	must(width%heads == 0 && k.Last() == width && v.Last() == width && k.Elems() == v.Elems() && k.shape[0] == n,
		"attention of %v, %v, %v with %d heads", q.shape, k.shape, v.shape, heads)
	d := width / heads
	s := kernels.Attention{N: n, Heads: heads, TQ: q.rows() / n, TK: k.rows() / n, D: d, Scale: float32(1 / math.Sqrt(float64(d))), Causal: causal}
	o := g.add(attention{s}, q.shape, q, k, v)
	g.output(o, n, heads, s.TQ)
	return o
}

type attention struct{ s kernels.Attention }

func (attention) name() string { return "attention" }
func (o attention) size() any  { return o.s }

func (o attention) run(b kernels.Backend, out, in [][]float32) {
	b.Attention(out[0], out[1], in[0], in[1], in[2], o.s)
}

func (o attention) grad(g *Graph, n, dy *Node, want []bool) []*Node {
	q, k, v := n.in[0], n.in[1], n.in[2]
	dq := g.add(attentionGrad(o), q.shape, dy, n, n.aux[0], q, k, v)
	return []*Node{dq, g.output(dq, k.shape...), g.output(dq, v.shape...)}
}

// attentionGrad has the outputs dq, dk, dv; those that nothing reads are not computed.
type attentionGrad struct{ s kernels.Attention }

func (attentionGrad) name() string { return "attention gradient" }
func (o attentionGrad) size() any  { return o.s }
func (attentionGrad) skips()       {}

func (o attentionGrad) run(b kernels.Backend, out, in [][]float32) {
	b.AttentionGrad(out[0], out[1], out[2], in[0], in[1], in[2], in[3], in[4], in[5], o.s)
}

func (attentionGrad) grad(*Graph, *Node, *Node, []bool) []*Node { panic("graph: second derivative") }
