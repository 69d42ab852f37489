package optim

import (
	"slices"

	"lycoris/internal/fault"
)

// Array is a named float32 array on the host.
type Array struct {
	Name string
	Data []float32
}

// State is what an optimizer remembers between steps, for a checkpoint. Restoring it is exact.
type State struct {
	Steps  int     // updates made
	Arrays []Array // "m/<parameter>" and "v/<parameter>" for each parameter, in order, then "steps/<parameter>", one number, where it was idle in some update
}

// State returns a copy of the optimizer's memory.
func (o *AdamW) State() State {
	s := State{Steps: o.step}
	for _, moment := range o.Moments() {
		data := make([]float32, len(moment.Data))
		o.backend.Download(data, moment.Data)
		s.Arrays = append(s.Arrays, Array{moment.Name, data})
	}
	s.Arrays = append(s.Arrays, o.Counts()...)
	return s
}

// Moments returns the optimizer's arrays as they lie in the backend's memory, and Counts the ones that are kept on the host: a state without a copy.
func (o *AdamW) Moments() []Array {
	var all []Array
	for _, p := range Params(o.groups) {
		all = append(all, o.moments(p)...)
	}
	return all
}

// Counts returns the numbers of updates of the parameters that were idle in some.
func (o *AdamW) Counts() []Array {
	var all []Array
	for _, p := range Params(o.groups) {
		if p.steps != o.step {
			all = append(all, Array{stepsOf(p), []float32{float32(p.steps)}}) // exact below 2²⁴
		}
	}
	return all
}

// Restore puts s back. The order of its arrays doesn't matter; their names and lengths must be those of the optimizer's parameters. On an error,
// of kind fault.Resume, nothing has changed.
func (o *AdamW) Restore(s State) error {
	given := map[string][]float32{}
	for _, a := range s.Arrays {
		given[a.Name] = a.Data
	}
	var moments []Array
	steps := map[*Param]int{}
	for _, p := range Params(o.groups) {
		moments = append(moments, o.moments(p)...)
		steps[p] = s.Steps
		if own, ok := given[stepsOf(p)]; ok {
			if len(own) != 1 || own[0] != float32(int(own[0])) || own[0] < 0 || int(own[0]) > s.Steps {
				return fault.New(fault.Resume, "", "the optimizer state's array %q is not a number of updates up to %d", stepsOf(p), s.Steps)
			}
			steps[p] = int(own[0])
			delete(given, stepsOf(p))
		}
	}
	for _, moment := range moments {
		data, ok := given[moment.Name]
		if !ok {
			return fault.New(fault.Resume, "", "the optimizer state has no array %q", moment.Name)
		}
		if len(data) != len(moment.Data) {
			return fault.New(fault.Resume, "", "the optimizer state's array %q has %d numbers, want %d", moment.Name, len(data), len(moment.Data))
		}
	}
	if len(given) != len(moments) {
		extra := slices.IndexFunc(s.Arrays, func(a Array) bool {
			_, left := given[a.Name]
			return left && !slices.ContainsFunc(moments, func(m Array) bool { return m.Name == a.Name })
		})
		return fault.New(fault.Resume, "", "the optimizer state has an array %q that no trained parameter owns", s.Arrays[extra].Name)
	}
	for _, moment := range moments {
		o.backend.Upload(moment.Data, given[moment.Name])
	}
	o.step = s.Steps
	for p, n := range steps {
		p.steps = n
	}
	return nil
}

func stepsOf(p *Param) string { return "steps/" + p.Name }

// moments names p's moments.
func (o *AdamW) moments(p *Param) []Array {
	return []Array{{"m/" + p.Name, p.M}, {"v/" + p.Name, p.V}}
}
