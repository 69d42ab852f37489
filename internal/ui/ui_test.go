package ui

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"lycoris/internal/fault"
)

// buffer is a bytes.Buffer for two goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// spoken returns what f makes a UI say on standard error and standard output.
func spoken(o Options, f func(*UI)) (stderr, stdout string) {
	var e, s buffer
	o.Stderr, o.Stdout = &e, &s
	u := New(o)
	f(u)
	u.Close()
	return e.String(), s.String()
}

func TestMessages(t *testing.T) {
	tests := []struct {
		name string
		err  error
		want string
	}{
		{"place in a file", fault.BadUsage("lycoris.yaml:3:1", "unknown key %q", "algoo").Advise("did you mean %q?", "algo"),
			"error: unknown key \"algoo\"\n  lycoris.yaml:3:1\n  did you mean \"algo\"?\n"},
		{"flag", fault.BadUsage("--dim", "%q is not a whole number (1 or more)", "abc"), "error: --dim: \"abc\" is not a whole number (1 or more)\n"},
		{"flag and predicate", fault.BadUsage("--dim", "is missing"), "error: --dim: is missing\n"},
		{"file and predicate", fault.BadInput("base.safetensors", "is damaged: too short").Advise("download it again\nor not"),
			"error: base.safetensors is damaged: too short\n  download it again\n  or not\n"},
		{"file", fault.BadInput("base.safetensors", "header says 9 bytes"), "error: base.safetensors: header says 9 bytes\n"},
		{"no path", fault.New(fault.Diverged, "", "loss is not a number at step 431"), "error: loss is not a number at step 431\n"},
		{"wrapped", fmt.Errorf("reading: %w", fault.BadInput("a", "is odd").Advise("mend it")), "error: reading: a: is odd\n  mend it\n"},
		{"plain", errors.New("broken"), "error: broken\n"},
		{"several", errors.Join(fault.BadUsage("a.yaml:1:1", "one"), errors.New("two")), "error: one\n  a.yaml:1:1\nerror: two\n"},
		{"cause of several", &fault.Error{Kind: fault.Output, Message: "can't close", Err: errors.Join(io.EOF, io.EOF)}, "error: can't close\n"},
		{"control characters", fault.BadInput("a\x1b[2Jb", "is \u202eodd").Advise("see\r"), "error: a\\x1b[2Jb is \\u202eodd\n  see\\x0d\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, _ := spoken(Options{}, func(u *UI) { u.Error(tt.err) }); got != tt.want {
				t.Errorf("got\n%q\nwant\n%q", got, tt.want)
			}
		})
	}
	got, _ := spoken(Options{Color: true}, func(u *UI) { u.Warn("w", "") })
	if want := "\x1b[33;1mwarn:\x1b[0m w\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLevels(t *testing.T) {
	all := func(u *UI) {
		u.Debug("d")
		u.Info("i", "n", 3, "dir", "a b")
		u.Warn("w", "do", "x", "")
		u.Error(errors.New("e"))
	}
	level := Error
	for _, tt := range []struct {
		o    Options
		want string
	}{
		{Options{}, "i  n=3 dir=\"a b\"\nwarn: w  x=\"\"\n  do\nerror: e\n"},
		{Options{Verbose: true}, "d\ni  n=3 dir=\"a b\"\nwarn: w  x=\"\"\n  do\nerror: e\n"},
		{Options{Quiet: true}, "warn: w  x=\"\"\n  do\nerror: e\n"},
		{Options{Level: &level}, "warn: w  x=\"\"\n  do\nerror: e\n"},
	} {
		if got, _ := spoken(tt.o, all); got != tt.want {
			t.Errorf("%+v: got\n%s want\n%s", tt.o, got, tt.want)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		var file buffer
		got, _ := spoken(Options{Quiet: true, JSONLog: true}, func(u *UI) {
			u.AddLog(&file)
			u.Info("two\nlines", "a", math.NaN())
			u.Warn("w", "fix it", "loss", math.Inf(1))
		})
		if want := `{"fix":"fix it","level":"warn","loss":null,"message":"w","t":"2000-01-01T00:00:00.000Z"}` + "\n"; got != want {
			t.Errorf("got %s want %s", got, want)
		}
		if want := "2000-01-01T00:00:00.000Z INFO two; lines  a=NaN\n2000-01-01T00:00:00.000Z WARN w; fix it  loss=+Inf\n"; file.String() != want {
			t.Errorf("got\n%s want\n%s", file.String(), want)
		}
	})
}

type stop struct{}

func (stop) Error() string { return "stopped by INT" }
func (stop) ExitCode() int { return 130 }

func TestExitCodesAndResults(t *testing.T) {
	for _, tt := range []struct {
		err  error
		code int
		want string // the result line
	}{
		{nil, 0, `{"exit":0,"ok":true,"path":"a.safetensors","type":"result"}`},
		{errors.New("x"), 1, `{"error":{"fix":"","kind":"failed","message":"x","path":""},"exit":1,"ok":false,"path":"a.safetensors","type":"result"}`},
		{fault.BadInput("m", "is odd").Advise("mend"), 4, `{"error":{"fix":"mend","kind":"input","message":"is odd","path":"m"},"exit":4,"ok":false,"path":"a.safetensors","type":"result"}`},
		{errors.Join(fault.BadUsage("a", "1"), fault.BadUsage("b", "2")), 2,
			`{"error":{"fix":"","kind":"usage","message":"1","path":"a"},"errors":[{"fix":"","kind":"usage","message":"1","path":"a"},{"fix":"","kind":"usage","message":"2","path":"b"}],"exit":2,"ok":false,"path":"a.safetensors","type":"result"}`},
		{fmt.Errorf("train: %w", stop{}), 130, `{"error":{"fix":"","kind":"stopped","message":"train: stopped by INT","path":""},"exit":130,"ok":false,"path":"a.safetensors","type":"result"}`},
		{fault.New(fault.Resume, "", "r"), 10, `{"error":{"fix":"","kind":"resume","message":"r","path":""},"exit":10,"ok":false,"path":"a.safetensors","type":"result"}`},
	} {
		var code int
		stderr, stdout := spoken(Options{JSON: true}, func(u *UI) {
			u.Hello("1.2")
			u.Emit("step", map[string]any{"loss": math.NaN(), "lr": map[string]any{"unet": 1.5}})
			u.Printf("not shown")
			code = u.Finish(tt.err, map[string]any{"path": "a.safetensors"})
		})
		lines := strings.Split(strings.TrimSpace(stdout), "\n")
		if code != tt.code || len(lines) != 3 || lines[2] != tt.want {
			t.Errorf("%v: code %d, got\n%s\nwant %d,\n%s", tt.err, code, stdout, tt.code, tt.want)
			continue
		}
		if lines[0] != `{"schema":"lycoris.cli/1","type":"hello","version":"1.2"}` || lines[1] != `{"loss":null,"lr":{"unet":1.5},"type":"step"}` {
			t.Errorf("got %s", stdout)
		}
		var s stop
		if quiet := tt.err == nil || errors.As(tt.err, &s); quiet != (stderr == "") {
			t.Errorf("%v: standard error has %q", tt.err, stderr)
		}
	}
	_, stdout := spoken(Options{JSON: true}, func(u *UI) {
		u.Document(map[string]any{"a": 1})
		u.Finish(nil, nil)
	})
	if !json.Valid([]byte(stdout)) {
		t.Errorf("a document isn't one: %s", stdout)
	}
}

// stuck is a pipe that nobody reads.
type stuck struct{ release chan struct{} }

func (s stuck) Write(p []byte) (int, error) { <-s.release; return len(p), nil }

func TestStuckStderrBlocksNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := stuck{make(chan struct{})}
		u := New(Options{Stderr: s})
		p := u.Progress()
		p.Phase(Train, 5000)
		start := time.Now()
		for i := range 5000 {
			p.Step(StepInfo{Step: i + 1, Steps: 5000})
			u.Warn("again", "")
		}
		if d := time.Since(start); d != 0 {
			t.Errorf("5000 steps waited %v for standard error", d)
		}
		u.Close()
		if d := time.Since(start); d != time.Second {
			t.Errorf("closing took %v, want its patience of 1s", d)
		}
		if u.err.dropped.Load() == 0 {
			t.Error("nothing was dropped")
		}
		close(s.release)
	})
}

func TestTerminal(t *testing.T) {
	env := func(pairs ...string) func(string) string {
		return func(n string) string {
			for _, p := range pairs {
				if v, ok := strings.CutPrefix(p, n+"="); ok {
					return v
				}
			}
			return ""
		}
	}
	for _, tt := range []struct {
		tty         bool
		env         []string
		mode, color string
		bar, colour bool
	}{
		{true, nil, "auto", "auto", true, true},
		{false, nil, "auto", "auto", false, false},
		{true, []string{"TERM=dumb"}, "auto", "auto", false, false},
		{true, []string{"CI=1"}, "auto", "auto", false, true},
		{true, []string{"NO_COLOR=1", "CLICOLOR_FORCE=1"}, "plain", "auto", false, false},
		{true, []string{"NO_COLOR="}, "none", "auto", false, true},
		{true, []string{"NO_COLOR=1"}, "auto", "always", true, true},
		{false, []string{"CLICOLOR_FORCE=1"}, "bar", "auto", true, true},
		{false, []string{"CLICOLOR_FORCE=1"}, "bar", "never", true, false},
	} {
		term := Terminal{IsTerminal: tt.tty, Env: env(tt.env...)}
		if b, c := term.Bar(tt.mode), term.Color(tt.color); b != tt.bar || c != tt.colour {
			t.Errorf("%+v: bar %v, colour %v", tt, b, c)
		}
	}
}

func TestEscape(t *testing.T) {
	for in, want := range map[string]string{"plain é 猫": "plain é 猫", "a\x00b": `a\x00b`, "\x1b]0;x\a": `\x1b]0;x\x07`, "a\nb\tc": `a\nb\tc`, "\xff\xfe": `\xff\xfe`,
		"\u009b1m": `\u009b1m`, "x\u202ey\u2066": `x\u202ey\u2066`, "\ufffd": "\ufffd", "\x7f": `\x7f`} {
		if got := Escape(in); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}
