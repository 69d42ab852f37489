package resize

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"lycoris/internal/adapter"
	"lycoris/internal/arch"
	"lycoris/internal/fault"
	"lycoris/internal/network"
	"lycoris/internal/tensor"
)

// Options say what to make. A rank is 1 or more; 0 is none given.
type Options struct {
	In, Out string
	Dim     int     // rank; with a rule the most
	ConvDim int     // the same for kernels of more than one pixel; 0: Dim
	Rule    Rule    // with its Value
	Value   float64 // of the rule

	Block       int    // DyLoRA: how many of the ranks stay; 0: no cut
	DyLoRAScale string // DyLoRA: a rule of algos.BlockScales; "": what the metadata say
	SVD         bool   // decompose a DyLoRA like any other file

	KeepScale  bool          // alpha/rank stays what it was; else alpha is the rank and the factors hold the scale
	AllowRaise bool          // a rank above a module's own is filled up with zeros
	DType      tensor.DType  // of what is written; Invalid: as it was
	Level      adapter.Level // of metadata
	Threads    int           // modules at a time; 0: 1
	Version    string        // of this program, for metadata
	Date       string        // modelspec.date; "": as it was
}

// What was done with a module.
const (
	Resized = "resized"
	Cut     = "cut"    // a DyLoRA
	Kept    = "kept"   // nothing to cut
	Copied  = "copied" // has no ranks
)

// Module says what was done with one. Norms are Frobenius norms at strength 1.
type Module struct {
	Name      string
	Component string // unet, text_encoder, text_encoder_2
	From      string // algorithm before
	Algorithm string // algorithm now
	Did       string
	Conv      bool // a kernel of more than one pixel
	DoRA      bool
	OldRank   int
	Rank      int
	Alpha     float64
	Norm      float64 // of the change before
	Error     float64 // of the difference to it
	Best      float64 // DyLoRA: what the best approximation of the rank would leave

	zeroAlpha, negativeAlpha bool // before
}

// Relative returns the error as a part of the norm; 0 for a change of 0.
func (m Module) Relative() float64 { return ratio(m.Error, m.Norm) }

// Share returns the retained part of the Frobenius norm, √(1 − error²).
func (m Module) Share() float64 { return math.Sqrt(max(1-square(m.Relative()), 0)) }

func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// Total sums modules up: norms are the roots of sums of squares.
type Total struct {
	Part                string // "" of all
	Modules             int    // with ranks
	Norm, Error         float64
	MeanShare, MinShare float64
}

// Relative returns the error as a part of the norm.
func (t Total) Relative() float64 { return ratio(t.Error, t.Norm) }

// Report is what a run did.
type Report struct {
	Family   string
	Modules  []Module // in order of their names
	Parts    []Total  // of each component that has modules with ranks
	Total    Total
	Metadata map[string]string // as written, without the hashes
	Rule     string            // DyLoRA: the rule of the scale
	Notes    []string          // what a person may want to know
	Warnings []string          // what a person should know
}

// Count returns how many modules were done with so.
func (r *Report) Count(did string) int {
	n := 0
	for _, m := range r.Modules {
		if m.Did == did {
			n++
		}
	}
	return n
}

// Run resizes an adapter. step, which may be nil, is called after each module, from several goroutines, with the number of all. On an error nothing is written.
func Run(ctx context.Context, o Options, step func(total int)) (*Report, error) {
	f, err := adapter.OpenAny(o.In, network.KeySets())
	if err != nil {
		return nil, err
	}
	defer f.Close()
	report := &Report{Family: f.Family}
	cut, err := o.plan(f, report)
	if err != nil {
		return nil, err
	}
	tensors, err := o.modules(ctx, f, cut, report, step)
	if err != nil {
		return nil, err
	}
	for _, name := range f.Extra {
		t, err := f.Read(name)
		if err != nil {
			return nil, err
		}
		tensors = append(tensors, tensor.Named{Name: name, Tensor: t})
	}
	report.sum()
	if report.Metadata, err = o.metadata(f, cut, report); err != nil {
		return nil, err
	}
	if err := f.Unchanged(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return report, adapter.Save(o.Out, tensors, report.Metadata, tensor.Invalid)
}

// plan settles from the header how the file is resized: by a cut, or, nil, by decomposition.
func (o *Options) plan(f *adapter.AnyFile, report *Report) (*dyLoRA, error) {
	most := 0
	for _, m := range f.Modules {
		if hasRanks(m.Algorithm) {
			most = max(most, headerRank(m))
		}
	}
	if most == 0 {
		return nil, fault.BadInput(o.In, "none of its %d modules has ranks to cut: they are %s", len(f.Modules), algorithms(f)).Advise("resize takes lora, loha and lokr")
	}
	if f.NoAlpha > 0 {
		report.note("%d modules have no alpha: their scale is 1", f.NoAlpha)
	}
	d, known := trainedAs(f.Metadata)
	flag := "--block"
	switch {
	case o.Block > 0:
		d.ranks = o.Block
		if !known {
			report.warn("nothing in the file says that it is a DyLoRA, or how many ranks were trained together")
		}
	case known && !o.SVD && o.Dim > 0 && o.Rule == Fixed && o.ConvDim == 0:
		d.ranks, flag = o.Dim, "--dim"
		report.note("the file is a DyLoRA: its first %d ranks are kept; --svd decomposes it instead", o.Dim)
	default:
		if o.DyLoRAScale != "" {
			return nil, fault.BadUsage("--dylora-scale", "nothing is cut by blocks").Advise("give --block N too")
		}
		return nil, o.checkRaise(f, report)
	}
	if o.DyLoRAScale != "" {
		d.rule = o.DyLoRAScale
	}
	report.Rule = d.rule
	return &d, d.check(flag, most)
}

// headerRank returns the rank of a module as its header tells it, of a LoHa the rank that its product can have.
func headerRank(m *adapter.AnyModule) int {
	axis := func(key string, i int) int {
		if s := m.Shape(key); len(s) > i {
			return s[i]
		}
		return 0
	}
	switch {
	case m.Has(keyDown):
		return axis(keyDown, 0)
	case m.Has("hada_w1_b"):
		return axis("hada_w1_b", 0) * axis("hada_w2_b", 0)
	case m.Has("lokr_w2"):
		return min(axis("lokr_w2", 0), tensor.Elems(m.Shape("lokr_w2"))/max(axis("lokr_w2", 0), 1))
	}
	return axis("lokr_w2_b", 0)
}

// algorithms lists what a file is made of.
func algorithms(f *adapter.AnyFile) string {
	var names []string
	for _, m := range f.Modules {
		if !slices.Contains(names, m.Algorithm) {
			names = append(names, m.Algorithm)
		}
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

func (r *Report) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

func (r *Report) warn(format string, args ...any) {
	r.Warnings = append(r.Warnings, fmt.Sprintf(format, args...))
}

// modules works on the modules side by side. Of several errors the first module's counts.
func (o *Options) modules(ctx context.Context, f *adapter.AnyFile, cut *dyLoRA, report *Report, step func(int)) ([]tensor.Named, error) {
	jobs, errs := make([]job, len(f.Modules)), make([]error, len(f.Modules))
	var next atomic.Int64
	var failed atomic.Bool
	var wait sync.WaitGroup
	for range max(o.Threads, 1) {
		wait.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(jobs) && !failed.Load() && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				jobs[i] = job{o: o, m: f.Modules[i], cut: cut}
				if errs[i] = jobs[i].run(); errs[i] != nil {
					failed.Store(true)
				}
				jobs[i].stored = nil // what is read is needed no more
				if step != nil {
					step(len(jobs))
				}
			}
		})
	}
	wait.Wait()
	for _, err := range errs {
		var e *fault.Error
		if errors.As(err, &e) && e.Path == "" {
			e.Path = o.In
		}
		if err != nil {
			return nil, err
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var tensors []tensor.Named
	for i := range jobs {
		report.Modules = append(report.Modules, jobs[i].done)
		tensors = append(tensors, jobs[i].out...)
	}
	return tensors, nil
}

// checkRaise refuses ranks that no module of their kind has.
func (o *Options) checkRaise(f *adapter.AnyFile, report *Report) error {
	var most, mostConv int
	for _, m := range f.Modules {
		shape := m.Target.Module.Shape
		switch {
		case !hasRanks(m.Algorithm):
		case o.ConvDim > 0 && len(shape) > 2 && tensor.Elems(shape[2:]) > 1:
			mostConv = max(mostConv, headerRank(m))
		default:
			most = max(most, headerRank(m))
		}
	}
	if o.ConvDim > 0 && mostConv == 0 {
		report.warn("--conv-dim %d means nothing: no module has a kernel of more than one pixel", o.ConvDim)
	}
	if o.AllowRaise || o.Rule != Fixed {
		return nil
	}
	for _, c := range []struct {
		flag       string
		want, have int
	}{{"--dim", o.Dim, most}, {"--conv-dim", o.ConvDim, mostConv}} {
		if c.have > 0 && c.want > c.have {
			return fault.BadUsage(c.flag, "%d is above the file's %d ranks", c.want, c.have).Advise("choose %d or less; --allow-raise fills up with zeros", c.have)
		}
	}
	return nil
}

// sum fills in the totals, the parts in the order in which models have them.
func (r *Report) sum() {
	var odd, negative int
	for _, part := range []string{string(arch.TextEncoder), "text_encoder_2", string(arch.UNet), ""} {
		t := Total{Part: part, MinShare: 1}
		for _, m := range r.Modules {
			if m.Did == Copied || part != "" && m.Component != part {
				continue
			}
			t.Modules++
			t.Norm, t.Error = math.Hypot(t.Norm, m.Norm), math.Hypot(t.Error, m.Error)
			t.MeanShare, t.MinShare = t.MeanShare+m.Share(), min(t.MinShare, m.Share())
			if part == "" && m.zeroAlpha {
				odd++
			}
			if part == "" && m.negativeAlpha {
				negative++
			}
		}
		t.MeanShare = ratio(t.MeanShare, float64(t.Modules))
		switch {
		case part == "":
			r.Total = t
		case t.Modules > 0:
			r.Parts = append(r.Parts, t)
		}
	}
	if odd > 0 {
		r.warn("%d modules have alpha 0, which some programs take for no effect and some for the rank: it stays 0", odd)
	}
	if negative > 0 {
		r.warn("%d modules had a negative alpha", negative)
	}
	others := map[string]int{}
	for _, m := range r.Modules {
		if m.Did == Copied {
			others[m.From]++
		}
	}
	for _, name := range sortedKeys(others) {
		r.note("%d modules of %s have no ranks that resize can cut and were copied", others[name], name)
	}
}

func sortedKeys[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, cmp.Compare[string])
	return keys
}
