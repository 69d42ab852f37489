package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"lycoris/internal/adapter"
	"lycoris/internal/arch"
	"lycoris/internal/extract"
	"lycoris/internal/fault"
	"lycoris/internal/kernels"
	"lycoris/internal/kernels/cpu"
)

func newExtractCommand(out *output) *cobra.Command {
	var opts extractOptions
	cmd := &cobra.Command{
		Use:   "extract",
		Short: "make an adapter of what was trained: tuned model minus base",
		Example: "  lycoris extract --base base.safetensors --tuned trained.safetensors --out my-cat.safetensors --dim 32 --conv-dim 8\n" +
			"  lycoris extract --base base.safetensors --tuned merged.safetensors --out my-cat.safetensors --algo lokr --factor 8",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runExtract(cmd.Context(), opts, out) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&opts.base, "base", "", "model that the training started from: `PATH`")
	f.StringVar(&opts.tuned, "tuned", "", "model that came out of it: `PATH`")
	f.StringVar(&opts.out, "out", "", "write the adapter to `FILE`")
	choice(f, &opts.algo, "algo", "lora", "`NAME`", extract.Algorithms...)
	f.Var(&numberFlag{v: &opts.dim, min: 1, max: 4096, whole: true}, "dim", "rank `N`, or its limit beside a rule (default 16, loha 4; lokr: whole factors); diag-oft: outputs per block")
	f.Var(&numberFlag{v: &opts.convDim, min: 0, max: 4096, whole: true}, "conv-dim", "rank `N` of kernels larger than a pixel, 0: left out (default 0; locon: as --dim)")
	f.Var(&numberFlag{v: &opts.ratio, min: 1e-9, max: 1e9}, "sv-ratio", "keep singular values of at least the largest divided by `X`; below 1: more than X times the largest")
	f.Var(&numberFlag{v: &opts.fro, min: 1e-9, max: 1}, "sv-fro", "keep as few singular values as hold the share `X` of the change's norm")
	f.Var(&numberFlag{v: &opts.threshold, min: 1e-30, max: 1e30}, "sv-threshold", "keep singular values above `X`")
	f.Var(&numberFlag{v: &opts.quantile, min: 1e-9, max: 1}, "sv-quantile", "keep singular values while their sum is below the share `X` of all")
	f.Var(&numberFlag{v: &opts.factor, min: -1, max: 4096, whole: true}, "factor", "lokr: outputs and inputs of the small factor `N`, -1: nearest to square (default -1)")
	f.BoolVar(&opts.norms, "norms", false, "gains and biases of norms too (full: always)")
	f.BoolVar(&opts.keepNoise, "keep-noise", false, "keep differences that are no more than the rounding of the two files")
	f.StringSliceVar(&opts.parts, "parts", nil, "only these `PARTS`: unet, te, te1, te2")
	choice(f, &opts.dtype, "dtype", "fp16", "store as `TYPE`", "fp16", "bf16", "fp32")
	f.Var(&numberFlag{v: &opts.threads, min: 1, max: 1024, whole: true}, "threads", "modules at a time `N` (default: the processors); the result doesn't depend on it")
	return cmd
}

type extractOptions struct {
	toolFlags
	base, tuned                     string
	algo                            string
	dim, convDim, factor            *float64 // nil: not given
	ratio, fro, threshold, quantile *float64
	norms, keepNoise                bool
	parts                           []string
}

// The memory that layers in work may take together, and from which on the collector works harder. A worker's engine and the files' pages are beside it.
const (
	layerMemory = 512 << 20
	heapLimit   = 900 << 20
)

func runExtract(ctx context.Context, opts extractOptions, out *output) error {
	out.UI.Hello(version)
	o, err := opts.options()
	if err != nil {
		return err
	}
	base, tuned, path := out.place(opts.base), out.place(opts.tuned), out.place(opts.out)
	if err := out.checkFile(path, base, tuned); err != nil {
		return err
	}
	if o.Workers = wholeNumber(opts.threads); o.Workers == 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	o.Backend = func() (kernels.Backend, func(), error) {
		b, err := cpu.Open(cpu.Options{Threads: 1})
		if err != nil {
			return nil, nil, err
		}
		return b, b.Close, nil
	}
	if o.Algorithm != "full" { // whose result itself is large
		defer debug.SetMemoryLimit(debug.SetMemoryLimit(heapLimit))
	}
	progress := out.UI.Progress()
	defer progress.End()
	o.Started = func(n int) { progress.Phase("extract", n) }
	o.Done = func() { progress.Add(1) }
	from, err := extract.Open(base)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := extract.Open(tuned)
	if err != nil {
		return err
	}
	defer to.Close()
	report, err := extract.Run(ctx, from, to, o)
	if err != nil {
		return err
	}
	progress.Phase("save", 0)
	if err := adapter.Save(path, report.Tensors(), extract.Metadata(report, from, to, o, path), o.DType); err != nil {
		return err
	}
	progress.End()
	printExtract(report, o, opts.out, out)
	return nil
}

// options turns flags into what the package takes.
func (o *extractOptions) options() (extract.Options, error) {
	for _, needed := range []struct{ name, v string }{{"base", o.base}, {"tuned", o.tuned}, {"out", o.out}} {
		if needed.v == "" {
			return extract.Options{}, fault.BadUsage("--"+needed.name, "is needed").Advise("lycoris extract --base BASE --tuned TUNED --out FILE")
		}
	}
	number := func(v *float64) float64 {
		if v == nil {
			return 0
		}
		return *v
	}
	x := extract.Options{
		Algorithm: o.algo, ConvDim: int(number(o.convDim)), Factor: int(number(o.factor)), Norms: o.norms, KeepNoise: o.keepNoise, Memory: layerMemory,
		Rule:  extract.Rule{Dim: int(number(o.dim)), Ratio: number(o.ratio), Fro: number(o.fro), Threshold: number(o.threshold), Quantile: number(o.quantile)},
		DType: o.element(),
	}
	for _, p := range o.parts {
		c, ok := map[string]arch.Component{"unet": arch.UNet, "te": arch.TextEncoder, "te1": arch.TextEncoder, "te2": "text_encoder_2"}[p]
		if !ok {
			return x, fault.BadUsage("--parts", "%q is no part", p).Advise("parts are unet, te (te1) and te2")
		}
		x.Components = append(x.Components, c)
	}
	return x, nil
}

// printExtract prints the table of errors and the path, or the same as JSON.
func printExtract(r *extract.Report, o extract.Options, path string, out *output) {
	width := 6
	for _, m := range r.Modules {
		if m.Status == extract.Fitted {
			width = max(width, len(m.Name))
		}
	}
	compared := ""
	if r.Total.Compared {
		compared = "     LoRA of this size"
	}
	out.UI.Printf("%-*s  rank  change     error%s\n", width, "module", compared)
	for _, m := range r.Modules {
		fields := map[string]any{"name": m.Name, "status": string(m.Status)}
		if m.Status == extract.Fitted || m.Status == extract.LeftOut {
			fields["change"], fields["weight"] = m.Change, m.Weight
		}
		if m.Status == extract.Fitted {
			fields["rank"], fields["error"], fields["relative_error"], fields["max_error"] = m.Rank, m.Missing, m.Relative(), m.Worst
			rank := fmt.Sprint(m.Rank)
			if m.Rank == 0 {
				rank = "-"
			}
			lora := ""
			if m.LoRARank > 0 {
				lora = fmt.Sprintf("  %-8s rank %d", share(m.LoRARelative()), m.LoRARank)
				fields["lora_rank"], fields["lora_relative_error"] = m.LoRARank, m.LoRARelative()
			}
			out.UI.Printf("%-*s  %4s  %-9.3g  %-8s%s\n", width, m.Name, rank, m.Change, share(m.Relative()), lora)
		}
		out.UI.Emit("module", fields)
		if m.Note != "" {
			out.UI.Warn(m.Path+": "+m.Note, "")
		}
	}
	var parts []any
	for _, p := range append(r.Parts, r.Total) {
		name := string(p.Component)
		if name == "" {
			name = "total"
		}
		words := []string{fmt.Sprintf("%d modules", p.Count[extract.Fitted])}
		if p.Compared {
			words = append(words, "LoRA of this size "+share(p.LoRARelative()))
		}
		for _, s := range []extract.Status{extract.Equal, extract.Noise, extract.LeftOut} {
			if p.Count[s] > 0 {
				words = append(words, fmt.Sprintf("%d %s", p.Count[s], s))
			}
		}
		if p.LeftOut > 0 {
			words = append(words, fmt.Sprintf("left out %s of the energy", share(p.LeftOutShare())))
		}
		out.UI.Printf("%-14s change %-9.3g error %-8s %s\n", name, p.Change, share(p.Relative()), strings.Join(words, ", "))
		fields := map[string]any{"modules": p.Count[extract.Fitted], "equal": p.Count[extract.Equal], "rounding": p.Count[extract.Noise], "left_out": p.Count[extract.LeftOut],
			"change": p.Change, "error": p.Missing, "relative_error": p.Relative(), "left_out_energy": p.LeftOutShare(), "left_out_kernels": p.Kernels, "left_out_norms": p.Norms, "left_out_biases": p.Biases}
		if p.Compared {
			fields["lora_relative_error"] = p.LoRARelative()
		}
		if p.Component == "" {
			out.setResult("total", fields)
			continue
		}
		fields["part"] = name
		parts = append(parts, fields)
	}
	for _, m := range r.Missing {
		out.UI.Warn("only one of the models has "+m+": left out", "")
	}
	for _, left := range []struct {
		n             int
		what, advised string
	}{{r.Total.Kernels, "kernels larger than a pixel", "--conv-dim N takes them in"}, {r.Total.Norms, "norms", "--norms takes them in"}, {r.Total.Biases, "biases", "--algo full takes them in"}} {
		if left.n > 0 {
			out.UI.Info(fmt.Sprintf("%d %s changed and were left out; %s", left.n, left.what, left.advised))
		}
	}
	out.setResult("parts", parts)
	out.setResult("algorithm", o.Algorithm)
	out.setResult("path", path)
	out.UI.Printf("%s\n", path)
}

// share writes a share with three digits.
func share(x float64) string { return fmt.Sprintf("%.3g%%", 100*x) }
