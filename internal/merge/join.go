package merge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"lycoris/internal/adapter"
	"lycoris/internal/arch"
	"lycoris/internal/fault"
	"lycoris/internal/kernels"
	"lycoris/internal/loose"
	"lycoris/internal/tensor"
)

// How several modules of a layer become one.
const (
	Auto   = "auto"   // [Concat] while that has few ranks, else [SVD]
	Concat = "concat" // the ranks side by side: exact
	SVD    = "svd"    // the nearest one of fewer ranks
	OnBase = "base"   // as auto; changes that depend on the layer's weight are computed with a model
)

// What becomes of the adapters' metadata.
const (
	MetadataMerge = "merge" // what all agree on, the counts of tags added up
	MetadataFirst = "first"
	MetadataNone  = "none"
)

// JoinOptions say which adapters become one, and how.
type JoinOptions struct {
	Adapters []Source
	Out      string
	UNet     float64    // multiplier of every adapter's UNet part
	Text     [2]float64 // of the text encoders' parts
	Blocks   *Blocks    // multipliers by block; nil: 1
	Parts    []string   // components to keep; empty: all
	Method   string
	Model    string  // for OnBase
	As       string  // how DoRA is read there: AsConsumer or AsLycoris
	Dim      int     // rank of SVD; 0: by MaxError
	MaxDim   int     // ranks up to which Auto concatenates; 0: four times the largest of the modules'
	MaxError float64 // of SVD, relative to the change, where Dim is 0
	DType    tensor.DType
	Metadata string
	Version  string // of the program, for the history
	Date     string // modelspec.date; "" leaves it out
}

// Joined says what became of one layer.
type Joined struct {
	Name        string
	Did         string  // one of the words below
	Algorithm   string  // of the result; "" where nothing is left
	Rank        int     // of a LoRA
	Norm, Error float64 // of the exact change and of what is missing; 0 where nothing is
	Adapters    int     // how many change it
	window      bool
	alpha       float64
}

// What was done with a layer.
const (
	DidKeep   = "kept"  // one adapter's module, at its weight
	DidSum    = "exact" // several as one, exactly
	DidReduce = "svd"   // several as the nearest of fewer ranks
	DidWhole  = "whole" // several as a whole difference, exactly
	DidNone   = "no change"
	joinTasks = 8 // layers worked on at once, at most
)

// JoinReport is what a join did.
type JoinReport struct {
	Family   string
	Adapters []*JoinSource
	Layers   []Joined // in the order of the family's layers
	Warnings []string
	Bytes    int64
}

// JoinSource is an adapter of a join.
type JoinSource struct {
	Source     Source
	Modules    map[string]int // taken, by component
	Algorithms map[string]int
	LeftOut    int // modules at weight 0, or of components that are left out
	src        *tensor.File
	adapter    *loose.Adapter
}

// Count returns how many layers were done with so.
func (r *JoinReport) Count(did string) int {
	n := 0
	for _, l := range r.Layers {
		if l.Did == did {
			n++
		}
	}
	return n
}

// Error returns what is missing of all changes together, relative to them, and the layer that lacks most, with how much.
func (r *JoinReport) Error() (total float64, worst Joined, most float64) {
	var missing, all float64
	for _, l := range r.Layers {
		missing, all = missing+l.Error*l.Error, all+l.Norm*l.Norm
		if l.Norm > 0 && l.Error/l.Norm > most {
			worst, most = l, l.Error/l.Norm
		}
	}
	if all > 0 {
		total = math.Sqrt(missing / all)
	}
	return total, worst, most
}

func (r *JoinReport) warn(format string, args ...any) {
	if w := fmt.Sprintf(format, args...); !slices.Contains(r.Warnings, w) {
		r.Warnings = append(r.Warnings, w)
	}
}

// term is one adapter's module of a layer, at its weight.
type term struct {
	from *JoinSource
	m    *loose.Module
	c    float64
}

// joiner is a join at work.
type joiner struct {
	o       *JoinOptions
	layers  *loose.Layers
	base    *loose.Base
	backend kernels.Backend
	lock    sync.Mutex // of the backend and the base
	report  *JoinReport
}

// Join makes one adapter of several, Σ c·ΔW, layer by layer, under kohya's names. b computes what depends on weights; step, which may be nil, hears of each layer
// done and of how many there are, from several goroutines. On an error nothing is written.
func Join(ctx context.Context, o JoinOptions, b kernels.Backend, step func(done, of int)) (*JoinReport, error) {
	j := &joiner{o: &o, backend: b, report: &JoinReport{}}
	defer func() {
		for _, a := range j.report.Adapters {
			a.src.Close()
		}
		if j.base != nil {
			j.base.Close()
		}
	}()
	if err := j.open(); err != nil {
		return nil, err
	}
	terms, err := j.terms()
	if err != nil {
		return nil, err
	}
	if err := j.check(terms); err != nil {
		return nil, err
	}
	made, err := j.all(ctx, terms, step)
	if err != nil {
		return nil, err
	}
	if len(made) == 0 {
		return nil, fault.BadInput(o.Adapters[0].Path, "nothing is left: every weight or every change is 0")
	}
	if made, err = j.embeddings(made); err != nil {
		return nil, err
	}
	slices.SortStableFunc(made, func(x, y tensor.Named) int { return cmp.Compare(x.Name, y.Name) })
	for _, t := range made {
		j.report.Bytes += int64(len(t.Data))
	}
	meta, err := j.metadata()
	if err != nil {
		return nil, err
	}
	for _, a := range j.report.Adapters {
		if err := a.src.Unchanged(); err != nil {
			return nil, err
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return j.report, adapter.Save(o.Out, made, meta, tensor.Invalid)
}

// open opens the adapters and settles their family. One that doesn't tell it is taken for what the others are.
func (j *joiner) open() error {
	family, teller := "", ""
	for _, s := range j.o.Adapters {
		f, err := tensor.OpenFile(adapter.TensorsFile(s.Path))
		if err != nil {
			return err
		}
		a := &JoinSource{Source: s, src: f, Modules: map[string]int{}, Algorithms: map[string]int{}}
		j.report.Adapters = append(j.report.Adapters, a)
		if !adapter.IsAdapter(f.Names()) {
			return fault.BadInput(s.Path, "is not an adapter").Advise("name what to merge into by --model, and adapters by --adapter")
		}
		if a.adapter, err = loose.Parse(s.Path, f); err != nil {
			return err
		}
		switch now := a.adapter.Layers.Family; {
		case !a.adapter.Sure:
		case family == "":
			family, teller = now, s.Path
		case now != family:
			return j.apart(s.Path, now, teller, family)
		}
	}
	if family == "" {
		family = j.report.Adapters[0].adapter.Layers.Family
	}
	version, of := "", ""
	for _, a := range j.report.Adapters {
		if a.adapter.Layers.Family != family {
			var err error
			if a.adapter, err = loose.ParseIn(a.Source.Path, a.src, family); err != nil {
				return err
			}
		}
		if v := a.src.Metadata()["ss_v2"]; v != "" {
			if version != "" && v != version {
				return fault.BadInput(a.Source.Path, "its metadata say ss_v2 %s, those of %q %s: adapters of different families", v, of, version).Advise("merge adapters of one family")
			}
			version, of = v, a.Source.Path
		}
	}
	j.report.Family, j.layers = family, loose.FamilyLayers(family)
	return nil
}

func (j *joiner) apart(path, family, other, first string) error {
	count := func(path string) int {
		for _, a := range j.report.Adapters {
			if a.Source.Path == path {
				return len(a.adapter.Modules)
			}
		}
		return 0
	}
	return fault.BadInput(path, "is for %s (%d modules), %q is for %s (%d modules)", loose.Describe(family), count(path), other, loose.Describe(first), count(other)).
		Advise("merge adapters of one family")
}

// terms returns the modules by layer with their weights, in the order of the family's layers.
func (j *joiner) terms() ([][]term, error) {
	known := map[string]bool{"BASE": true}
	place := map[string]int{}
	for i, l := range j.layers.All() {
		known[blockOf(l.Component, arch.Module{LDM: l.LDM})] = true
		place[layerKey(l)] = i
	}
	by := make([][]term, len(j.layers.All()))
	weigh := Plan{options: Options{UNet: j.o.UNet, Text: j.o.Text, Parts: j.o.Parts}}
	for _, a := range j.report.Adapters {
		blocks := a.Source.Blocks
		if blocks == nil {
			blocks = j.o.Blocks
		}
		multipliers, err := blocks.of(j.report.Family, known)
		if err != nil {
			return nil, err
		}
		var far farOut
		for _, m := range a.adapter.Modules {
			c := string(m.Layer.Component)
			weight := a.Source.Weight * weigh.partWeight(a.Source, c)
			if x, ok := multipliers[blockOf(m.Layer.Component, arch.Module{LDM: m.Layer.LDM})]; ok {
				weight *= x
			}
			if weight == 0 || !weigh.merges(c) {
				a.LeftOut++
				continue
			}
			if math.Abs(weight) > 10 {
				far.add(weight, j.layers.Module(m.Layer, loose.Kohya))
			}
			a.Modules[c]++
			a.Algorithms[m.Algo.Name]++
			i := place[layerKey(m.Layer)]
			by[i] = append(by[i], term{a, m, weight})
		}
		if far.modules > 0 {
			j.report.warn("%s: %s", a.Source.Path, far)
		}
	}
	return slices.DeleteFunc(by, func(t []term) bool { return len(t) == 0 }), nil
}

func layerKey(l loose.Layer) string { return string(l.Component) + "." + l.Path }

// check refuses, from headers alone, what needs a model where there is none, and opens it where there is.
func (j *joiner) check(terms [][]term) error {
	if j.o.Method == OnBase {
		base, err := loose.OpenBase(j.o.Model)
		j.base = base
		return err
	}
	n, first := 0, term{}
	for _, layer := range terms {
		if needsWeight(layer) {
			if n++; n == 1 {
				first = layer[slices.IndexFunc(layer, func(t term) bool { return t.m.NeedsWeight() })]
			}
		}
	}
	if n > 0 {
		return fault.BadUsage("--model", "is missing: of %d layers the change depends on what their weight is (%s in %q, which is not alone there at weight 1)", n, first.m.Algo.Name, first.from.Source.Path).
			Advise("name the model that the adapters were made for: --method base --model FILE")
	}
	return nil
}

// all works on the layers side by side.
func (j *joiner) all(ctx context.Context, terms [][]term, step func(done, of int)) ([]tensor.Named, error) {
	made, errs := make([][]tensor.Named, len(terms)), make([]error, len(terms))
	j.report.Layers = make([]Joined, len(terms))
	var done atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(min(runtime.GOMAXPROCS(0), joinTasks))
	for i := range terms {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			made[i], j.report.Layers[i], errs[i] = j.layer(terms[i])
			if step != nil {
				step(int(done.Add(1)), len(terms))
			}
			return errs[i]
		})
	}
	err := group.Wait()
	for _, e := range errs { // the first layer's counts, whichever came first
		if e != nil {
			return nil, e
		}
	}
	return slices.Concat(made...), err
}

// embeddings adds what is bundled with the adapters.
func (j *joiner) embeddings(made []tensor.Named) ([]tensor.Named, error) {
	have := map[string]tensor.Tensor{}
	for _, a := range j.report.Adapters {
		for _, name := range a.adapter.Extra {
			t, err := a.src.Read(name)
			if err != nil {
				return nil, err
			}
			if first, ok := have[name]; ok {
				if string(first.Data) != string(t.Data) || !slices.Equal(first.Shape, t.Shape) {
					j.report.warn("%s: the embedding %q is another adapter's too, whose is kept", a.Source.Path, name)
				}
				continue
			}
			have[name] = t
		}
	}
	for _, name := range slices.Sorted(maps.Keys(have)) {
		made = append(made, tensor.Named{Name: name, Tensor: have[name]})
	}
	return made, nil
}

// at sets the path of an error about an adapter's content.
func (t term) at(err error) error {
	var e *fault.Error
	if errors.As(err, &e) && e.Path == "" {
		e.Path = t.from.Source.Path
	}
	return err
}
