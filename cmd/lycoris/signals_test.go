package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"lycoris/internal/ui"
)

// TestFirstSignalCancels sends each signal to this process and wants a context that tells which one it was.
func TestFirstSignalCancels(t *testing.T) {
	for sig, code := range map[syscall.Signal]int{syscall.SIGINT: 130, syscall.SIGTERM: 143, syscall.SIGHUP: 129} {
		out := &output{}
		ctx, stop := out.withSignals(context.Background())
		if err := syscall.Kill(os.Getpid(), sig); err != nil {
			t.Fatal(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(5 * time.Second):
			t.Fatalf("%v doesn't cancel", sig)
		}
		if got := ui.ExitCode(context.Cause(ctx)); got != code {
			t.Errorf("%v: exit %d, want %d", sig, got, code)
		}
		stop()
	}
}

// childVariable makes this test binary do what one of the children does.
const childVariable = "LYCORIS_TEST_CHILD"

var children = map[string]func(){
	"crash": func() {
		crashAs134()
		var p *int
		*p = 1
	},
	"second interrupt": func() {
		ctx, _ := (&output{}).withSignals(context.Background())
		syscall.Kill(os.Getpid(), syscall.SIGINT)
		<-ctx.Done()
		syscall.Kill(os.Getpid(), syscall.SIGINT)
		time.Sleep(10 * time.Second)
	},
	"hang up": func() {
		ctx, _ := (&output{}).withSignals(context.Background())
		syscall.Kill(os.Getpid(), syscall.SIGHUP)
		select {
		case <-ctx.Done():
			os.Exit(129)
		case <-time.After(200 * time.Millisecond):
			os.Exit(0)
		}
	},
}

// child runs one of the children under a shell that runs before first, and returns how it ended.
func child(t *testing.T, name, before string) syscall.WaitStatus {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", before+`exec "$0" -test.run='^TestChildren$'`, os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+name)
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.Sys().(syscall.WaitStatus)
}

func TestChildren(t *testing.T) {
	if f := children[os.Getenv(childVariable)]; f != nil {
		f()
		return
	}
	if s := child(t, "crash", ""); s.Signal() != syscall.SIGABRT {
		t.Errorf("a crash ends with %v, want SIGABRT, which shells show as 134", s)
	}
	if s := child(t, "second interrupt", ""); s.ExitStatus() != 130 {
		t.Errorf("the second INT: exit %d, want 130", s.ExitStatus())
	}
	if s := child(t, "hang up", ""); s.ExitStatus() != 129 {
		t.Errorf("HUP: exit %d, want 129", s.ExitStatus())
	}
	if s := child(t, "hang up", "trap '' HUP; "); s.ExitStatus() != 0 {
		t.Errorf("HUP under nohup: exit %d, want 0", s.ExitStatus())
	}
}

// TestBrokenPipes runs the program with nobody to read what it says.
func TestBrokenPipes(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	var stdout bytes.Buffer
	out := &output{term: ui.Terminal{Env: os.Getenv}, stdout: &stdout, stderr: w}
	if err := out.open(globalOptions{}); err != nil {
		t.Fatal(err)
	}
	out.UI.Warn("nobody reads this", "")
	out.UI.Printf("result\n")
	if code := out.UI.Finish(nil, nil); code != 0 || stdout.String() != "result\n" {
		t.Errorf("exit %d, result %q", code, stdout.String())
	}
	out.close()
}
