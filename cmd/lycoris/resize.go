package main

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"lycoris/internal/adapter"
	"lycoris/internal/algos"
	"lycoris/internal/fault"
	"lycoris/internal/resize"
	"lycoris/internal/tensor"
	"lycoris/internal/ui"
)

func newResizeCommand(out *output) *cobra.Command {
	var opts resizeOptions
	cmd := &cobra.Command{
		Use:   "resize",
		Short: "give an adapter fewer ranks",
		Long: "Gives each module of an adapter the best approximation of fewer ranks, in the same scale, and says what is lost.\n\n" +
			"LoRA and LoCon stay what they are (plain where they had a Tucker core), LoHa becomes LoRA, of LoKr the large factor is cut. A DyLoRA is cut\n" +
			"behind one of its blocks. Give --dim, one of the rules --sv-… and --max-error, or --block; --dim beside a rule is the most it may keep.",
		Example: "  lycoris resize --in cat.safetensors --out cat8.safetensors --dim 8 --conv-dim 4\n" +
			"  lycoris resize --in cat.safetensors --out small.safetensors --sv-fro 0.95 --dim 32\n" +
			"  lycoris resize --in dylora.safetensors --out d8.safetensors --block 8",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runResize(cmd.Context(), opts, out) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&opts.in, "in", "", "adapter `FILE`, or a folder that peft wrote")
	f.StringVar(&opts.out, "out", "", "write `FILE`")
	rank := func(v **float64, name, usage string) {
		f.Var(&numberFlag{v: v, min: 1, max: 1 << 20, whole: true}, name, usage)
	}
	rank(&opts.dim, "dim", "ranks `N` of each module")
	rank(&opts.convDim, "conv-dim", "ranks `N` of kernels of more than one pixel (default: --dim)")
	share := func(v **float64, name, usage string) { f.Var(&numberFlag{v: v, min: 0, max: 1}, name, usage) }
	f.Var(&numberFlag{v: &opts.svRatio, min: 1e-6, max: 1e6}, "sv-ratio", "keep singular values of at least the largest divided by `X` (below 1: times X)")
	share(&opts.svFro, "sv-fro", "keep the share `X` of the Frobenius norm")
	share(&opts.svCumulative, "sv-cumulative", "keep the share `X` of the sum of singular values")
	share(&opts.maxError, "max-error", "lose at most the part `X` of the Frobenius norm")
	rank(&opts.block, "block", "DyLoRA: keep the first `N` ranks")
	choice(f, &opts.dyloraScale, "dylora-scale", "", "DyLoRA: scale by `RULE` (default: what the file says)", algos.BlockScales...)
	f.BoolVar(&opts.svd, "svd", false, "decompose a DyLoRA like any other file")
	choice(f, &opts.alpha, "alpha", "rank", "write `ALPHA`: the rank, the factors holding the scale, or what keeps alpha/rank", "rank", "keep-scale")
	f.BoolVar(&opts.allowRaise, "allow-raise", false, "fill ranks above a module's own up with zeros")
	choice(f, &opts.dtype, "dtype", "keep", "store as `TYPE`", "keep", "fp16", "bf16", "fp32")
	choice(f, &opts.metadata, "metadata", string(adapter.Full), "keep `WHAT` of the metadata", string(adapter.Full), string(adapter.Minimal), string(adapter.None))
	f.Var(&numberFlag{v: &opts.threads, min: 1, max: 1024, whole: true}, "threads", "modules at a time `N` (default: the processors)")
	return cmd
}

type resizeOptions struct {
	in, out                                string
	dim, convDim, block, threads           *float64 // nil: not given
	svRatio, svFro, svCumulative, maxError *float64
	dyloraScale, dtype, metadata, alpha    string
	svd, allowRaise                        bool
}

func runResize(ctx context.Context, opts resizeOptions, out *output) error {
	out.UI.Hello(version)
	o, err := opts.resolve(out)
	if err != nil {
		return err
	}
	if err := out.checkFile(o.Out, adapter.TensorsFile(o.In)); err != nil {
		return err
	}
	progress := out.UI.Progress()
	var begin sync.Once
	report, err := resize.Run(ctx, o, func(total int) {
		begin.Do(func() { progress.Phase(ui.Resize, total) })
		progress.Add(1)
	})
	progress.End()
	if err != nil {
		return err
	}
	tellResize(o, report, out)
	return nil
}

// resolve checks the flags against each other.
func (o *resizeOptions) resolve(out *output) (resize.Options, error) {
	r := resize.Options{Block: wholeNumber(o.block), Dim: wholeNumber(o.dim), ConvDim: wholeNumber(o.convDim), DyLoRAScale: o.dyloraScale, SVD: o.svd, KeepScale: o.alpha == "keep-scale", AllowRaise: o.allowRaise,
		Level: adapter.Level(o.metadata), Threads: wholeNumber(o.threads), Version: version}
	r.DType = map[string]tensor.DType{"fp16": tensor.F16, "bf16": tensor.BF16, "fp32": tensor.F32}[o.dtype]
	if r.Threads == 0 {
		r.Threads = runtime.GOMAXPROCS(0)
	}
	for _, c := range []struct{ flag, path string }{{"--in", o.in}, {"--out", o.out}} {
		if c.path == "" {
			return r, fault.BadUsage(c.flag, "a file is missing").Advise("lycoris resize --in FILE --out FILE --dim N")
		}
	}
	r.In, r.Out = out.place(o.in), out.place(o.out)
	var given []string
	for _, c := range []struct {
		flag string
		v    *float64
		rule resize.Rule
	}{{"--sv-ratio", o.svRatio, resize.Ratio}, {"--sv-fro", o.svFro, resize.Frobenius}, {"--sv-cumulative", o.svCumulative, resize.Cumulative}, {"--max-error", o.maxError, resize.MaxError}} {
		if c.v != nil {
			given = append(given, c.flag)
			r.Rule, r.Value = c.rule, *c.v
		}
	}
	if r.Rule == resize.Ratio && r.Value < 1 {
		r.Value = 1 / r.Value
	}
	switch {
	case len(given) > 1:
		return r, fault.BadUsage(given[1], "goes not with %s: one rule decides", given[0])
	case r.Block > 0 && (r.Rule != resize.Fixed || r.Dim > 0 || r.ConvDim > 0 || r.SVD):
		return r, fault.BadUsage("--block", "says the ranks by itself: no --dim, --conv-dim, --svd or rule goes with it")
	case r.Block == 0 && r.Rule == resize.Fixed && r.Dim == 0:
		return r, fault.BadUsage("", "nothing says how many ranks to keep").Advise("use --dim N, --sv-ratio X, --sv-fro X, --sv-cumulative X, --max-error X or --block N")
	case r.AllowRaise && r.Rule != resize.Fixed:
		return r, fault.BadUsage("--allow-raise", "goes not with %s, which only cuts", given[0])
	}
	date, err := sourceDate(out.env)
	r.Date = date
	return r, err
}

func wholeNumber(v *float64) int {
	if v == nil {
		return 0
	}
	return int(*v)
}

// sourceDate returns the time that SOURCE_DATE_EPOCH of the environment names, as metadata have it; "" without.
func sourceDate(env []string) (string, error) {
	for _, e := range env {
		text, ok := strings.CutPrefix(e, "SOURCE_DATE_EPOCH=")
		if !ok || text == "" {
			continue
		}
		seconds, err := strconv.ParseInt(text, 10, 64)
		if err != nil || seconds < 0 || seconds > 253402300799 { // the year 9999
			return "", fault.BadUsage("SOURCE_DATE_EPOCH", "%q is not a number of seconds since 1970", text)
		}
		return time.Unix(seconds, 0).UTC().Format("2006-01-02T15:04:05"), nil
	}
	return "", nil
}

// tellResize writes what was done.
func tellResize(o resize.Options, r *resize.Report, out *output) {
	for _, w := range r.Warnings {
		out.UI.Warn(w, "")
	}
	for _, n := range r.Notes {
		out.UI.Info(n)
	}
	if r.Rule != "" {
		out.UI.Info("scale of the DyLoRA: " + r.Rule)
	}
	for _, m := range r.Modules {
		fields := map[string]any{"name": m.Name, "part": m.Component, "did": m.Did, "from": m.From, "algorithm": m.Algorithm}
		if m.Did == resize.Copied {
			out.UI.Printf("%-7s  %-55s %s\n", m.Did, m.From, ui.Escape(m.Name))
			out.UI.Emit("module", fields)
			continue
		}
		fields["old_rank"], fields["rank"], fields["alpha"], fields["norm"], fields["error"], fields["kept"] = m.OldRank, m.Rank, m.Alpha, m.Norm, m.Relative(), m.Share()
		best := ""
		if m.Did == resize.Cut {
			fields["best_error"] = 0.0
			if m.Norm > 0 {
				fields["best_error"] = m.Best / m.Norm
			}
			best = fmt.Sprintf("(best %.3e)  ", fields["best_error"])
		}
		out.UI.Printf("%-7s  %4d -> %-4d  kept %6.2f %%  error %.3e  %snorm %.3e  %s\n", m.Did, m.OldRank, m.Rank, 100*m.Share(), m.Relative(), best, m.Norm, ui.Escape(m.Name))
		out.UI.Emit("module", fields)
	}
	for _, t := range append(r.Parts, r.Total) {
		part := t.Part
		if part == "" {
			part = "total"
		}
		out.UI.Printf("%-15s %4d modules  kept %6.2f %% (worst %6.2f %%)  error %.3e\n", part, t.Modules, 100*t.MeanShare, 100*t.MinShare, t.Relative())
		out.UI.Emit("total", map[string]any{"part": part, "modules": t.Modules, "kept": t.MeanShare, "kept_worst": t.MinShare, "error": t.Relative(), "norm": t.Norm})
	}
	out.UI.Printf("%s\n", ui.Escape(o.Out))
	out.setResult("path", o.Out)
	out.setResult("modules", r.Total.Modules)
	out.setResult("copied", r.Count(resize.Copied))
	out.setResult("error", r.Total.Relative())
}
