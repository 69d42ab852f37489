package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// stopped is the cause of a context that a signal cancelled.
type stopped struct{ signal syscall.Signal }

func (s *stopped) Error() string { return fmt.Sprintf("stopped by %s", signalName(s.signal)) }

// ExitCode is 128 + the signal's number, as shells count.
func (s *stopped) ExitCode() int { return 128 + int(s.signal) }

func signalName(s syscall.Signal) string {
	switch s {
	case syscall.SIGINT:
		return "INT"
	case syscall.SIGTERM:
		return "TERM"
	case syscall.SIGHUP:
		return "HUP"
	}
	return s.String()
}

// withSignals returns a context that the first INT, TERM or HUP cancels, with *stopped as its cause; the second INT leaves at once. HUP
// counts only if it wasn't ignored at the start (nohup). USR1 prints a status line; CONT tells the rates that the process slept.
func (out *output) withSignals(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	ch := make(chan os.Signal, 8)
	watched := []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGCONT}
	if !signal.Ignored(syscall.SIGHUP) {
		watched = append(watched, syscall.SIGHUP)
	}
	signal.Notify(ch, watched...)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case s := <-ch:
				out.onSignal(ctx, s.(syscall.Signal), cancel)
			case <-done:
				return
			}
		}
	}()
	return ctx, func() {
		signal.Stop(ch)
		close(done)
		cancel(nil)
	}
}

func (out *output) onSignal(ctx context.Context, s syscall.Signal, cancel context.CancelCauseFunc) {
	voice := out.voice.Load()
	switch {
	case s == syscall.SIGUSR1:
		if voice != nil {
			voice.Status()
		}
	case s == syscall.SIGCONT:
		if voice != nil {
			voice.Slept()
		}
	case ctx.Err() == nil:
		cancel(&stopped{s})
	case s == syscall.SIGINT:
		os.Exit(128 + int(s))
	}
}
