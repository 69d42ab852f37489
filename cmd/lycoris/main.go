// Command lycoris trains adapters for Stable Diffusion models.
//
// Each command is one file: its flags, one call into internal/, its result. main.go sets the process up, root.go has the global flags,
// flags.go turns configuration keys into flags.
package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"lycoris/internal/ui"
)

func main() { os.Exit(Main(os.Args[1:])) }

// Main runs the program and returns its exit code.
func Main(args []string) int {
	crashAs134()
	signal.Ignore(syscall.SIGPIPE) // a reader that went away stops nothing
	out := &output{term: ui.Detect(os.Stderr), stdout: os.Stdout, stderr: os.Stderr, env: os.Environ()}
	ctx, stop := out.withSignals(context.Background())
	defer stop()
	return out.run(ctx, args)
}

// run runs a command line and returns its exit code.
func (out *output) run(ctx context.Context, args []string) int {
	root := newRootCommand(out)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if out.UI == nil { // the command line was wrong before the options were known
		out.open(globalOptions{json: slices.Contains(args, "--json"), progress: "auto", color: "auto"})
	}
	var s *stopped
	if cause := context.Cause(ctx); err != nil && errors.As(cause, &s) && (errors.Is(err, context.Canceled) || errors.Is(err, cause)) {
		err = s
		if slices.Contains([]string{"merge", "extract", "resize", "convert"}, cmd.Name()) {
			out.UI.Info(s.Error() + ", nothing was written")
		}
	}
	code := out.UI.Finish(err, out.result)
	out.close()
	return code
}

// crashAs134 makes every unrecovered panic and runtime fault end by SIGABRT, which shells show as 134, without a core file: 2 stays free
// for a wrong command line.
func crashAs134() {
	debug.SetTraceback("crash")
	unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}) // where it can't be lowered there is a core file, nothing worse
}
