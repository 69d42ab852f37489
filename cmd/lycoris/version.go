package main

import (
	"context"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"lycoris/internal/kernels/cpu"
	"lycoris/internal/ui"
)

// version is the program's version; the Makefile sets it by -ldflags.
var version = "0.1.0-dev"

func newVersionCommand(out *output) *cobra.Command {
	var opts versionOptions
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "version, commit, kernels, devices and licences",
		Example: "  lycoris version\n  lycoris version --json",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return runVersion(cmd.Context(), opts, out) },
	}
	cmd.Flags().BoolVar(&opts.licences, "licences", false, "list the modules in the program and their licences")
	return cmd
}

type versionOptions struct{ licences bool }

// versionInfo is the document of version --json.
type versionInfo struct {
	Schema   string    `json:"schema"`
	Version  string    `json:"version"`
	Commit   string    `json:"commit"`
	Go       string    `json:"go"`
	Platform string    `json:"platform"`
	Kernels  []string  `json:"kernels"` // instruction sets that this machine can run, best first
	Devices  []device  `json:"devices"`
	CUDA     cudaInfo  `json:"cuda"`
	Licences []licence `json:"licences"`
}

func runVersion(_ context.Context, opts versionOptions, out *output) error {
	v := versionInfo{Schema: ui.Schema, Version: version, Commit: commit(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
		Kernels: kernelSets(), Licences: licences()}
	v.Devices, v.CUDA = devices()
	if out.UI.JSON() {
		out.UI.Document(v)
		return nil
	}
	out.UI.Printf("lycoris %s\ncommit   %s\ngo       %s %s\nkernels  %s\n", v.Version, v.Commit, v.Go, v.Platform, strings.Join(v.Kernels, " "))
	for _, d := range v.Devices {
		out.UI.Printf("device   %s %s, %.1f GiB, capability %s\n", d.Name, ui.Escape(d.Model), float64(d.MemoryBytes)/(1<<30), d.Capability)
	}
	if why := ui.Escape(v.CUDA.WhyAbsent); len(v.Devices) == 0 {
		out.UI.Printf("devices  none: %s\n", why)
	} else if why != "" {
		out.UI.Printf("devices  not all: %s\n", why)
	}
	if opts.licences {
		for _, l := range v.Licences {
			out.UI.Printf("%-50s %-40s %s\n", l.Module, l.Version, l.Licence)
		}
		return nil
	}
	out.UI.Printf("licences %d modules, see lycoris version --licences\n", len(v.Licences))
	return nil
}

// kernelSets returns the kernel sets that people choose from: "wide" exists for tests.
func kernelSets() []string {
	sets := slices.DeleteFunc(cpu.ISAs(), func(s string) bool { return s == "wide" })
	if len(sets) == 0 {
		return []string{"none"}
	}
	return sets
}

// commit returns the commit that the program was built from, with + when the tree had changes.
func commit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	rev, dirty := "unknown", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			rev = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "+"
		}
	}
	return rev + dirty
}
