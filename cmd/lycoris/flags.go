package main

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"lycoris/internal/config"
)

// configFlags are the flags of a command that stand for configuration keys. Their texts go to the configuration unread: one table
// checks values wherever they come from.
type configFlags struct {
	values map[string][]string // by key path, of the flags that were given
	preset string
	strict bool
}

// addConfigFlags adds a flag for every key that has one, or only for the keys named, with --preset and --strict.
func addConfigFlags(cmd *cobra.Command, only ...string) *configFlags {
	c := &configFlags{values: map[string][]string{}}
	wanted := map[string]bool{}
	for _, p := range only {
		wanted[p] = true
	}
	f := cmd.Flags()
	f.SortFlags = false
	for _, k := range config.Keys() {
		if k.Flag == "" || len(only) > 0 && !wanted[k.Path] {
			continue
		}
		usage := k.Doc
		if k.Type == config.Enum {
			usage += ": " + strings.Join(k.Enum, ", ")
		}
		switch {
		case k.Default != "" && k.Default != "[]":
			usage += " (default " + k.Default + ")"
		case k.Derived != "":
			usage += " (default: " + strings.TrimPrefix(k.Derived, "= ") + ")"
		}
		fl := f.VarPF(&keyFlag{key: k, into: c.values}, k.Flag, "", usage)
		if k.Type == config.Bool {
			fl.NoOptDefVal = "true"
		}
		if k.Type == config.Enum {
			words := k.Enum
			cmd.RegisterFlagCompletionFunc(k.Flag, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
				return words, cobra.ShellCompDirectiveNoFileComp
			})
		}
	}
	f.StringVar(&c.preset, "preset", "", "start from a preset: "+strings.Join(config.Presets(), ", "))
	f.BoolVar(&c.strict, "strict", false, "warnings about the configuration are errors")
	return c
}

// input returns what the configuration is made of; resumeFile is config.resolved.yaml of the run that goes on, or empty.
func (c *configFlags) input(out *output, resumeFile string) config.Input {
	g := out.Global
	return config.Input{Flags: c.values, Sets: g.sets, Files: g.configs, NoConfig: g.noConfig, Env: out.env, Dir: out.dir, Preset: c.preset,
		ResumeFile: resumeFile, Strict: c.strict}
}

// load reads the configuration and says what it warns of, and which file it found by itself.
func (c *configFlags) load(out *output, resumeFile string) (*config.Config, *config.Resolved, error) {
	cfg, resolved, err := config.Load(c.input(out, resumeFile))
	if err != nil {
		return nil, nil, err
	}
	for _, w := range resolved.Warnings {
		out.UI.WarnFault(w)
	}
	if len(out.Global.configs) == 0 && resumeFile == "" {
		for _, in := range resolved.Inputs {
			out.UI.Info("using " + in.Name)
		}
	}
	return cfg, resolved, nil
}

// keyFlag collects the texts of one flag.
type keyFlag struct {
	key  *config.Key
	into map[string][]string
}

var _ pflag.Value = (*keyFlag)(nil)

// String is empty: defaults are part of the usage text.
func (k *keyFlag) String() string { return "" }

// Type is the word for the value in help.
func (k *keyFlag) Type() string {
	switch k.key.Type {
	case config.Bool:
		return "bool"
	case config.Int, config.Seed, config.AutoInt:
		return "N"
	case config.Float:
		return "X"
	case config.Path, config.Folders:
		return "PATH"
	}
	return "WORD"
}

// Set keeps the text; a list key collects, of any other the last one counts.
func (k *keyFlag) Set(s string) error {
	if k.key.Type == config.Folders || k.key.Type == config.Texts {
		k.into[k.key.Path] = append(k.into[k.key.Path], s)
		return nil
	}
	k.into[k.key.Path] = []string{s}
	return nil
}
