// Package ui is the one voice of the program: results on standard output, everything else on standard error.
//
// A [UI] prints messages ([UI.Error], [UI.Warn], [UI.Info]), log lines and JSON lines. A [Progress] shows where a run is: a bar on a
// terminal, plain lines elsewhere, the same words both ways. [ExitCode] is the process's exit code for an error.
//
// Standard error never stops the program: what a full pipe doesn't take is dropped. What comes from outside (names, captions) is shown
// with its control characters escaped. A UI may be used by several goroutines. Colour never carries meaning alone.
//
// Start at [New]. Shapes of messages and lines are those of docs/cli.md.
package ui
