package graph

// Grad builds the gradient of Σ outputs[i]·seeds[i] with respect to each node of wrt and returns one node each, nil where outputs don't depend on
// it. Only branches that reach wrt are built: a frozen weight never costs a gradient, and nothing is built below the earliest node of wrt.
//
// Where several gradients meet in one node the later one takes the sum of the earlier into its own add operand if its op has one.
func (g *Graph) Grad(outputs, seeds, wrt []*Node) []*Node {
	result := make([]*Node, len(wrt))
	g.grad(outputs, seeds, wrt, func(i int, d *Node) { result[i] = d })
	return result
}

// GradInto is Grad for leaves of params, whose gradients are accumulated as soon as they are whole, so that none waits for the end. It returns the sinks.
func (g *Graph) GradInto(outputs, seeds, leaves []*Node, params []*Param) []*Node {
	var sinks []*Node
	g.grad(outputs, seeds, leaves, func(i int, d *Node) {
		if d != nil {
			sinks = append(sinks, g.Accumulate(params[i], d))
		}
	})
	return sinks
}

// grad calls found for each node of wrt when its gradient is whole, nil where there is none: later nodes of the graph first.
func (g *Graph) grad(outputs, seeds, wrt []*Node, found func(i int, d *Node)) {
	reaches := make([]bool, len(g.nodes)) // depends on a node of wrt
	for _, w := range wrt {
		reaches[w.id] = true
	}
	forward := len(g.nodes)
	for _, n := range g.nodes {
		for _, in := range n.in {
			if in != nil && reaches[in.id] {
				reaches[n.id] = true
			}
		}
	}
	g.backward = true
	defer func() { g.backward = false }()
	grads := make([]*Node, forward)
	for i, o := range outputs {
		mustSame("gradient seed", o, seeds[i])
		grads[o.id] = g.sum(grads[o.id], seeds[i], len(g.nodes))
	}
	at := make(map[int][]int, len(wrt)) // of nodes, in wrt
	for i, w := range wrt {
		at[w.id] = append(at[w.id], i)
	}
	for id := forward - 1; id >= 0; id-- {
		n, dy := g.nodes[id], grads[id]
		for _, i := range at[id] {
			found(i, dy)
		}
		if dy == nil || !reaches[id] || isLeaf(n) {
			continue
		}
		want := make([]bool, len(n.in))
		any := false
		for i, in := range n.in {
			want[i] = in != nil && reaches[in.id]
			any = any || want[i]
		}
		if !any {
			continue
		}
		fresh := len(g.nodes)
		for i, d := range n.op.grad(g, n, dy, want) {
			if d != nil && i < len(want) && want[i] {
				grads[n.in[i].id] = g.sum(grads[n.in[i].id], d, fresh)
			}
		}
	}
}

// sum adds d to the gradient known so far. A d built since node number fresh belongs to this sum alone and may take it as its add operand.
func (g *Graph) sum(known, d *Node, fresh int) *Node {
	if known == nil {
		return d
	}
	if a, ok := d.op.(adder); ok && d.id >= fresh && known.id < d.id && d.in[a.addSlot()] == nil {
		d.in[a.addSlot()] = known
		return d
	}
	return g.Add(known, d)
}

// Accumulate writes value to the Grad of p in every run, or adds it ([Program.Sum]): the last node of a parameter's gradient. One sink for each p.
func (g *Graph) Accumulate(p *Param, value *Node) *Node {
	must(value.Elems() == len(p.Grad) || p.Grad == nil, "accumulate %v into %s %v", value.shape, p.Name, p.Shape)
	n := g.add(accumulate{p}, []int{0}, value, nil)
	n.backward = true
	return n
}
