// Package fault says what kind of thing went wrong, so that one place can turn it into a message and an exit code.
//
// An [Error] has a kind, a place (a file, a folder or a key), one sentence and, where there is something to do, an advice. Packages
// return these for whatever a person can mend; the command prints them (internal/ui) and exits with the code of the kind ([Kind.ExitCode]).
// Messages are one line, lower case, no full stop; names from outside are quoted with %q.
package fault

import (
	"errors"
	"fmt"
)

// Kind groups errors by who can mend them.
type Kind int

// The kinds, with the exit codes of docs/cli.md.
const (
	Failed   Kind = iota // no kind of its own: exit 1
	Usage                // command line or configuration wrong: exit 2
	Findings             // check, plan or doctor found problems: exit 3
	Input                // an input file is missing, damaged, of the wrong kind or unsafe: exit 4
	Output               // output can't be written: exit 5
	Memory               // out of memory, host or device: exit 6
	Device               // the device asked for isn't usable: exit 7
	Diverged             // training diverged: exit 8
	Busy                 // run folder or cache held by another process: exit 9
	Resume               // can't resume: exit 10
)

var names = [...]string{"failed", "usage", "findings", "input", "output", "memory", "device", "diverged", "busy", "resume"}

// String returns the kind's name as it stands in JSON results.
func (k Kind) String() string { return names[k] }

// ExitCode returns the process exit code of the kind.
func (k Kind) ExitCode() int { return int(k) + 1 }

// Error is a mistake that a person can understand: what, where, and what to do.
type Error struct {
	Kind    Kind
	Path    string // file, folder, flag or key it is about; may be empty
	Message string // one line, without the path
	Advice  string // what to do; may be empty or several lines
	Err     error  // cause, may be nil; its text is part of Message already where it helps
}

// Error returns the path and the message on one line.
func (e *Error) Error() string {
	if e.Path == "" {
		return e.Message
	}
	return e.Path + ": " + e.Message
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Advise sets what to do about it and returns e.
func (e *Error) Advise(format string, args ...any) *Error {
	e.Advice = fmt.Sprintf(format, args...)
	return e
}

// New returns an error of kind k about path. A %w verb keeps its argument as the cause.
func New(k Kind, path, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Kind: k, Path: path, Message: err.Error(), Err: errors.Unwrap(err)}
}

// BadInput returns an [Input] error about the file or folder at path.
func BadInput(path, format string, args ...any) *Error { return New(Input, path, format, args...) }

// BadOutput returns an [Output] error about the file or folder at path.
func BadOutput(path, format string, args ...any) *Error { return New(Output, path, format, args...) }

// BadUsage returns a [Usage] error about a flag or key.
func BadUsage(key, format string, args ...any) *Error { return New(Usage, key, format, args...) }

// KindOf returns the kind of the first *Error in err's chain, [Failed] if there is none.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Failed
}
