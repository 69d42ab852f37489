package extract

import (
	"math"

	"lycoris/internal/arch"
	"lycoris/internal/tensor"
)

// Status is what became of a module.
type Status string

// The statuses.
const (
	Fitted  Status = "fitted"
	Equal   Status = "equal"    // the same in both models
	Noise   Status = "rounding" // differs by no more than the rounding of the files
	LeftOut Status = "left out" // a kernel, with conv-dim 0
)

// Module is what became of one module.
type Module struct {
	Name      string // in the adapter file
	Path      string // with the component
	Component arch.Component
	Status    Status
	Rank      int     // 0: not of low rank
	Change    float64 // ‖Δ‖
	Missing   float64 // ‖Δ − fit‖ with the factors as stored
	Worst     float64 // largest element of |Δ − fit|
	Weight    float64 // ‖W‖ of the base, 0 where nothing changed
	Note      string

	tensors      []tensor.Named
	window, norm bool // a kernel larger than a pixel; a norm
}

// Relative returns ‖Δ − fit‖/‖Δ‖, 0 where nothing changed.
func (m Module) Relative() float64 { return ratio(m.Missing, m.Change) }

// Part sums up the modules of a component, or all.
type Part struct {
	Component arch.Component // "" of all
	Count     map[Status]int
	Change    float64 // ‖Δ‖ of the fitted modules together
	Missing   float64
	LeftOut   float64 // ‖Δ‖ of the kernels that were left out
}

// Relative returns ‖Δ − fit‖/‖Δ‖ of the fitted modules.
func (p Part) Relative() float64 { return ratio(p.Missing, p.Change) }

// LeftOutShare returns the share of ‖Δ‖² that lies in kernels that were left out.
func (p Part) LeftOutShare() float64 {
	return ratio(p.LeftOut*p.LeftOut, p.LeftOut*p.LeftOut+p.Change*p.Change)
}

func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// Report is the result of [Run].
type Report struct {
	Modules []Module // in the order of adapter files
	Parts   []Part
	Total   Part
	Missing []string // components that only one of the models has
}

// Tensors returns the adapter's tensors with their modules' names.
func (r *Report) Tensors() []tensor.Named {
	var all []tensor.Named
	for _, m := range r.Modules {
		for _, t := range m.tensors {
			t.Name = m.Name + "." + t.Name
			all = append(all, t)
		}
	}
	return all
}

// sumUp fills in the parts.
func (r *Report) sumUp() {
	add := func(p *Part, m Module) {
		if p.Count == nil {
			p.Count = map[Status]int{}
		}
		p.Count[m.Status]++
		switch m.Status {
		case Fitted:
			p.Change += m.Change * m.Change
			p.Missing += m.Missing * m.Missing
		case LeftOut:
			p.LeftOut += m.Change * m.Change
		}
	}
	roots := func(p *Part) {
		p.Change, p.Missing, p.LeftOut = math.Sqrt(p.Change), math.Sqrt(p.Missing), math.Sqrt(p.LeftOut)
	}
	for _, m := range r.Modules {
		if n := len(r.Parts); n == 0 || r.Parts[n-1].Component != m.Component {
			r.Parts = append(r.Parts, Part{Component: m.Component})
		}
		add(&r.Parts[len(r.Parts)-1], m)
		add(&r.Total, m)
	}
	for i := range r.Parts {
		roots(&r.Parts[i])
	}
	roots(&r.Total)
}
