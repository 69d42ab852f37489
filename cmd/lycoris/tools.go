package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lycoris/internal/fault"
	"lycoris/internal/tensor"
)

// toolFlags are the flags that the tools on model files share.
type toolFlags struct {
	out     string
	dtype   string
	threads *float64
}

// addToolFlags adds them; what is what --out names.
func addToolFlags(cmd *cobra.Command, t *toolFlags, what string) {
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&t.out, "out", "", "write "+what+" to `FILE`")
	choice(f, &t.dtype, "dtype", "keep", "store weights as `TYPE`", "keep", "fp16", "bf16", "fp32")
	f.Var(&numberFlag{v: &t.threads, min: 1, max: 1024, whole: true}, "threads", "threads `N` (default: one per processor); the result doesn't depend on it")
}

// element returns the element type that --dtype names; Invalid for keep.
func (t *toolFlags) element() tensor.DType {
	return map[string]tensor.DType{"fp16": tensor.F16, "bf16": tensor.BF16, "fp32": tensor.F32}[t.dtype]
}

// checkOutput refuses an output that is missing, one of the inputs, inside an input folder or around an input, there already, or in a folder that can't be written to,
// before any input is read. Overwriting an input takes more than --force: a slip of the command line would destroy it. What processes that were killed have left
// half-written beside the output is removed.
func (out *output) checkOutput(path string, inputs ...string) error {
	if path == "" {
		return fault.BadUsage("--out", "no output is given").Advise("say where to write: --out FILE")
	}
	there, err := os.Stat(path)
	for _, in := range inputs {
		stat, inErr := os.Stat(in)
		if inErr != nil {
			continue // the input's own error says it better
		}
		switch {
		case err == nil && os.SameFile(there, stat):
			what := "is an input too"
			if len(inputs) == 1 {
				what = "is the input"
			}
			return fault.BadOutput(path, "%s", what).Advise("write to another file")
		case stat.IsDir() && inside(in, path):
			return fault.BadOutput(path, "lies inside the input %q", in).Advise("write to another folder")
		case err == nil && there.IsDir() && inside(path, in):
			return fault.BadOutput(path, "is a folder that holds the input %q", in).Advise("write to another folder")
		}
	}
	if _, linkErr := os.Lstat(path); linkErr == nil && !out.Global.force {
		return fault.BadOutput(path, "exists already").Advise("write to another file, or overwrite it: --force")
	}
	folder := filepath.Dir(path)
	switch stat, err := os.Stat(folder); {
	case errors.Is(err, fs.ErrNotExist):
		return fault.BadOutput(path, "the folder %q does not exist", folder).Advise("make it first: mkdir -p %q", folder)
	case err == nil && !stat.IsDir():
		return fault.BadOutput(path, "%q is not a folder", folder).Advise("write to a file in a folder that exists")
	}
	if err := tensor.Writable(path); err != nil {
		return err
	}
	tensor.Sweep(folder)
	return nil
}

// inside reports whether path is folder or lies in it, whatever links lead there.
func inside(folder, path string) bool {
	rel, err := filepath.Rel(realPath(folder), realPath(path))
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// checkFile is checkOutput for tools that write one file.
func (out *output) checkFile(path string, inputs ...string) error {
	if stat, err := os.Stat(path); err == nil && stat.IsDir() {
		return fault.BadOutput(path, "is a folder").Advise("give the name of a file")
	}
	return out.checkOutput(path, inputs...)
}

// realPath returns the absolute path without links; the last name need not exist.
func realPath(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		return real
	}
	if folder, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil {
		return filepath.Join(folder, filepath.Base(abs))
	}
	return abs
}

// sourceDate returns the date of SOURCE_DATE_EPOCH as metadata have it, "" without: the same command gives the same bytes.
func (out *output) sourceDate() string {
	for _, pair := range out.env {
		if text, ok := strings.CutPrefix(pair, "SOURCE_DATE_EPOCH="); ok {
			if seconds, err := strconv.ParseInt(text, 10, 64); err == nil {
				return time.Unix(seconds, 0).UTC().Format("2006-01-02T15:04:05Z")
			}
		}
	}
	return ""
}
