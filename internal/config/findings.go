package config

import (
	"errors"
	"fmt"
	"strings"

	"lycoris/internal/fault"
)

// maxFindings is how many mistakes are told at once.
const maxFindings = 20

// Findings are all mistakes of a configuration. It is an error; errors.As finds the first *fault.Error in it.
type Findings struct{ list []*fault.Error }

// add appends a mistake at origin.
func (f *Findings) add(origin, format string, args ...any) *fault.Error {
	e := fault.BadUsage(origin, format, args...)
	f.list = append(f.list, e)
	return e
}

// List returns the mistakes in the order of their sources.
func (f *Findings) List() []*fault.Error { return f.list }

// Error returns all mistakes, one a line.
func (f *Findings) Error() string {
	lines := make([]string, len(f.list))
	for i, e := range f.list {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the mistakes.
func (f *Findings) Unwrap() []error {
	out := make([]error, len(f.list))
	for i, e := range f.list {
		out[i] = e
	}
	return out
}

// err returns nil when nothing was found, else at most maxFindings findings and a count of the rest.
func (f *Findings) err() error {
	if len(f.list) == 0 {
		return nil
	}
	if n := len(f.list); n > maxFindings {
		cut := &Findings{list: append([]*fault.Error(nil), f.list[:maxFindings]...)}
		cut.list = append(cut.list, &fault.Error{Kind: fault.Usage, Message: fmt.Sprintf("and %d more", n-maxFindings), Err: errMore})
		return cut
	}
	return f
}

var errMore = errors.New("more findings than are shown")
