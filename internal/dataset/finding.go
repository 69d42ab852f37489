package dataset

import (
	"fmt"

	"lycoris/internal/fault"
)

// Finding is one file that can't be used, and why.
type Finding struct {
	Path    string // escaped for display
	Message string // one line
}

// String returns the path and the message.
func (f Finding) String() string { return f.Path + ": " + f.Message }

// Findings are all files of a scan that can't be used. As an error it is the cause inside the fault that [Scan] returns.
type Findings []Finding

// Error lists the first five and counts the rest.
func (f Findings) Error() string {
	texts := make([]string, len(f))
	for i := range f {
		texts[i] = f[i].String()
	}
	return listed(texts, "; ")
}

// fault turns the findings into the error of a scan that stops.
func (f Findings) fault() error {
	const advice = "mend or remove them, or leave them out with --set data_limits.on_bad=skip"
	if len(f) == 1 {
		e := fault.BadInput(f[0].Path, "%s", f[0].Message)
		e.Err = f
		return e.Advise("mend or remove it, or leave it out with --set data_limits.on_bad=skip")
	}
	e := fault.BadInput("", "%d files can't be used: %s", len(f), f.Error())
	e.Err = f
	return e.Advise(advice)
}

// Warning is something that a person should know and that doesn't stop training.
type Warning struct {
	Message string   // one line: "3 of 43 pictures have no caption and no class tokens"
	Files   []string // all files it is about, escaped for display; may be empty
	Advice  string   // what happens now, or what to do; may be empty
}

// String returns the message with the first five files.
func (w Warning) String() string {
	if len(w.Files) == 0 {
		return w.Message
	}
	return fmt.Sprintf("%s: %s", w.Message, listed(w.Files, ", "))
}
