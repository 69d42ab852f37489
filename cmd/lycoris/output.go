package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"sync/atomic"
	"time"

	"lycoris/internal/fault"
	"lycoris/internal/ui"
)

// output is what a command speaks through and knows of its surroundings; run… functions take it as their last argument.
type output struct {
	UI     *ui.UI
	Global globalOptions

	voice          atomic.Pointer[ui.UI] // UI for the signal goroutine
	term           ui.Terminal
	stdout, stderr io.Writer
	env            []string
	dir            string         // folder that paths count from; empty: the current one
	result         map[string]any // fields of the last JSON line
	logFile        *os.File
}

// globalOptions are the flags that every command has.
type globalOptions struct {
	configs       []string
	noConfig      bool
	sets          []string
	json          bool
	quiet         bool
	verbose       bool
	logLevel      string
	logFormat     string
	logFile       string
	progress      string
	progressEvery time.Duration
	color         string
	force         bool
}

// open makes the voice that the global flags ask for.
func (out *output) open(g globalOptions) error {
	out.Global = g
	o := ui.Options{Stdout: out.stdout, Stderr: out.stderr, JSON: g.json, Quiet: g.quiet, Verbose: g.verbose, JSONLog: g.logFormat == "json",
		Bar: out.term.Bar(g.progress) && g.logFormat != "json", NoProgress: g.progress == "none", Color: out.term.Color(g.color), Width: out.term.Width, ProgressEvery: g.progressEvery}
	if level, ok := ui.ParseLevel(g.logLevel); ok {
		o.Level = &level
	}
	out.UI = ui.New(o)
	out.voice.Store(out.UI)
	if g.logFile != "" {
		f, err := os.OpenFile(g.logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			var cause *fs.PathError
			if errors.As(err, &cause) {
				err = cause.Err
			}
			return fault.BadOutput(g.logFile, "can't be written: %w", err).Advise("give --log-file a file in a folder that exists and can be written")
		}
		out.logFile = f
		out.UI.AddLog(f)
	}
	return nil
}

// setResult sets a field of the last JSON line, such as path.
func (out *output) setResult(name string, v any) {
	if out.result == nil {
		out.result = map[string]any{}
	}
	out.result[name] = v
}

// close ends the voice.
func (out *output) close() {
	out.voice.Store(nil)
	out.UI.Close()
	if out.logFile != nil {
		out.logFile.Close()
	}
}
