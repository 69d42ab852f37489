package graph

import "lycoris/internal/kernels"

// accumulate writes the gradient of a parameter: in[0], + in[1], which [Program.Sum] sets to what is there. It is left out where the op before can do that.
type accumulate struct{ p *Param }

func (o accumulate) name() string { return "accumulate " + o.p.Name }

func (accumulate) addSlot() int { return 1 }

func (o accumulate) run(b kernels.Backend, _, in [][]float32) {
	if in[1] == nil {
		b.Scale(o.p.Grad, in[0], 1)
	} else {
		b.Axpy(o.p.Grad, in[0], 1)
	}
}

func (accumulate) grad(*Graph, *Node, *Node, []bool) []*Node { panic("graph: second derivative") }
