package ui

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// Level says how much a message matters.
type Level int

// The levels, in rising order.
const (
	Debug Level = iota
	Info
	Warn
	Error
)

var levelNames = [...]string{"DEBUG", "INFO", "WARN", "ERROR"}

// String returns DEBUG, INFO, WARN or ERROR.
func (l Level) String() string { return levelNames[l] }

// ParseLevel reads debug, info, warn or error.
func ParseLevel(s string) (Level, bool) {
	for i, n := range levelNames {
		if s == strings.ToLower(n) {
			return Level(i), true
		}
	}
	return Info, false
}

// Options say where and how to speak. The zero value speaks plainly to nobody.
type Options struct {
	Stdout, Stderr io.Writer
	JSON           bool          // results as JSON
	Quiet          bool          // warnings, errors and the result only
	Verbose        bool          // debug lines too
	Level          *Level        // overrides Quiet and Verbose, but never hides warnings
	JSONLog        bool          // log lines on Stderr as JSON
	Bar            bool          // progress as a bar; see [Terminal.Bar]
	NoProgress     bool          // no progress at all
	Color          bool          // see [Terminal.Color]
	Width          int           // columns of Stderr, 0: 100
	ProgressEvery  time.Duration // between plain progress lines, 0: 30 s
}

// UI is the voice. Close it before the process ends.
type UI struct {
	o     Options
	err   *lossyWriter
	mu    sync.Mutex // guards everything below and the order on standard error
	logs  []io.Writer
	prog  *progress
	hello bool
}

// New returns a voice that speaks as o says.
func New(o Options) *UI {
	if o.Stdout == nil {
		o.Stdout = io.Discard
	}
	if o.Stderr == nil {
		o.Stderr = io.Discard
	}
	if o.Width <= 0 {
		o.Width = defaultWidth
	}
	if o.ProgressEvery <= 0 {
		o.ProgressEvery = 30 * time.Second
	}
	return &UI{o: o, err: newLossyWriter(o.Stderr)}
}

// AddLog makes every message from info up (all of them when verbose) appear in w too, as text without colour. w mustn't block.
func (u *UI) AddLog(w io.Writer) {
	u.mu.Lock()
	u.logs = append(u.logs, w)
	u.mu.Unlock()
}

// JSON reports whether results are JSON.
func (u *UI) JSON() bool { return u.o.JSON }

// Stdout returns where results go.
func (u *UI) Stdout() io.Writer { return u.o.Stdout }

// Flush waits until what was said is written, at most for a second.
func (u *UI) Flush() { u.err.flush(time.Second) }

// Close ends the progress display and flushes.
func (u *UI) Close() {
	u.mu.Lock()
	u.clearBar()
	u.mu.Unlock()
	u.Flush()
	u.err.stop()
}

// threshold is the lowest level that reaches standard error; warnings always do.
func (u *UI) threshold() Level {
	switch {
	case u.o.Level != nil:
		return min(*u.o.Level, Warn)
	case u.o.Quiet:
		return Warn
	case u.o.Verbose:
		return Debug
	}
	return Info
}

// Info says something that a person may want to know; pairs are names and values.
func (u *UI) Info(msg string, pairs ...any) { u.say(Info, msg, "", pairs) }

// Debug says something that only -v shows.
func (u *UI) Debug(msg string, pairs ...any) { u.say(Debug, msg, "", pairs) }

// Warn says something that should be mended; advice may be empty.
func (u *UI) Warn(msg, advice string, pairs ...any) { u.say(Warn, msg, advice, pairs) }

// Printf writes a result to standard output, unless results are JSON.
func (u *UI) Printf(format string, args ...any) {
	if !u.o.JSON {
		u.mu.Lock()
		u.clearBar()
		u.mu.Unlock()
		fmt.Fprintf(u.o.Stdout, format, args...)
	}
}

// say prints one message on standard error and in the logs.
func (u *UI) say(level Level, msg, advice string, pairs []any) {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := time.Now()
	if level >= u.threshold() {
		u.clearBar()
		if u.o.JSONLog {
			u.err.Write(jsonLogLine(now, level, msg, advice, pairs))
		} else {
			u.err.Write(u.humanLine(level, msg, advice, pairs))
		}
		u.redrawBar()
	}
	if level >= Info || u.o.Verbose {
		line := textLogLine(now, level, msg, advice, pairs)
		for _, w := range u.logs {
			w.Write(line) // a log that can't be written stops nothing
		}
	}
}

// humanLine writes "warn: message  name=value" and the advice, indented.
func (u *UI) humanLine(level Level, msg, advice string, pairs []any) []byte {
	var b strings.Builder
	switch level {
	case Error:
		b.WriteString(u.paint("error:", "31;1") + " ")
	case Warn:
		b.WriteString(u.paint("warn:", "33;1") + " ")
	}
	lines := escapeLines(msg)
	b.WriteString(lines[0])
	b.WriteString(pairText(pairs))
	b.WriteByte('\n')
	if advice != "" {
		lines = append(lines, escapeLines(advice)...)
	}
	for _, l := range lines[1:] {
		b.WriteString("  " + l + "\n")
	}
	return []byte(b.String())
}

// paint colours text where colour is on.
func (u *UI) paint(s, code string) string {
	if !u.o.Color {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// pairText writes "  name=value name=value"; values with blanks are quoted.
func pairText(pairs []any) string {
	var b strings.Builder
	for i := 0; i+1 < len(pairs); i += 2 {
		v := Escape(fmt.Sprint(pairs[i+1]))
		if v == "" || strings.ContainsAny(v, ` "=`) {
			v = fmt.Sprintf("%q", v)
		}
		sep := " "
		if i == 0 {
			sep = "  "
		}
		fmt.Fprintf(&b, "%s%v=%s", sep, pairs[i], v)
	}
	return b.String()
}

// textLogLine writes 2026-01-02T15:04:05.000Z WARN message  name=value on one line.
func textLogLine(now time.Time, level Level, msg, advice string, pairs []any) []byte {
	text := strings.Join(escapeLines(msg), "; ")
	if advice != "" {
		text += "; " + strings.Join(escapeLines(advice), "; ")
	}
	return fmt.Appendf(nil, "%s %s %s%s\n", now.UTC().Format("2006-01-02T15:04:05.000Z"), level, text, pairText(pairs))
}

// jsonLogLine writes the message as one JSON object.
func jsonLogLine(now time.Time, level Level, msg, advice string, pairs []any) []byte {
	m := map[string]any{"t": now.UTC().Format("2006-01-02T15:04:05.000Z"), "level": strings.ToLower(level.String()), "message": msg}
	if advice != "" {
		m["fix"] = advice
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		m[fmt.Sprint(pairs[i])] = jsonValue(pairs[i+1])
	}
	line, err := json.Marshal(m)
	if err != nil {
		line = fmt.Appendf(nil, `{"level":"error","message":%q}`, "a log line can't be written: "+err.Error())
	}
	return append(line, '\n')
}
