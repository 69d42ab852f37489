package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"lycoris/internal/config"
	"lycoris/internal/fault"
	"lycoris/internal/tensor"
)

// newConfigCommand returns config with its four commands; each of them is a function below.
func newConfigCommand(out *output) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "configuration: init, show, keys, schema",
		Args:  knownCommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newConfigInitCommand(out), newConfigShowCommand(out), newConfigKeysCommand(out), newConfigSchemaCommand(out))
	return cmd
}

func newConfigInitCommand(out *output) *cobra.Command {
	opts := configInitOptions{}
	cmd := &cobra.Command{
		Use:     "init",
		Short:   "write a commented configuration file",
		Example: "  lycoris config init\n  lycoris config init --file - | less",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return runConfigInit(cmd.Context(), opts, out) },
	}
	cmd.Flags().StringVar(&opts.file, "file", "lycoris.yaml", "`FILE` to write; - is standard output")
	return cmd
}

type configInitOptions struct{ file string }

func runConfigInit(_ context.Context, opts configInitOptions, out *output) error {
	text := config.Template()
	if opts.file == "-" {
		_, err := out.stdout.Write(text)
		return err
	}
	if _, err := os.Lstat(opts.file); !errors.Is(err, fs.ErrNotExist) && !out.Global.force {
		return fault.BadOutput(opts.file, "exists").Advise("give another --file, or --force to overwrite it")
	}
	err := tensor.WriteAtomic(opts.file, func(w io.Writer) error { _, err := w.Write(text); return err })
	if err != nil {
		return err
	}
	if out.UI.JSON() {
		out.UI.Document(map[string]any{"path": opts.file})
	}
	out.UI.Printf("%s\n", opts.file)
	return nil
}

func newConfigShowCommand(out *output) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "show",
		Short:   "show the resolved configuration, each value with its source",
		Example: "  lycoris config show --preset character\n  lycoris config show --config my.yaml --set lr=2.0e-4",
		Args:    noArgs,
	}
	flags := addConfigFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return runConfigShow(cmd.Context(), flags, out) }
	return cmd
}

func runConfigShow(_ context.Context, flags *configFlags, out *output) error {
	_, resolved, err := flags.load(out, "")
	if err != nil {
		return err
	}
	if !out.UI.JSON() {
		out.UI.Printf("%s", resolved.YAML(""))
		return nil
	}
	doc := map[string]any{}
	for _, k := range config.Keys() {
		doc[k.Path] = map[string]any{"value": resolved.Any(k.Path), "source": resolved.Source(k.Path)}
	}
	out.UI.Document(doc)
	return nil
}

func newConfigKeysCommand(out *output) *cobra.Command {
	return &cobra.Command{
		Use:     "keys",
		Short:   "list every key: type, range, default, flag, meaning",
		Example: "  lycoris config keys\n  lycoris config keys --json",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return runConfigKeys(cmd.Context(), out) },
	}
}

// keyDoc is a key in the document of config keys --json.
type keyDoc struct {
	Key       string   `json:"key"`
	Wants     string   `json:"wants"`
	Default   string   `json:"default"`
	Flag      string   `json:"flag,omitempty"`
	Env       string   `json:"env"`
	Resumable bool     `json:"resumable"`
	Foreign   []string `json:"foreign,omitempty"`
	Doc       string   `json:"doc"`
}

func runConfigKeys(_ context.Context, out *output) error {
	var docs []keyDoc
	for _, k := range config.Keys() {
		d := keyDoc{Key: k.Path, Wants: k.Wants(), Default: k.Default, Env: k.EnvName(), Resumable: k.Resumable, Foreign: k.Foreign, Doc: k.Doc}
		if d.Default == "" {
			d.Default = k.Derived
		}
		if k.Flag != "" {
			d.Flag = "--" + k.Flag
		}
		docs = append(docs, d)
	}
	if out.UI.JSON() {
		out.UI.Document(docs)
		return nil
	}
	for _, d := range docs {
		mark := ""
		if d.Resumable {
			mark = " (may change on --resume)"
		}
		def := ""
		if d.Default != "" {
			def = "; default " + strings.TrimPrefix(d.Default, "= ")
		}
		out.UI.Printf("%-24s %s%s\n", d.Key, d.Doc, mark)
		out.UI.Printf("%-24s %s%s%s\n", "", d.Wants, def, flagNote(d.Flag))
	}
	return nil
}

func flagNote(flag string) string {
	if flag == "" {
		return ""
	}
	return fmt.Sprintf("; flag %s", flag)
}

func newConfigSchemaCommand(out *output) *cobra.Command {
	return &cobra.Command{
		Use:     "schema",
		Short:   "write a JSON Schema of configuration files",
		Example: "  lycoris config schema > lycoris.schema.json\n  lycoris config schema --json",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return runConfigSchema(cmd.Context(), out) },
	}
}

func runConfigSchema(_ context.Context, out *output) error {
	out.UI.Document(config.Schema())
	return nil
}
