package inspect

import (
	"bytes"
	"cmp"
	"errors"
	"math"
	"slices"

	"lycoris/internal/adapter"
	"lycoris/internal/fault"
	"lycoris/internal/loose"
	"lycoris/internal/tensor"
)

// Diff is how two files of one kind differ: modules of adapters, tensors of models.
type Diff struct {
	With      string        `json:"with"`
	Same      bool          `json:"same"` // nothing but metadata and element types differs
	OnlyHere  []string      `json:"only_here,omitempty"`
	OnlyThere []string      `json:"only_there,omitempty"`
	Shapes    []ShapeDiff   `json:"shapes,omitempty"`
	Equal     int           `json:"equal"`               // of the same values
	Differing []Distance    `json:"differing,omitempty"` // the rest, the largest first
	Relative  float64       `json:"relative"`            // ‖difference‖/‖here‖ over everything that both have
	Metadata  *MetadataDiff `json:"metadata,omitempty"`
}

// ShapeDiff is one name with two forms.
type ShapeDiff struct {
	Name  string `json:"name"`
	Here  string `json:"here"`
	There string `json:"there"`
}

// Distance is between two changes or tensors of one name.
type Distance struct {
	Name     string  `json:"name"`
	Relative float64 `json:"relative"` // ‖difference‖/‖here‖
	MaxAbs   float64 `json:"max_abs"`
	Cosine   float64 `json:"cosine"`
}

// MetadataDiff is names of metadata.
type MetadataDiff struct {
	OnlyHere  []string `json:"only_here,omitempty"`
	OnlyThere []string `json:"only_there,omitempty"`
	Differing []string `json:"differing,omitempty"`
}

// Compare holds the files at two paths against each other: adapters by the change of each module where that needs no base, else by the factors; models by their tensors.
func Compare(here, there string, o Options) (*Diff, error) {
	a, err := tensor.OpenFile(adapter.TensorsFile(here))
	if err != nil {
		return nil, err
	}
	defer a.Close()
	b, err := tensor.OpenFile(adapter.TensorsFile(there))
	if err != nil {
		return nil, err
	}
	defer b.Close()
	one, two := adapter.IsAdapter(a.Names()), adapter.IsAdapter(b.Names())
	if one != two {
		return nil, fault.BadInput(there, "is %s, %s is %s", kindName(two), here, kindName(one)).Advise("compare two adapters, or two models")
	}
	d := &Diff{With: there, Metadata: compareMetadata(a.Metadata(), b.Metadata())}
	sum := &total{}
	if one {
		err = d.adapters(here, there, a, b, o, sum)
	} else {
		err = d.models(a, b, sum)
	}
	if err != nil {
		return nil, err
	}
	slices.SortFunc(d.Differing, func(a, b Distance) int {
		return cmp.Or(cmp.Compare(b.Relative, a.Relative), cmp.Compare(a.Name, b.Name))
	})
	d.Relative = ratio(sum.diff, sum.here)
	d.Same = len(d.OnlyHere)+len(d.OnlyThere)+len(d.Shapes)+len(d.Differing) == 0
	return d, nil
}

func kindName(isAdapter bool) string {
	if isAdapter {
		return "an adapter"
	}
	return "no adapter"
}

// total sums squares over everything compared.
type total struct{ diff, here float64 }

func ratio(diff, here float64) float64 {
	if here == 0 && diff == 0 {
		return 0
	}
	return math.Sqrt(diff / here)
}

// add compares two arrays of one length.
func (d *Diff) add(name string, a, b []float32, sum *total) {
	var diff, here, there, dot, largest float64
	for i := range a {
		x, y := float64(a[i]), float64(b[i])
		diff, here, there, dot = diff+(x-y)*(x-y), here+x*x, there+y*y, dot+x*y
		largest = max(largest, math.Abs(x-y))
	}
	sum.diff, sum.here = sum.diff+diff, sum.here+here
	if diff == 0 {
		d.Equal++
		return
	}
	cosine := 0.0
	if here > 0 && there > 0 {
		cosine = dot / math.Sqrt(here*there)
	}
	d.Differing = append(d.Differing, Distance{name, ratio(diff, here), largest, cosine})
}

func (d *Diff) adapters(here, there string, a, b *tensor.File, o Options, sum *total) error {
	one, err := loose.Parse(here, a)
	if err != nil {
		return err
	}
	two, err := loose.Parse(there, b)
	if err != nil {
		return err
	}
	if one.Layers.Family != two.Layers.Family {
		return fault.BadInput(there, "is an adapter for %s, %s is one for %s", loose.Describe(two.Layers.Family), here, loose.Describe(one.Layers.Family)).
			Advise("compare adapters of one family")
	}
	id := func(m *loose.Module) string { return one.Layers.Module(m.Layer, loose.Kohya) }
	second := map[string]*loose.Module{}
	for _, m := range two.Modules {
		second[id(m)] = m
	}
	c := &changes{open: o.Backend}
	for _, m := range one.Modules {
		name := id(m)
		n := second[name]
		delete(second, name)
		if n == nil {
			d.OnlyHere = append(d.OnlyHere, name)
			continue
		}
		if err := d.module(name, one, two, m, n, c, sum); err != nil {
			return err
		}
	}
	for _, m := range two.Modules {
		if second[id(m)] != nil {
			d.OnlyThere = append(d.OnlyThere, id(m))
		}
	}
	return nil
}

// module compares two modules of one layer.
func (d *Diff) module(name string, one, two *loose.Adapter, m, n *loose.Module, c *changes, sum *total) error {
	if !m.NeedsWeight() && !n.NeedsWeight() {
		w, v := m.WeightShape(), n.WeightShape()
		if tensor.Elems(w) != tensor.Elems(v) || w == nil || v == nil || w[0] != v[0] {
			d.Shapes = append(d.Shapes, ShapeDiff{name, m.Algo.Name + " for " + tensor.FormatShape(w), n.Algo.Name + " for " + tensor.FormatShape(v)})
			return nil
		}
		x, err := c.of(one, m)
		if err != nil {
			return err
		}
		y, err := c.of(two, n)
		if err != nil {
			return err
		}
		d.add(name, x, y, sum)
		return nil
	}
	if m.Algo.Name != n.Algo.Name || !slices.Equal(m.Suffixes(), n.Suffixes()) {
		d.Shapes = append(d.Shapes, ShapeDiff{name, m.Algo.Name, n.Algo.Name})
		return nil
	}
	var x, y []float32
	for _, suffix := range m.Suffixes() {
		if s, t := m.Shape(suffix), n.Shape(suffix); !tensor.SameShape(s, t) {
			d.Shapes = append(d.Shapes, ShapeDiff{name + "." + suffix, tensor.FormatShape(s), tensor.FormatShape(t)})
			return nil
		}
		s, err := m.Raw(suffix)
		if err != nil {
			return err
		}
		t, err := n.Raw(suffix)
		if err != nil {
			return err
		}
		x, y = append(x, s.Float32()...), append(y, t.Float32()...)
	}
	d.add(name, x, y, sum)
	return nil
}

// models compares tensors by name, one pair in memory at a time.
func (d *Diff) models(a, b *tensor.File, sum *total) error {
	for _, name := range a.Names() {
		x, _ := a.Info(name)
		y, ok := b.Info(name)
		switch {
		case !ok:
			d.OnlyHere = append(d.OnlyHere, name)
			continue
		case !tensor.SameShape(x.Shape, y.Shape):
			d.Shapes = append(d.Shapes, ShapeDiff{name, tensor.FormatShape(x.Shape), tensor.FormatShape(y.Shape)})
			continue
		}
		s, err := a.Read(name)
		if err != nil {
			return err
		}
		t, err := b.Read(name)
		if err != nil {
			return err
		}
		if s.DType == t.DType && bytes.Equal(s.Data, t.Data) && !s.DType.IsFloat() {
			d.Equal++
			continue
		}
		d.add(name, s.Float32(), t.Float32(), sum)
	}
	for _, name := range b.Names() {
		if !a.Has(name) {
			d.OnlyThere = append(d.OnlyThere, name)
		}
	}
	return nil
}

func compareMetadata(a, b map[string]string) *MetadataDiff {
	m := &MetadataDiff{}
	for k, v := range a {
		if w, ok := b[k]; !ok {
			m.OnlyHere = append(m.OnlyHere, k)
		} else if v != w {
			m.Differing = append(m.Differing, k)
		}
	}
	for k := range b {
		if _, ok := a[k]; !ok {
			m.OnlyThere = append(m.OnlyThere, k)
		}
	}
	for _, list := range [][]string{m.OnlyHere, m.OnlyThere, m.Differing} {
		slices.Sort(list)
	}
	return m
}

// at sets the path of an error that has none.
func at(path string, err error) error {
	var e *fault.Error
	if errors.As(err, &e) && e.Path == "" {
		e.Path = path
	}
	return err
}
