package ui

import (
	"os"

	"golang.org/x/term"
)

// defaultWidth is the width of what isn't a terminal.
const defaultWidth = 100

// Terminal is what decides about colour and bars.
type Terminal struct {
	IsTerminal bool                // standard error is one
	Width      int                 // columns, 0 when unknown
	Env        func(string) string // environment variables
}

// Detect looks at a file, which is standard error as a rule.
func Detect(f *os.File) Terminal {
	t := Terminal{Env: os.Getenv}
	if t.IsTerminal = term.IsTerminal(int(f.Fd())); t.IsTerminal {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil {
			t.Width = w
		}
	}
	return t
}

// Bar reports whether progress is a bar for --progress mode (auto, bar, plain, none): in auto, on a terminal that isn't dumb and not in CI.
func (t Terminal) Bar(mode string) bool {
	switch mode {
	case "bar":
		return true
	case "plain", "none":
		return false
	}
	return t.IsTerminal && t.Env("TERM") != "dumb" && t.Env("CI") == ""
}

// Color reports whether to use colour for --color mode (auto, always, never): the flag, then NO_COLOR, then CLICOLOR_FORCE, then the terminal.
func (t Terminal) Color(mode string) bool {
	switch {
	case mode == "always":
		return true
	case mode == "never" || t.Env("NO_COLOR") != "":
		return false
	case t.Env("CLICOLOR_FORCE") != "" && t.Env("CLICOLOR_FORCE") != "0":
		return true
	}
	return t.IsTerminal && t.Env("TERM") != "dumb"
}
