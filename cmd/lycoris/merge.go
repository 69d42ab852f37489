package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"lycoris/internal/fault"
	"lycoris/internal/kernels/cpu"
	"lycoris/internal/merge"
	"lycoris/internal/modelfile"
	"lycoris/internal/tensor"
)

func newMergeCommand(out *output) *cobra.Command {
	var opts mergeOptions
	cmd := &cobra.Command{
		Use:   "merge",
		Short: "bake adapters into a model, or make one adapter of several",
		Example: "  lycoris merge --model base.safetensors --adapter my-cat.safetensors:0.8 --out merged.safetensors\n" +
			"  lycoris merge --model folder --adapter a.safetensors --adapter b.safetensors:0.5,te=0,blocks=OUT*=0.5 --out merged\n" +
			"  lycoris merge --adapter a.safetensors --adapter b.safetensors:0.5 --out both.safetensors",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("model") && opts.model == "" { // an unset variable of a script: not a wish to join adapters
				return fault.BadUsage("--model", "is empty").Advise("name a model, or leave out --model to make one adapter of several")
			}
			return runMerge(cmd.Context(), opts, out)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&opts.model, "model", "", "base model `PATH`: a .safetensors file or a diffusers folder (SD1.x, SD2.x, SDXL); without one the adapters become one adapter")
	f.StringArrayVar(&opts.adapters, "adapter", nil, "adapter as `FILE[:WEIGHT][,unet=X][,te=X][,blocks=…]` (repeatable: applied in this order)")
	addToolFlags(cmd, &opts.toolFlags, "the merged model (a folder for a folder) or adapter")
	for _, w := range []struct {
		name, doc string
		v         **float64
	}{{"unet-weight", "UNet part by `X`", &opts.unet}, {"te-weight", "text encoder part by `X`", &opts.te}, {"te1-weight", "SDXL's first text encoder by `X` (default: --te-weight)", &opts.te1},
		{"te2-weight", "SDXL's second text encoder by `X` (default: --te-weight)", &opts.te2}} {
		f.Var(&numberFlag{v: w.v, min: -1e4, max: 1e4}, w.name, "multiply the "+w.doc)
	}
	f.StringVar(&opts.blocks, "blocks", "", "multiply blocks by `LIST`: 17:1,0.5,… or IN04=0.5,M00=0,OUT*=0.8")
	choice(f, &opts.as, "as", merge.AsConsumer, "read DoRA as `PROGRAM`", merge.AsConsumer, merge.AsLycoris, merge.AsComfy)
	choice(f, &opts.ema, "ema", merge.EMAKeep, "the model's running averages: `WHAT` to do", merge.EMAKeep, merge.EMAMerge, merge.EMADrop)
	f.StringSliceVar(&opts.parts, "parts", nil, "merge into these `PARTS` only: unet, te, te1, te2")
	f.BoolVar(&opts.inPlace, "in-place", false, "write the merged model in the base's place, when it is whole")
	f.BoolVar(&opts.saturate, "saturate", false, "values too large for the element type become its largest, instead of an error")
	f.StringVar(&opts.variant, "variant", "", "of a diffusers folder the `NAME`d files: fp16 for model.fp16.safetensors")
	choice(f, &opts.vaeDType, "vae-dtype", "keep", "store the VAE as `TYPE`", "keep", "fp16", "bf16", "fp32")
	f.StringVar(&opts.embeddings, "emit-embeddings", "", "write embeddings that are bundled with adapters to `DIR`")
	addJoinFlags(f, &opts.join)
	f.BoolVar(&opts.allow, "allow-unmatched", false, "leave out tensors of adapters that fit no layer")
	return cmd
}

type mergeOptions struct {
	toolFlags
	model              string
	adapters           []string
	unet, te, te1, te2 *float64
	blocks             string
	as, ema            string
	parts              []string
	allow              bool
	join               joinFlags
	inPlace, saturate  bool
	variant, vaeDType  string
	embeddings         string
}

func runMerge(ctx context.Context, opts mergeOptions, out *output) error {
	out.UI.Hello(version)
	began := time.Now()
	o, err := opts.parse(out)
	if err != nil {
		return err
	}
	if opts.joins() {
		return runJoin(ctx, opts, o, out)
	}
	var inputs []string
	if !opts.inPlace {
		inputs = append(inputs, o.Model)
	}
	for _, a := range o.Adapters {
		inputs = append(inputs, a.Path)
	}
	if err := out.checkMerged(o, opts.inPlace, inputs); err != nil {
		return err
	}
	o.Force = out.Global.force
	plan, err := merge.Prepare(o)
	if err != nil {
		return err
	}
	defer plan.Close()
	for _, w := range plan.Warnings {
		out.UI.Warn(w, "")
	}
	var threads int
	if opts.threads != nil {
		threads = int(*opts.threads)
	}
	backend, err := cpu.Open(cpu.Options{Threads: threads})
	if err != nil {
		return err
	}
	defer backend.Close()
	progress := out.UI.Progress()
	progress.Phase("merge MiB", int(plan.Bytes>>20))
	defer progress.End()
	told := counter{}
	res, err := plan.Run(ctx, backend, func(bytes int64) { progress.Add(told.upTo(bytes >> 20)) })
	if err != nil {
		return err
	}
	progress.End()
	tellMerge(plan, res, o, time.Since(began), out)
	return nil
}

// checkMerged is checkOutput, for the model's own place too where that is asked for.
func (out *output) checkMerged(o merge.Options, inPlace bool, inputs []string) error {
	if !inPlace {
		return out.checkOutput(o.Out, inputs...)
	}
	stat, err := os.Lstat(o.Model)
	if err == nil && stat.Mode()&os.ModeSymlink != 0 {
		return fault.BadOutput(o.Model, "is a link: a model written in its place would stand beside the one it points to").Advise("name the model itself")
	}
	return nil // that it is there and a model, Prepare finds out
}

// counter turns totals that may come out of order into what each adds.
type counter struct {
	lock sync.Mutex
	told int64
}

func (c *counter) upTo(total int64) int {
	c.lock.Lock()
	defer c.lock.Unlock()
	n := max(total-c.told, 0)
	c.told += n
	return int(n)
}

// parse checks the command line.
func (m *mergeOptions) parse(out *output) (merge.Options, error) {
	number := func(v *float64, absent float64) float64 {
		if v == nil {
			return absent
		}
		return *v
	}
	te := number(m.te, 1)
	o := merge.Options{Model: m.model, Out: m.out, UNet: number(m.unet, 1), Text: [2]float64{number(m.te1, te), number(m.te2, te)}, DType: m.element(), As: m.as, EMA: m.ema,
		AllowUnmatched: m.allow, Version: version, Date: out.sourceDate()}
	if len(m.adapters) == 0 {
		return o, fault.BadUsage("--adapter", "no adapter is given").Advise("use --adapter FILE or --adapter FILE:WEIGHT")
	}
	if err := m.join.check(m); err != nil {
		return o, err
	}
	o.Variant, o.Saturate, o.Embeddings = m.variant, m.saturate, m.embeddings
	o.VAEDType = (&toolFlags{dtype: m.vaeDType}).element()
	if m.inPlace {
		if m.out != "" {
			return o, fault.BadUsage("--out", "goes not with --in-place, which writes to the model's place")
		}
		o.Out = m.model
	}
	var err error
	if m.blocks != "" {
		if o.Blocks, err = merge.ParseBlocks(m.blocks); err != nil {
			return o, err
		}
	}
	for _, part := range m.parts {
		switch part {
		case "unet":
			o.Parts = append(o.Parts, modelfile.UNet)
		case "te":
			o.Parts = append(o.Parts, modelfile.TextEncoder, modelfile.TextEncoder2)
		case "te1":
			o.Parts = append(o.Parts, modelfile.TextEncoder)
		case "te2":
			o.Parts = append(o.Parts, modelfile.TextEncoder2)
		default:
			return o, fault.BadUsage("--parts", "%q is not a part", part).Advise("parts are unet, te, te1, te2")
		}
	}
	for _, text := range m.adapters {
		s, err := parseSource(text)
		if err != nil {
			return o, err
		}
		o.Adapters = append(o.Adapters, s)
	}
	return o, nil
}

// sourceKeys are what may follow an adapter's name and weight.
var sourceKeys = []string{"unet", "te", "te1", "te2", "blocks"}

// parseSource takes FILE[:WEIGHT][,unet=X][,te=X][,blocks=…] apart; blocks come last. A file whose whole name is text has weight 1.
func parseSource(text string) (merge.Source, error) {
	head, tail := text, ""
	if _, err := os.Stat(text); err != nil {
		for _, key := range sourceKeys {
			if i := strings.Index(text, ","+key+"="); i >= 0 && i < len(head) {
				head, tail = text[:i], text[i+1:]
			}
		}
	}
	path, weight, err := splitWeight(head)
	s := merge.Source{Path: path, Weight: weight}
	if err != nil {
		return s, err
	}
	for tail != "" {
		if list, ok := strings.CutPrefix(tail, "blocks="); ok {
			s.Blocks, err = merge.ParseBlocks(list)
			return s, err
		}
		item, rest, _ := strings.Cut(tail, ",")
		key, value, _ := strings.Cut(item, "=")
		if !slices.Contains(sourceKeys, key) {
			return s, fault.BadUsage("--adapter", "%q is not understood", item).Advise("an adapter is FILE[:WEIGHT][,unet=X][,te=X][,te1=X][,te2=X][,blocks=LIST]")
		}
		x, err := strconv.ParseFloat(value, 64)
		if err != nil || x-x != 0 {
			return s, fault.BadUsage("--adapter", "%q is not a weight", item)
		}
		switch key {
		case "unet":
			s.UNet = &x
		case "te":
			s.Text = [2]*float64{&x, &x}
		case "te1":
			s.Text[0] = &x
		case "te2":
			s.Text[1] = &x
		}
		tail = rest
	}
	return s, nil
}

// tellMerge says what was done.
func tellMerge(plan *merge.Plan, res *merge.Result, o merge.Options, took time.Duration, out *output) {
	var adapters []any
	for _, a := range plan.Adapters {
		words := []string{fmt.Sprintf("weight %g", a.Source.Weight)}
		for _, c := range slices.Sorted(maps.Keys(a.Modules)) {
			words = append(words, fmt.Sprintf("%s %d modules", c, a.Modules[c]))
		}
		words = append(words, slices.Sorted(maps.Keys(a.Algorithms))...)
		if a.LeftOut > 0 {
			words = append(words, fmt.Sprintf("%d left out", a.LeftOut))
		}
		if a.File.NoAlpha > 0 {
			words = append(words, fmt.Sprintf("%d without alpha, scale 1", a.File.NoAlpha))
		}
		out.UI.Info(fmt.Sprintf("%s: %s", a.Source.Path, strings.Join(words, ", ")))
		adapters = append(adapters, map[string]any{"path": a.Source.Path, "weight": a.Source.Weight, "modules": a.Modules, "algorithms": a.Algorithms, "left_out": a.LeftOut, "no_alpha": a.File.NoAlpha,
			"unmatched": len(a.File.Unknown)})
	}
	if len(res.NaN) > 0 {
		out.UI.Warn(fmt.Sprintf("%d tensors that were copied hold NaN or infinite values, the first is %q", len(res.NaN), res.NaN[0]), "")
	}
	if res.Clamped > 0 {
		out.UI.Warn(fmt.Sprintf("%d values were too large for the element type and are its largest now", res.Clamped), "write another element type: --dtype bf16 or fp32")
	}
	for _, path := range res.Emitted {
		out.UI.Info("embedding: " + path)
	}
	out.UI.Info(fmt.Sprintf("merged %d tensors in %.1f s: the change is %.2g %% of the weights, storing it lost %.2g %% of it", res.Touched, took.Seconds(), 100*res.Change, 100*res.Loss))
	if res.Loss > 0.1 {
		out.UI.Warn(fmt.Sprintf("storing the weights lost %.0f %% of the change: it is small for their element type", 100*res.Loss), "write a finer one: --dtype fp32")
	}
	out.UI.Printf("%s\n", o.Out)
	for name, v := range map[string]any{"path": o.Out, "family": plan.Family, "tensors": res.Touched, "adapters": adapters, "change": res.Change, "loss": res.Loss, "clamped": res.Clamped, "embeddings": res.Emitted, "bytes": plan.Bytes,
		"size": tensor.FormatBytes(plan.Bytes), "seconds": took.Seconds(), "warnings": plan.Warnings} {
		out.setResult(name, v)
	}
}
