package main

import (
	"context"

	"github.com/spf13/cobra"

	"lycoris/internal/fault"
	"lycoris/internal/inspect"
	"lycoris/internal/kernels"
	"lycoris/internal/kernels/cpu"
)

func newInspectCommand(out *output) *cobra.Command {
	var opts inspectOptions
	cmd := &cobra.Command{
		Use:   "inspect FILE|FOLDER",
		Short: "say what an adapter, a model or a run is",
		Example: "  lycoris inspect my-cat.safetensors --norms --hash\n" +
			"  lycoris inspect my-cat.safetensors --diff other.safetensors --json",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fault.BadUsage("", "%d files are given, want one", len(args)).Advise("lycoris inspect FILE; two are compared with --diff FILE")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			opts.path = args[0]
			return runInspect(cmd.Context(), opts, out)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.BoolVar(&opts.keys, "keys", false, "list every tensor")
	f.BoolVar(&opts.norms, "norms", false, "norms of factors and changes, and values that aren't finite (reads the data)")
	f.BoolVar(&opts.hash, "hash", false, "hashes, and whether the stored ones are right (reads the data)")
	f.BoolVar(&opts.metadata, "metadata", false, "all metadata")
	f.StringVar(&opts.diff, "diff", "", "compare with `FILE`: modules of adapters, tensors of models")
	return cmd
}

type inspectOptions struct {
	path                        string
	keys, norms, hash, metadata bool
	diff                        string
}

func runInspect(_ context.Context, opts inspectOptions, out *output) error {
	o := inspect.Options{Keys: opts.keys, Norms: opts.norms, Hash: opts.hash, Backend: openCPU}
	r, err := inspect.Open(out.place(opts.path), o)
	if err != nil {
		return err
	}
	if opts.diff != "" {
		if r.Diff, err = inspect.Compare(out.place(opts.path), out.place(opts.diff), o); err != nil {
			return err
		}
	}
	if out.UI.JSON() {
		out.UI.Document(r)
		return nil
	}
	out.UI.Printf("%s", inspectText(r, opts.metadata))
	return nil
}

// openCPU opens the processor as tools use it: every thread, the best instruction set.
func openCPU() (kernels.Backend, error) { return cpu.Open(cpu.Options{}) }
