package main

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"lycoris/internal/config"
	"lycoris/internal/fault"
)

// newRootCommand returns the program with all its commands.
func newRootCommand(out *output) *cobra.Command {
	g := globalOptions{}
	root := &cobra.Command{
		Use:           "lycoris",
		Short:         "trains adapters (LoRA, LyCORIS) for Stable Diffusion models",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          knownCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(*cobra.Command, []string) error {
			return out.open(g)
		},
	}
	f := root.PersistentFlags()
	f.SortFlags = false
	f.StringArrayVar(&g.configs, "config", nil, "configuration `FILE` (repeatable, the last wins)")
	f.BoolVar(&g.noConfig, "no-config", false, "don't read ./lycoris.yaml or ./lycoris.toml")
	f.StringArrayVar(&g.sets, "set", nil, "set a key: `KEY=VALUE` (repeatable)")
	f.BoolVar(&g.json, "json", false, "results as JSON")
	f.BoolVarP(&g.quiet, "quiet", "q", false, "warnings, errors and the result only")
	f.BoolVarP(&g.verbose, "verbose", "v", false, "debug lines too")
	choice(f, &g.logLevel, "log-level", "", "`LEVEL` of log lines", "debug", "info", "warn", "error")
	choice(f, &g.logFormat, "log-format", "text", "log lines as `FORMAT`", "text", "json")
	f.StringVar(&g.logFile, "log-file", "", "write log lines to `FILE` too")
	choice(f, &g.progress, "progress", "auto", "progress as `MODE`", "auto", "bar", "plain", "none")
	f.Var(&durationFlag{v: &g.progressEvery, min: time.Second}, "progress-every", "`TIME` between plain progress lines (default 30s)")
	choice(f, &g.color, "color", "auto", "colour `WHEN`", "auto", "always", "never")
	f.BoolVar(&g.force, "force", false, "overwrite what exists")
	root.SetFlagErrorFunc(flagError)
	root.SetOut(out.stdout)
	root.SetErr(out.stderr)
	root.AddCommand(newTrainCommand(out), newSampleCommand(out), newMergeCommand(out), newExtractCommand(out), newResizeCommand(out), newInspectCommand(out), newConvertCommand(out), newConfigCommand(out), newVersionCommand(out))
	return root
}

// knownCommand refuses words that are no command.
func knownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	e := fault.BadUsage("", "unknown command %q", args[0])
	var names []string
	for _, c := range cmd.Commands() {
		if !c.Hidden {
			names = append(names, c.Name())
		}
	}
	if near := config.Nearest(args[0], names); near != "" {
		return e.Advise("did you mean %q?", near)
	}
	return e.Advise("commands: %s", strings.Join(names, ", "))
}

// noArgs refuses words behind the flags.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return fault.BadUsage("", "unexpected word %q", args[0]).Advise("%s takes flags only: %s --help", cmd.CommandPath(), cmd.CommandPath())
}

// flagError says what is wrong with a flag, with the nearest one.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	var value *pflag.InvalidValueError
	var missing *pflag.ValueRequiredError
	switch {
	case errors.As(err, &unknown):
		name := unknown.GetSpecifiedName()
		if unknown.GetSpecifiedShortnames() != "" {
			return fault.BadUsage("", "unknown flag \"-%s\"", name).Advise("%s --help lists the flags", cmd.CommandPath())
		}
		return unknownFlag(cmd, name)
	case errors.As(err, &value):
		cause := errors.Unwrap(err)
		if cause == nil {
			cause = err
		}
		text := cause.Error()
		if strings.HasPrefix(text, "strconv.ParseBool") {
			text = "is not true or false"
		}
		return fault.BadUsage("--"+value.GetFlag().Name, "%q %s", value.GetValue(), text)
	case errors.As(err, &missing):
		return fault.BadUsage("--"+missing.GetSpecifiedName(), "a value is missing")
	}
	return fault.BadUsage("", "%s", err.Error())
}

// unknownFlag names the nearest flag of the command, or the key that is reached by --set.
func unknownFlag(cmd *cobra.Command, name string) error {
	e := fault.BadUsage("", "unknown flag \"--%s\"", name)
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	cmd.InheritedFlags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	key := strings.ReplaceAll(name, "-", "_")
	for _, k := range config.Keys() {
		tail := k.Path[strings.LastIndexByte(k.Path, '.')+1:]
		switch {
		case !slices.Contains(k.Foreign, key) && k.Path != key && tail != key:
		case k.Flag != "" && slices.Contains(names, k.Flag):
			return e.Advise("did you mean --%s?", k.Flag)
		case k.Flag == "" && slices.Contains(names, "dim"): // a command that takes keys
			return e.Advise("that key is set with --set %s=VALUE", k.Path)
		}
	}
	if near := config.Nearest(name, names); near != "" {
		return e.Advise("did you mean --%s?", near)
	}
	return e.Advise("%s --help lists the flags", cmd.CommandPath())
}
