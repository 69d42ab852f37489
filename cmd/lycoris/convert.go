package main

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"lycoris/internal/adapter"
	"lycoris/internal/convert"
	"lycoris/internal/fault"
	"lycoris/internal/tensor"
	"lycoris/internal/ui"
)

func newConvertCommand(out *output) *cobra.Command {
	var opts convertOptions
	cmd := &cobra.Command{
		Use:   "convert",
		Short: "adapters under other names or as plain LoRA; models as file or diffusers folder; .ckpt as .safetensors",
		Example: "  lycoris convert --in my-cat.safetensors --out my-cat-peft.safetensors --to diffusers\n" +
			"  lycoris convert --in old.ckpt --out old.safetensors --dtype fp16\n" +
			"  lycoris convert --in sd15.safetensors --out sd15 --to diffusers",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runConvert(cmd.Context(), opts, out) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&opts.in, "in", "", "convert `FILE`: .safetensors, .ckpt, .pt, .bin, or a folder of peft's or of diffusers'")
	f.StringVar(&opts.out, "out", "", "write `FILE`.safetensors; a model --to diffusers, an adapter --to peft: a folder")
	choice(f, &opts.to, "to", "", "`FORM`", convert.Forms...)
	choice(f, &opts.dtype, "dtype", "keep", "element `TYPE`", slices.Sorted(maps.Keys(dtypeNames))...)
	f.Var(&numberFlag{v: &opts.dim, min: 1, max: 100000, whole: true}, "dim", "--to lora: highest rank `N`, and that of the nearest LoRA where there is no exact one")
	f.StringVar(&opts.model, "model", "", "`BASE` the adapter was made for, where its change depends on the weights")
	f.StringVar(&opts.like, "like", "", "a model --to diffusers: take configurations, tokenizers and scheduler from the diffusers `FOLDER`")
	f.BoolVar(&opts.strip, "strip-metadata", false, "leave out metadata, but what tells family, algorithm and scale")
	f.StringArrayVar(&opts.set, "set-metadata", nil, "set `NAME=VALUE` in the metadata (repeatable)")
	return cmd
}

type convertOptions struct {
	in, out, to, dtype, model, like string
	dim                             *float64
	strip                           bool
	set                             []string
}

// dtypeNames are the element types of --dtype.
var dtypeNames = map[string]tensor.DType{"keep": tensor.Invalid, "fp32": tensor.F32, "fp16": tensor.F16, "bf16": tensor.BF16}

func runConvert(ctx context.Context, opts convertOptions, out *output) error {
	out.UI.Hello(version)
	o := convert.Options{In: opts.in, Out: opts.out, To: opts.to, DType: dtypeNames[opts.dtype], Base: opts.model, Like: opts.like, Strip: opts.strip, Set: map[string]string{}, Version: version, Backend: openCPU}
	for _, path := range []*string{&o.In, &o.Out, &o.Base, &o.Like} {
		if *path != "" {
			*path = out.place(*path)
		}
	}
	for _, pair := range opts.set {
		name, value, ok := strings.Cut(pair, "=")
		if !ok {
			return fault.BadUsage("--set-metadata", "%q has no =", pair).Advise("NAME=VALUE")
		}
		o.Set[name] = value
	}
	if opts.dim != nil {
		o.Dim = int(*opts.dim)
	}
	if o.In != "" && o.Out != "" { // what is missing says convert
		inputs := []string{convertInput(o.In)}
		if o.Base != "" {
			inputs = append(inputs, o.Base)
		}
		check := out.checkFile
		if (o.To == "diffusers" || o.To == "peft") && !strings.EqualFold(filepath.Ext(o.Out), ".safetensors") { // a folder
			check = out.checkOutput
		}
		if err := check(o.Out, inputs...); err != nil {
			return err
		}
	}
	progress := out.UI.Progress()
	started := false
	o.Progress = func(done, total int) {
		if !started {
			progress.Phase(ui.Save, total)
			started = true
		}
		progress.Add(1)
	}
	r, err := convert.Run(ctx, o)
	progress.End()
	if err != nil {
		return err
	}
	if len(r.LeftOut) > 0 {
		out.UI.Warn("tensors without a place in the new form are left out", "", "count", len(r.LeftOut), "first", r.LeftOut[0])
	}
	if len(r.Missing) > 0 {
		out.UI.Warn("the folder lacks parts that the file lacks: diffusers loads it as a whole only with them", "", "parts", strings.Join(r.Missing, ", "))
	}
	for _, note := range r.Notes {
		out.UI.Info(note)
	}
	if r.Others > 0 {
		out.UI.Warn("values that are no tensors are left out", "", "count", r.Others)
	}
	if len(r.Errors) > 0 {
		out.UI.Warn("not exact: the nearest LoRA of that rank", "a higher --dim comes closer", "modules", len(r.Errors), "exact", r.Exact,
			"worst", r.Worst, "error", r.Errors[r.Worst])
	}
	out.UI.Emit("convert", map[string]any{"path": opts.out, "kind": r.Kind, "family": r.Family, "to": r.To, "tensors": r.Tensors, "modules": r.Modules, "exact": r.Exact,
		"errors": r.Errors, "worst": r.Worst, "left_out": r.LeftOut, "embeddings": r.Embeddings, "rest": r.Rest, "missing": r.Missing, "notes": r.Notes})
	out.UI.Printf("%s\n", opts.out)
	out.setResult("path", opts.out)
	return nil
}

// convertInput returns what of the input an output mustn't overwrite: of peft's folder the file with the tensors, of a model's folder all.
func convertInput(path string) string {
	if _, err := os.Stat(filepath.Join(path, "model_index.json")); err == nil {
		return path
	}
	return adapter.TensorsFile(path)
}
