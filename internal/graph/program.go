package graph

import (
	"context"
	"math"
	"time"

	"lycoris/internal/kernels"
)

// Program is a plan bound to memory.
type Program struct {
	backend kernels.Backend
	plan    *Plan
	steps   []step
	memory  func(*Node) []float32                            // where a node's value lies
	guarded [][]float32                                      // one allocation per buffer, in the test mode
	arena   []float32                                        // owned by the program or lent to it
	Trace   func(op string, shape []int, took time.Duration) // called after each step when set: profiling
	Sum     bool                                             // a run adds gradients to what the parameters hold; else it replaces that
	sums    []sum
}

// sum is a step that writes the gradient of p: what operand slot of it adds.
type sum struct {
	step, slot int
	p          *Param
}

type step struct {
	n       *Node
	out, in [][]float32
}

// Floats returns the arena size in float32 elements, for a caller that lends one arena to several programs.
func (p *Plan) Floats() int { return p.floats }

// Bind gives the plan memory: arena of at least Floats elements in b's memory, or nil to allocate one. Weights, vectors and parameters must have been read.
func (p *Plan) Bind(b kernels.Backend, arena []float32) (*Program, error) {
	if arena == nil {
		var err error
		if arena, err = b.Alloc(p.floats); err != nil {
			return nil, err
		}
	}
	must(len(arena) >= p.floats, "arena of %d floats, the plan needs %d", len(arena), p.floats)
	at := func(buf *buffer, size int) []float32 { return arena[buf.offset : buf.offset+size : buf.offset+size] }
	r := &Program{backend: b, plan: p, arena: arena}
	r.bind(at)
	return r, nil
}

// BindSeparately is [Plan.Bind] with one allocation per buffer, filled with NaN before each run. It shows overruns and reads of dead values, which
// an arena hides; for tests.
func (p *Plan) BindSeparately(b kernels.Backend) (*Program, error) {
	r := &Program{backend: b, plan: p}
	memory := map[*buffer][]float32{}
	for _, buf := range p.buffers {
		m, err := b.Alloc(buf.size)
		if err != nil {
			return nil, err
		}
		memory[buf] = m
		if buf.first >= 0 {
			r.guarded = append(r.guarded, m)
		}
	}
	r.bind(func(buf *buffer, size int) []float32 { return memory[buf][:size:size] })
	return r, nil
}

func (r *Program) bind(at func(*buffer, int) []float32) {
	p := r.plan
	r.memory = func(n *Node) []float32 {
		if n == nil || p.skipped[n] {
			return nil
		}
		owner, offset := root(n)
		var d []float32
		switch o := owner.op.(type) {
		case paramLeaf:
			d = o.p.Value
		case accumulate:
			return nil
		case vectorLeaf:
			d = o.v.Data
		default:
			if q := p.into[owner]; q != nil {
				d = q.Grad
				break
			}
			if owner.Elems() == 0 {
				return nil
			}
			buf := p.of[owner]
			must(buf != nil, "%s %v has no place", owner.op.name(), owner.shape)
			d = at(buf, owner.Elems())
		}
		size := n.Elems()
		must(offset+size <= len(d), "%s %v: %d elements bound", owner.op.name(), owner.shape, len(d))
		return d[offset : offset+size : offset+size]
	}
	for _, n := range p.steps {
		s := step{n: n, out: [][]float32{r.memory(n)}}
		for _, a := range n.aux {
			s.out = append(s.out, r.memory(a))
		}
		for _, in := range n.in {
			s.in = append(s.in, r.memory(in))
		}
		if q := p.gradient(n); q != nil {
			r.sums = append(r.sums, sum{len(r.steps), n.op.(adder).addSlot(), q})
		}
		r.steps = append(r.steps, s)
	}
}

func isAux(n *Node) bool { _, ok := n.op.(auxOutput); return ok }

// Input returns the memory of an input, to be filled before each run (it may be overwritten by the run); nil if the program doesn't read it.
func (r *Program) Input(name string) []float32 {
	n := r.plan.inputs[name]
	if n == nil {
		return nil
	}
	return r.memory(n)
}

// Set copies data into the input called name. An input that the program doesn't read is ignored.
func (r *Program) Set(name string, data []float32) {
	if in := r.Input(name); in != nil {
		must(len(in) == len(data), "input %s has %d elements, got %d", name, len(in), len(data))
		r.backend.Upload(in, data)
	}
}

// Output copies output i of the plan to the host.
func (r *Program) Output(i int) []float32 {
	m := r.memory(r.plan.outputs[i])
	host := make([]float32, len(m))
	r.backend.Download(host, m)
	return host
}

// Run computes everything once. It stops between two kernels when ctx ends and returns its cause; outputs and gradients are then meaningless.
func (r *Program) Run(ctx context.Context) error {
	for _, m := range r.guarded {
		for i := range m {
			m[i] = float32(math.NaN())
		}
	}
	for _, s := range r.sums {
		add := &r.steps[s.step].in[s.slot]
		if *add = nil; r.Sum {
			*add = s.p.Grad
		}
	}
	done := ctx.Done()
	for i := range r.steps {
		select {
		case <-done:
			return context.Cause(ctx)
		default:
		}
		s := &r.steps[i]
		if r.Trace == nil {
			s.n.op.run(r.backend, s.out, s.in)
			continue
		}
		start := time.Now()
		s.n.op.run(r.backend, s.out, s.in)
		r.Trace(s.n.op.name(), s.n.shape, time.Since(start))
	}
	return nil
}

// Close frees what the program allocated itself.
func (r *Program) Close() {
	if r.arena != nil {
		r.backend.Free(r.arena)
		r.arena = nil
	}
}
