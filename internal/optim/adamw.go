package optim

import (
	"fmt"

	"lycoris/internal/kernels"
)

// Options are the settings of AdamW.
type Options struct {
	Beta1, Beta2 float64
	Eps          float64
	WeightDecay  float64 // decoupled: each step multiplies values by 1 - lr·WeightDecay first
}

// DefaultOptions returns torch's.
func DefaultOptions() Options {
	return Options{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: 0.01}
}

// align is the number of floats that the start of every moment is a multiple of: 64 bytes.
const align = 16

// AdamW is the optimizer of Loshchilov and Hutter (2019, algorithm 2). Weight decay falls on every parameter, as in torch.
type AdamW struct {
	backend kernels.Backend
	groups  []Group
	options Options
	slab    []float32 // all moments: M and V of each parameter, in order
	step    int       // updates made
}

// NewAdamW gives every parameter of groups its moments, zero, in one allocation. Close frees them.
func NewAdamW(b kernels.Backend, groups []Group, options Options) (*AdamW, error) {
	total := 0
	for _, p := range Params(groups) {
		if len(p.Value) != len(p.Grad) {
			panic(fmt.Sprintf("optim: %s has %d values and %d gradients", p.Name, len(p.Value), len(p.Grad)))
		}
		total += 2 * padded(len(p.Value))
	}
	slab, err := b.Alloc(total)
	if err != nil {
		return nil, err
	}
	rest := slab
	take := func(n int) []float32 {
		moment := rest[:n:n]
		rest = rest[padded(n):]
		return moment
	}
	for _, p := range Params(groups) {
		p.M, p.V = take(len(p.Value)), take(len(p.Value))
	}
	return &AdamW{backend: b, groups: groups, options: options, slab: slab}, nil
}

// Step makes one update. lrs has the learning rate of each group at this step; every gradient is multiplied by gradScale first.
func (o *AdamW) Step(lrs []float64, gradScale float64) {
	if len(lrs) != len(o.groups) {
		panic(fmt.Sprintf("optim: %d learning rates for %d groups", len(lrs), len(o.groups)))
	}
	o.step++
	s := kernels.AdamW{
		Beta1: o.options.Beta1, Beta2: o.options.Beta2, Eps: o.options.Eps, Decay: o.options.WeightDecay,
		GradScale: float32(gradScale),
	}
	for i, g := range o.groups {
		s.LR = lrs[i]
		for _, p := range g.Params {
			if p.Idle {
				continue
			}
			p.steps++
			s.Step = p.steps
			var values []float32
			if s.Origin = nil; p.Origin != nil {
				s.Origin, values = p.Origin()
			}
			o.backend.AdamW(p.Value, p.M, p.V, p.Grad, s)
			if values != nil && s.LR*s.Decay != 0 { // together with what AdamW took off p itself, the decay of their sum
				o.backend.Axpy(p.Value, values, float32(-s.LR*s.Decay))
			}
		}
	}
}

// Steps returns the number of updates made, those before a resume included.
func (o *AdamW) Steps() int { return o.step }

// Close frees the moments.
func (o *AdamW) Close() {
	o.backend.Free(o.slab)
	o.slab = nil
	for _, p := range Params(o.groups) {
		p.M, p.V = nil, nil
	}
}

// SlabFloats returns the number of floats that NewAdamW allocates for parameters of these sizes: for plans of memory.
func SlabFloats(sizes []int) int {
	total := 0
	for _, n := range sizes {
		total += 2 * padded(n)
	}
	return total
}

func padded(n int) int { return (n + align - 1) / align * align }
