package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/pflag"

	"lycoris/internal/adapter"
	"lycoris/internal/fault"
	"lycoris/internal/kernels/cpu"
	"lycoris/internal/merge"
	"lycoris/internal/tensor"
)

// joinFlags are the flags of merge that are about adapters into one adapter.
type joinFlags struct {
	method, metadata string
	dim, maxDim      *float64
	maxError         *float64
}

func addJoinFlags(f *pflag.FlagSet, j *joinFlags) {
	choice(f, &j.method, "method", merge.Auto, "without --model, or with base: join modules by `METHOD`", merge.Auto, merge.Concat, merge.SVD, merge.OnBase)
	f.Var(&numberFlag{v: &j.dim, min: 1, max: 1e6, whole: true}, "dim", "joined adapters: at most `N` ranks, the nearest there are; the error is told")
	f.Var(&numberFlag{v: &j.maxDim, min: 1, max: 1e6, whole: true}, "max-dim", "joined adapters: keep all ranks, exactly, up to `N` (default: four times the largest input's)")
	f.Var(&numberFlag{v: &j.maxError, min: 0, max: 1}, "max-error", "joined adapters: where ranks are cut, lose at most the part `X` of a layer's change (default 0.01)")
	choice(f, &j.metadata, "metadata", merge.MetadataMerge, "joined adapters: `WHICH` metadata to keep", merge.MetadataMerge, merge.MetadataFirst, merge.MetadataNone)
}

// joins reports whether adapters are to become one adapter.
func (m *mergeOptions) joins() bool { return m.model == "" || m.join.method == merge.OnBase }

// check refuses flags that mean nothing to what is asked for.
func (j *joinFlags) check(m *mergeOptions) error {
	given := map[string]bool{"--dim": j.dim != nil, "--max-dim": j.maxDim != nil, "--max-error": j.maxError != nil}
	switch {
	case !m.joins():
		for _, flag := range slices.Sorted(maps.Keys(given)) {
			if given[flag] {
				return fault.BadUsage(flag, "means something without --model only, where adapters become one adapter").Advise("leave out --model, or use --method base: adapters into one, computed with the model")
			}
		}
		if j.method != merge.Auto {
			return fault.BadUsage("--method", "%s means something without --model only, where adapters become one adapter", j.method).Advise("leave out --model, or use --method base")
		}
	case m.join.method == merge.OnBase && m.model == "":
		return fault.BadUsage("--model", "is missing: the method base computes with a model").Advise("name the model that the adapters were made for: --model FILE")
	case m.inPlace:
		return fault.BadUsage("--in-place", "means something with --model only")
	case m.saturate || m.variant != "" || m.vaeDType != "keep" || m.embeddings != "":
		return fault.BadUsage("", "--saturate, --variant, --vae-dtype and --emit-embeddings mean something with --model only")
	case m.ema != merge.EMAKeep:
		return fault.BadUsage("--ema", "means something with --model only")
	case m.allow:
		return fault.BadUsage("--allow-unmatched", "means something with --model only")
	case m.as == merge.AsComfy:
		return fault.BadUsage("--as", "comfy means something with --model only").Advise("use --as consumer or --as lycoris")
	case j.dim != nil && j.maxError != nil:
		return fault.BadUsage("--max-error", "goes not with --dim: one rule decides")
	case j.dim != nil && j.maxDim != nil:
		return fault.BadUsage("--max-dim", "goes not with --dim: one rule decides")
	case j.method == merge.Concat && (j.dim != nil || j.maxDim != nil || j.maxError != nil):
		return fault.BadUsage("--method", "concat keeps all ranks: no --dim, --max-dim or --max-error goes with it")
	}
	return nil
}

// runJoin makes one adapter of several.
func runJoin(ctx context.Context, opts mergeOptions, o merge.Options, out *output) error {
	began := time.Now()
	j := merge.JoinOptions{Adapters: o.Adapters, Out: o.Out, UNet: o.UNet, Text: o.Text, Blocks: o.Blocks, Parts: o.Parts, Method: opts.join.method, Model: o.Model, As: o.As, Dim: wholeNumber(opts.join.dim),
		MaxDim: wholeNumber(opts.join.maxDim), MaxError: 0.01, DType: o.DType, Metadata: opts.join.metadata, Version: o.Version, Date: o.Date}
	if opts.join.maxError != nil {
		j.MaxError = *opts.join.maxError
	}
	inputs := []string{}
	if o.Model != "" {
		inputs = append(inputs, o.Model)
	}
	for _, a := range o.Adapters {
		inputs = append(inputs, adapter.TensorsFile(a.Path))
	}
	if err := out.checkFile(o.Out, inputs...); err != nil {
		return err
	}
	backend, err := cpu.Open(cpu.Options{Threads: wholeNumber(opts.threads)})
	if err != nil {
		return err
	}
	defer backend.Close()
	progress := out.UI.Progress()
	defer progress.End()
	var begun atomic.Bool
	report, err := merge.Join(ctx, j, backend, func(_, of int) {
		if begun.CompareAndSwap(false, true) {
			progress.Phase("join", of)
		}
		progress.Add(1)
	})
	if err != nil {
		return err
	}
	progress.End()
	tellJoin(report, j, time.Since(began), out)
	return nil
}

// tellJoin says what was done.
func tellJoin(r *merge.JoinReport, o merge.JoinOptions, took time.Duration, out *output) {
	for _, w := range r.Warnings {
		out.UI.Warn(w, "")
	}
	var adapters []any
	for _, a := range r.Adapters {
		words := []string{fmt.Sprintf("weight %g", a.Source.Weight)}
		for _, c := range slices.Sorted(maps.Keys(a.Modules)) {
			words = append(words, fmt.Sprintf("%s %d modules", c, a.Modules[c]))
		}
		words = append(words, slices.Sorted(maps.Keys(a.Algorithms))...)
		if a.LeftOut > 0 {
			words = append(words, fmt.Sprintf("%d left out", a.LeftOut))
		}
		out.UI.Info(fmt.Sprintf("%s: %s", a.Source.Path, strings.Join(words, ", ")))
		adapters = append(adapters, map[string]any{"path": a.Source.Path, "weight": a.Source.Weight, "modules": a.Modules, "algorithms": a.Algorithms, "left_out": a.LeftOut})
	}
	total, worst, most := r.Error()
	counts := map[string]int{}
	least, largest := 0, 0
	var layers []any
	for _, l := range r.Layers {
		counts[l.Did]++
		if l.Rank > 0 {
			if least == 0 || l.Rank < least {
				least = l.Rank
			}
			largest = max(largest, l.Rank)
		}
		layers = append(layers, map[string]any{"name": l.Name, "did": l.Did, "algorithm": l.Algorithm, "rank": l.Rank, "norm": l.Norm, "error": l.Error, "adapters": l.Adapters})
	}
	var words []string
	for _, w := range []struct{ did, text string }{{merge.DidKeep, "%d of one adapter kept"}, {merge.DidSum, "%d joined exactly"}, {merge.DidReduce, "%d by fewer ranks"}, {merge.DidWhole, "%d as whole differences"},
		{merge.DidNone, "%d without a change left out"}} {
		if n := counts[w.did]; n > 0 {
			words = append(words, fmt.Sprintf(w.text, n))
		}
	}
	ranks := ""
	switch {
	case largest == least && largest > 0:
		ranks = fmt.Sprintf(", rank %d", largest)
	case largest > 0:
		ranks = fmt.Sprintf(", ranks %d to %d", least, largest)
	}
	out.UI.Info(fmt.Sprintf("joined %d layers in %.1f s: %s%s", len(r.Layers), took.Seconds(), strings.Join(words, ", "), ranks))
	if counts[merge.DidReduce] > 0 {
		out.UI.Info(fmt.Sprintf("cutting ranks lost %.2g %% of the change, most in %s: %.2g %%", 100*total, worst.Name, 100*most))
	}
	if n := counts[merge.DidWhole]; n > 0 && !slices.ContainsFunc(r.Adapters, func(a *merge.JoinSource) bool { return a.Algorithms["full"] > 0 }) {
		out.UI.Warn(fmt.Sprintf("%d layers have no form of few ranks and are whole differences, as large as the layer", n), "give --dim N for the nearest of N ranks")
	}
	out.UI.Printf("%s\n", o.Out)
	for name, v := range map[string]any{"path": o.Out, "family": r.Family, "adapters": adapters, "layers": layers, "error": total, "bytes": r.Bytes, "size": tensor.FormatBytes(r.Bytes), "seconds": took.Seconds(),
		"warnings": r.Warnings} {
		out.setResult(name, v)
	}
}
