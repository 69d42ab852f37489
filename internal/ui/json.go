package ui

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"

	"lycoris/internal/fault"
)

// Schema is the name and number of the JSON lines on standard output.
const Schema = "lycoris.cli/1"

// Hello writes the first JSON line, once, where results are JSON.
func (u *UI) Hello(version string) {
	if u.o.JSON && !u.hello {
		u.hello = true
		u.writeJSON(map[string]any{"type": "hello", "schema": Schema, "version": version})
	}
}

// Emit writes one JSON line of a type, where results are JSON. Numbers that aren't finite become null.
func (u *UI) Emit(kind string, fields map[string]any) {
	if u.o.JSON {
		m := map[string]any{"type": kind}
		maps.Copy(m, fields)
		u.writeJSON(m)
	}
}

// Document writes one JSON document, indented.
func (u *UI) Document(v any) {
	text, err := json.MarshalIndent(jsonValue(v), "", "  ")
	if err != nil {
		panic("ui: a document can't be written: " + err.Error())
	}
	u.o.Stdout.Write(append(text, '\n'))
}

// isStop reports whether err is a stop that somebody asked for, which has an exit code and isn't a mistake.
func isStop(err error) bool {
	var own interface{ ExitCode() int }
	return errors.As(err, &own)
}

// Finish prints err (unless it is a stop that was asked for: then the command has said so), writes the last JSON line, and returns the exit code. fields (path, ...) go into the line of a success; a command
// that wrote a document and no Hello gets a line only when it failed.
func (u *UI) Finish(err error, fields map[string]any) int {
	code := ExitCode(err)
	stopped := isStop(err)
	if err != nil && !stopped {
		u.Error(err)
	}
	if !u.o.JSON || err == nil && !u.hello {
		return code
	}
	m := map[string]any{"ok": err == nil, "exit": code}
	maps.Copy(m, fields)
	if err != nil {
		parts := Faults(err)
		m["error"] = faultFields(parts[0])
		if stopped {
			m["error"] = map[string]any{"kind": "stopped", "path": "", "message": err.Error(), "fix": ""}
		}
		if len(parts) > 1 {
			all := make([]any, len(parts))
			for i, p := range parts {
				all[i] = faultFields(p)
			}
			m["errors"] = all
		}
	}
	u.Emit("result", m)
	return code
}

// faultFields is an error as it stands in a result.
func faultFields(e *fault.Error) map[string]any {
	return map[string]any{"kind": e.Kind.String(), "path": e.Path, "message": e.Message, "fix": e.Advice}
}

func (u *UI) writeJSON(m map[string]any) {
	line, err := json.Marshal(jsonValue(m))
	if err != nil {
		panic("ui: a line can't be written: " + err.Error())
	}
	u.o.Stdout.Write(append(line, '\n'))
}

// jsonValue returns v with numbers that aren't finite replaced by nil; structs keep their tags by way of the encoder.
func jsonValue(v any) any {
	switch x := v.(type) {
	case float64:
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return nil
		}
	case float32:
		return jsonValue(float64(x))
	case map[string]any:
		m := make(map[string]any, len(x))
		for k, e := range x {
			m[k] = jsonValue(e)
		}
		return m
	case []any:
		s := make([]any, len(x))
		for i, e := range x {
			s[i] = jsonValue(e)
		}
		return s
	case error:
		return x.Error()
	case fmt.Stringer:
		if reflect.ValueOf(v).Kind() != reflect.Struct {
			return x.String()
		}
	}
	return v
}
