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
	LeftOut Status = "left out" // changed: a kernel, with conv-dim 0, or a norm that wasn't asked for
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

	BiasLeftOut bool    // its bias changed too, and isn't kept
	LoRARank    int     // rank of the plain LoRA of the same size that the fit is compared with; 0: it isn't
	LoRAMissing float64 // ‖Δ − LoRA‖ of the best one

	tensors      []tensor.Named
	window, norm bool // a kernel larger than a pixel; a norm
}

// Relative returns ‖Δ − fit‖/‖Δ‖, 0 where nothing changed.
func (m Module) Relative() float64 { return ratio(m.Missing, m.Change) }

// LoRARelative returns ‖Δ − LoRA‖/‖Δ‖ of the LoRA of the same size.
func (m Module) LoRARelative() float64 { return ratio(m.LoRAMissing, m.Change) }

// Part sums up the modules of a component, or all.
type Part struct {
	Component arch.Component // "" of all
	Count     map[Status]int
	Change    float64 // ‖Δ‖ of the fitted modules together
	Missing   float64
	LeftOut   float64 // ‖Δ‖ of the kernels and norms that were left out

	Kernels, Norms, Biases int // left out though they changed

	Compared    bool    // fits are compared with plain LoRA of their size
	LoRAMissing float64 // what those miss together
}

// Relative returns ‖Δ − fit‖/‖Δ‖ of the fitted modules.
func (p Part) Relative() float64 { return ratio(p.Missing, p.Change) }

// LoRARelative returns ‖Δ − LoRA‖/‖Δ‖ of LoRAs of the same sizes.
func (p Part) LoRARelative() float64 { return ratio(p.LoRAMissing, p.Change) }

// LeftOutShare returns the share of ‖Δ‖² that lies in kernels and norms that were left out.
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
		if m.BiasLeftOut {
			p.Biases++
		}
		switch m.Status {
		case Fitted:
			p.Change += m.Change * m.Change
			p.Missing += m.Missing * m.Missing
			p.Compared = p.Compared || m.LoRARank > 0
			p.LoRAMissing += m.LoRAMissing * m.LoRAMissing
		case LeftOut:
			p.LeftOut += m.Change * m.Change
			if m.norm {
				p.Norms++
			} else {
				p.Kernels++
			}
		}
	}
	roots := func(p *Part) {
		for _, v := range []*float64{&p.Change, &p.Missing, &p.LeftOut, &p.LoRAMissing} {
			*v = math.Sqrt(*v)
		}
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
