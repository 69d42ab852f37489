package graph

import (
	"slices"

	"lycoris/internal/kernels"
)

// PlanOptions say how to trade memory for work.
type PlanOptions struct {
	Recompute bool // checkpointing: the values inside segments are recomputed for the gradient
}

// Plan is a program that has an order and a place for every buffer, but no memory yet: it is made from shapes alone.
type Plan struct {
	steps   []*Node          // in execution order, without leaves, views and aux outputs
	outputs []*Node          // what Program.Output returns
	inputs  map[string]*Node // by name
	buffers []*buffer        // everything in the arena
	of      map[*Node]*buffer
	floats  int              // arena size
	skipped map[*Node]bool   // outputs that nothing reads and their op can leave out
	into    map[*Node]*Param // nodes that are computed in the parameter's gradient itself
}

// buffer is one stretch of the arena and the steps [first,last] between which it is in use.
type buffer struct {
	size, offset int
	first, last  int
	pinned       bool // an output: never taken over
}

// skipper is an op that gets nil for outputs that nothing reads and then doesn't compute them.
type skipper interface{ skips() }

// alignment of buffers in floats: one cache line.
const alignment = 16

// NewPlan orders what outputs need and places it. Sinks such as [Graph.Accumulate] count as outputs.
//
// Order is the order of building. With Recompute, a gradient node that needs the inside of a segment gets a copy of that part of the segment, which runs
// right before it; values that leave a segment are kept.
func NewPlan(g *Graph, outputs []*Node, opt PlanOptions) *Plan {
	order := needed(g, outputs)
	if opt.Recompute || g.hasTransient {
		order, outputs = recompute(order, outputs, opt.Recompute)
	}
	p := &Plan{outputs: outputs, inputs: map[string]*Node{}, of: map[*Node]*buffer{}, skipped: map[*Node]bool{}, into: map[*Node]*Param{}}
	for _, n := range order {
		switch o := n.op.(type) {
		case inputLeaf:
			p.inputs[o.label] = n
		case paramLeaf, vectorLeaf, view, auxOutput:
		default:
			p.steps = append(p.steps, n)
		}
	}
	p.writeGradients()
	p.place(order)
	return p
}

// writeGradients lets ops whose result only a sink reads write it where it belongs, if they can add what is there, and drops those sinks.
func (p *Plan) writeGradients() {
	reads := map[*Node]int{} // of roots
	for _, n := range p.steps {
		for _, in := range n.in {
			if in != nil {
				r, _ := root(in)
				reads[r]++
			}
		}
	}
	for _, o := range p.outputs {
		r, _ := root(o)
		reads[r]++
	}
	p.steps = slices.DeleteFunc(p.steps, func(n *Node) bool {
		sink, ok := n.op.(accumulate)
		if !ok {
			return false
		}
		r, offset := root(n.in[0])
		a, ok := r.op.(adder)
		if !ok || offset != 0 || reads[r] > 1 || r.Elems() != n.in[0].Elems() || r.in[a.addSlot()] != nil {
			return false
		}
		p.into[r] = sink.p
		return true
	})
}

// gradient returns the parameter whose gradient step n writes; nil for none.
func (p *Plan) gradient(n *Node) *Param {
	if sink, ok := n.op.(accumulate); ok {
		return sink.p
	}
	return p.into[n]
}

// needed returns the nodes that outputs depend on, in order of building.
func needed(g *Graph, outputs []*Node) []*Node {
	keep := make([]bool, len(g.nodes))
	for _, o := range outputs {
		keep[o.id] = true
	}
	var order []*Node
	for _, n := range slices.Backward(g.nodes) {
		if !keep[n.id] {
			continue
		}
		order = append(order, n)
		for _, in := range n.in {
			if in != nil {
				keep[in.id] = true
			}
		}
	}
	slices.Reverse(order)
	return order
}

// recompute returns order and outputs with transient nodes and, with segments, the insides of segments computed again for the gradient nodes that read
// them. The graph itself stays as it is: gradient nodes are copied.
func recompute(order, outputs []*Node, segments bool) ([]*Node, []*Node) {
	kept := map[*Node]bool{} // read by a forward node outside its segment
	for _, n := range order {
		for _, in := range n.in {
			if in != nil && in.segment != 0 && in.segment != n.segment && !n.backward && !in.transient {
				kept[in] = true
			}
		}
	}
	for _, o := range outputs {
		kept[o] = true
	}
	r := &recomputation{kept: kept, segments: segments, copies: map[*Node]*Node{}}
	for _, n := range order {
		switch {
		case !n.backward:
			r.order = append(r.order, n)
		case !isAux(n): // aux outputs come with their owner
			r.copy(n)
		}
	}
	outputs = slices.Clone(outputs)
	for i, o := range outputs {
		if o.backward {
			outputs[i] = r.operand(o)
		}
	}
	return r.order, outputs
}

// recomputation collects the new order; copies holds the stand-in of each gradient node and of each recomputed forward node.
type recomputation struct {
	order    []*Node
	kept     map[*Node]bool
	segments bool
	copies   map[*Node]*Node
}

// again reports whether n is computed again; a view goes with what it shows.
func (r *recomputation) again(n *Node) bool {
	if _, ok := n.op.(view); ok && r.again(n.in[0]) {
		return true
	}
	return (n.transient || r.segments && n.segment != 0) && !r.kept[n]
}

// operand returns what a gradient node reads in place of n.
func (r *recomputation) operand(n *Node) *Node {
	if n == nil || r.copies[n] != nil {
		return r.copies[n]
	}
	if a, ok := n.op.(auxOutput); ok {
		if !r.again(n.in[0]) {
			return n
		}
		return r.operand(n.in[0]).aux[a.index]
	}
	if !r.again(n) {
		return n
	}
	return r.copy(n)
}

// copy appends a stand-in of n whose operands are stand-ins.
func (r *recomputation) copy(n *Node) *Node {
	c := &Node{id: n.id, op: n.op, shape: n.shape, backward: true, in: make([]*Node, len(n.in))}
	for i, in := range n.in {
		c.in[i] = r.operand(in)
	}
	r.copies[n] = c
	r.order = append(r.order, c)
	for _, a := range n.aux {
		ca := &Node{id: a.id, op: a.op, shape: a.shape, backward: true, in: []*Node{c}}
		c.aux = append(c.aux, ca)
		r.copies[a] = ca
		r.order = append(r.order, ca)
	}
	return c
}

// root follows views to the node that owns the memory and returns the offset in it.
func root(n *Node) (*Node, int) {
	offset := 0
	for {
		v, ok := n.op.(view)
		if !ok {
			return n, offset
		}
		offset += v.offset
		n = n.in[0]
	}
}

// place finds lifetimes, lets outputs take over the buffers of inputs that end with them, and lays everything out.
func (p *Plan) place(order []*Node) {
	at := map[*Node]int{} // step number
	for i, n := range p.steps {
		at[n] = i
	}
	last := map[*Node]int{} // last step that reads a root
	for i, n := range p.steps {
		for _, in := range n.in {
			if in != nil {
				r, _ := root(in)
				last[r] = i
			}
		}
	}
	pinned := map[*Node]bool{}
	for _, o := range p.outputs {
		r, _ := root(o)
		last[r] = len(p.steps)
		pinned[r] = true
	}
	for _, n := range order {
		size := n.Elems()
		if _, ok := n.op.(inputLeaf); ok {
			p.buffer(n, size, -1, last[n], pinned[n])
		}
	}
	for i, n := range p.steps {
		_, skips := n.op.(skipper)
		for j, out := range append([]*Node{n}, n.aux...) {
			_, read := last[out]
			switch {
			case skips && !read:
				p.skipped[out] = true
			case p.into[out] != nil:
			case out.Elems() == 0 || j == 0 && p.takeOver(n, i, last, pinned):
			default:
				p.buffer(out, out.Elems(), i, max(i, last[out]), pinned[out])
			}
		}
	}
	p.floats = layOut(p.buffers)
}

func (p *Plan) buffer(n *Node, size, first, last int, pinned bool) {
	b := &buffer{size: (size + alignment - 1) / alignment * alignment, first: first, last: last, pinned: pinned}
	p.buffers = append(p.buffers, b)
	p.of[n] = b
}

// takeOver gives n, step i, the buffer of an operand that no later step reads.
func (p *Plan) takeOver(n *Node, i int, last map[*Node]int, pinned map[*Node]bool) bool {
	o, ok := n.op.(inPlacer)
	if !ok {
		return false
	}
	for _, slot := range o.inPlace() {
		in := n.in[slot]
		if in == nil {
			continue
		}
		r, offset := root(in)
		b := p.of[r]
		if b == nil || offset != 0 || last[r] != i || b.pinned || b.last != i || r.Elems() != n.Elems() || reads(n, r) != 1 {
			continue
		}
		b.last, b.pinned = max(i, last[n]), pinned[n]
		p.of[n] = b
		return true
	}
	return false
}

// reads counts the operands of n that live in r.
func reads(n, r *Node) int {
	count := 0
	for _, in := range n.in {
		if in != nil {
			if x, _ := root(in); x == r {
				count++
			}
		}
	}
	return count
}

// layOut gives each buffer an offset so that buffers whose lives meet don't overlap, and returns the size of the whole. Largest first, each at the
// lowest place that is free for all its life.
func layOut(buffers []*buffer) int {
	bySize := slices.Clone(buffers)
	slices.SortStableFunc(bySize, func(a, b *buffer) int {
		if a.size != b.size {
			return b.size - a.size
		}
		return a.first - b.first
	})
	total := 0
	var placed []*buffer // by offset
	for _, b := range bySize {
		offset := 0
		for _, q := range placed {
			if q.last < b.first || b.last < q.first {
				continue
			}
			if offset+b.size <= q.offset {
				break
			}
			offset = max(offset, q.offset+q.size)
		}
		b.offset = offset
		total = max(total, offset+b.size)
		i, _ := slices.BinarySearchFunc(placed, b, func(x, y *buffer) int { return x.offset - y.offset })
		placed = slices.Insert(placed, i, b)
	}
	return total
}

// ArenaBytes returns the memory that all buffers take together.
func (p *Plan) ArenaBytes() int64 { return int64(p.floats) * 4 }

// ScratchBytes returns what the kernels of b need beside the arena.
func (p *Plan) ScratchBytes(b kernels.Backend) int64 {
	var most int64
	for _, n := range p.steps {
		if s, ok := n.op.(sizer); ok {
			most = max(most, b.ScratchBytes(s.size()))
		}
	}
	return most
}

// Steps returns the number of kernel calls of one run.
func (p *Plan) Steps() int { return len(p.steps) }
