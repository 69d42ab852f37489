package ui

import (
	"errors"
	"regexp"
	"slices"
	"strings"

	"lycoris/internal/fault"
)

// place matches file:line:column and file:line.
var place = regexp.MustCompile(`:[0-9]+(:[0-9]+)?$`)

// predicates begin messages that read on from the name of a file: "base.safetensors is damaged".
var predicates = []string{"is", "has", "can't", "holds", "wants", "exists", "doesn't", "says", "was", "isn't", "ends", "needs"}

// ExitCode returns the process exit code for err: that of the first error with one of its own (a signal's stop), else that of its
// [fault.Kind]; 0 for nil.
func ExitCode(err error) int {
	if err == nil {
		return 0
	}
	var own interface{ ExitCode() int }
	if errors.As(err, &own) {
		return own.ExitCode()
	}
	return fault.KindOf(err).ExitCode()
}

// Faults returns the parts of err: each *fault.Error of an error made of several, else err itself as one. A *fault.Error speaks for its
// causes.
func Faults(err error) []*fault.Error {
	for e := err; e != nil; e = errors.Unwrap(e) {
		if one, ok := e.(*fault.Error); ok {
			if one.Error() == err.Error() {
				return []*fault.Error{one}
			}
			return []*fault.Error{{Kind: one.Kind, Message: err.Error(), Advice: one.Advice, Err: err}}
		}
		if many, ok := e.(interface{ Unwrap() []error }); ok {
			var out []*fault.Error
			for _, part := range many.Unwrap() {
				out = append(out, Faults(part)...)
			}
			return out
		}
	}
	return []*fault.Error{{Kind: fault.Failed, Message: err.Error(), Err: err}}
}

// Error prints what went wrong, where, and what to do; all parts of it.
func (u *UI) Error(err error) {
	for _, e := range Faults(err) {
		msg, advice := describe(e)
		u.say(Error, msg, advice, nil)
	}
}

// WarnFault prints an error as a warning.
func (u *UI) WarnFault(err error) {
	for _, e := range Faults(err) {
		msg, advice := describe(e)
		u.say(Warn, msg, advice, nil)
	}
}

// describe returns the first line and the indented lines of a message: a place in a file stands on a line of its own.
func describe(e *fault.Error) (msg, advice string) {
	first, _, _ := strings.Cut(e.Message, " ")
	switch {
	case e.Path == "":
		return e.Message, e.Advice
	case place.MatchString(e.Path):
		return e.Message, strings.TrimRight(e.Path+"\n"+e.Advice, "\n")
	case slices.Contains(predicates, strings.TrimRight(first, ",:")) && !strings.HasPrefix(e.Path, "--"):
		return e.Path + " " + e.Message, e.Advice
	}
	return e.Path + ": " + e.Message, e.Advice
}
