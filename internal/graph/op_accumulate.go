package graph

import "lycoris/internal/kernels"

// accumulate is the one op that writes outside the arena.
type accumulate struct{ p *Param }

func (o accumulate) name() string { return "accumulate " + o.p.Name }

func (o accumulate) run(b kernels.Backend, out, in [][]float32) { b.Axpy(o.p.Grad, in[0], 1) }

func (accumulate) grad(*Graph, *Node, *Node, []bool) []*Node { panic("graph: second derivative") }
