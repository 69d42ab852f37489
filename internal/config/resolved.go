package config

import (
	"bytes"
	"fmt"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"unicode"

	"lycoris/internal/fault"
)

// InputFile is a configuration file as it was read.
type InputFile struct {
	Name string
	Data []byte
}

// Resolved is a Config and where each of its values came from.
type Resolved struct {
	Config   *Config
	Warnings []*fault.Error
	Inputs   []InputFile // files in the order of rank, lowest first
	Preset   *InputFile  // nil when none was named
	sources  map[string]string
}

// Source returns where the value of a key came from: built-in, a file's line and column, a variable or a flag.
func (r *Resolved) Source(path string) string { return r.sources[path] }

// builtIn reports whether nobody gave the key.
func (r *Resolved) builtIn(path string) bool { return strings.HasPrefix(r.sources[path], "built-in") }

// value returns the value of a key.
func (r *Resolved) value(k *Key) any { return reflect.ValueOf(k.field(r.Config)).Elem().Interface() }

// Value returns the value of a key as it stands in the resolved file, "" for an unknown key.
func (r *Resolved) Value(path string) string {
	k := Lookup(path)
	if k == nil {
		return ""
	}
	return r.format(k, r.value(k))
}

// YAML writes every key with its source as a comment, below a line of comment; [Load] reads it back to the same Config. Paths are
// absolute, because they count from this file.
func (r *Resolved) YAML(header string) []byte {
	var b bytes.Buffer
	if header != "" {
		fmt.Fprintf(&b, "# %s\n", strings.ReplaceAll(header, "\n", " "))
	}
	group := ""
	for _, k := range keys {
		name, indent := k.Path, ""
		if g, tail, ok := strings.Cut(k.Path, "."); ok {
			if g != group {
				fmt.Fprintf(&b, "%s:\n", g)
			}
			group, name, indent = g, tail, "  "
		} else {
			group = ""
		}
		comment := "# " + strings.ReplaceAll(r.sources[k.Path], "\n", " ")
		if k.Type == Layers && len(r.Config.Layers) > 0 {
			fmt.Fprintf(&b, "%s: %s\n", name, comment)
			for _, l := range r.Config.Layers {
				b.WriteString(r.formatLayer(l))
			}
			continue
		}
		if k.Type == Folders && len(r.Config.Data) > 0 {
			fmt.Fprintf(&b, "%s: %s\n", name, comment)
			for _, d := range r.Config.Data {
				b.WriteString(r.formatFolder(d))
			}
			continue
		}
		fmt.Fprintf(&b, "%-36s %s\n", indent+name+": "+r.format(k, r.value(k)), comment)
	}
	return b.Bytes()
}

// formatFolder writes one entry of data as a block of YAML.
func (r *Resolved) formatFolder(d Folder) string {
	var b strings.Builder
	lead := "  - "
	for _, k := range folderKeys {
		v := reflect.ValueOf(d.field(k.Path)).Elem().Interface()
		fmt.Fprintf(&b, "%s%s: %s\n", lead, k.Path, r.format(k, v))
		lead = "    "
	}
	return b.String()
}

// formatLayer writes one entry of layers as a block of YAML.
func (r *Resolved) formatLayer(l Layer) string {
	var b strings.Builder
	lead := "  - "
	for _, k := range layerKeys {
		if v, given := l.Set[k.Path]; given {
			fmt.Fprintf(&b, "%s%s: %s\n", lead, k.Path, r.format(k, v))
			lead = "    "
		}
	}
	return b.String()
}

// brief returns what stands for a value in a sentence: of folders only the paths, of the rest text, which is its format.
func (r *Resolved) brief(k *Key, v any, text string) string {
	folders, ok := v.([]Folder)
	if !ok {
		return text
	}
	var paths []string
	for _, d := range folders {
		paths = append(paths, quote(r.absolute(d.Path)))
	}
	return strings.Join(paths, ", ")
}

// format writes a value as it stands in a YAML file.
func (r *Resolved) format(k *Key, v any) string {
	if k.mayBeEmpty && reflect.ValueOf(v).IsZero() {
		return "null"
	}
	switch v := v.(type) {
	case bool:
		return strconv.FormatBool(v)
	case int:
		if k.Type == AutoInt && v == 0 {
			return "auto"
		}
		return strconv.Itoa(v)
	case int64:
		return strconv.FormatInt(v, 10)
	case uint64:
		return strconv.FormatUint(v, 10)
	case float64:
		return formatFloat(v)
	case string:
		switch k.Type {
		case Path:
			return quote(r.absolute(v))
		case Text:
			return quote(v)
		}
		return v
	case []string:
		return formatList(v)
	case [2]int:
		return fmt.Sprintf("[%d, %d]", v[0], v[1])
	case [2]float64:
		return fmt.Sprintf("[%s, %s]", formatFloat(v[0]), formatFloat(v[1]))
	case Targets:
		if v.Preset != "" {
			return v.Preset
		}
		if v.File != "" {
			return quote(r.absolute(v.File))
		}
		return formatList(v.Globs)
	case []Layer:
		var b strings.Builder
		for _, l := range v {
			b.WriteString(r.formatLayer(l))
		}
		return "[" + b.String() + "]"
	case []Folder:
		var b strings.Builder
		for _, d := range v {
			b.WriteString(r.formatFolder(d))
		}
		return "[" + b.String() + "]"
	}
	return fmt.Sprint(v)
}

// absolute returns a path that means the same from every folder.
func (r *Resolved) absolute(p string) string {
	if abs, err := filepath.Abs(p); p != "" && err == nil {
		return abs
	}
	return p
}

func formatList(items []string) string {
	quoted := make([]string, len(items))
	for i, s := range items {
		quoted[i] = quote(s)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// quote writes text in double quotes so that YAML, JSON and TOML read it alike; what doesn't print is escaped.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteRune(c)
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\t':
			b.WriteString(`\t`)
		case c == ' ' || unicode.IsPrint(c):
			b.WriteRune(c)
		case c > 0xffff:
			fmt.Fprintf(&b, `\U%08x`, c)
		default:
			fmt.Fprintf(&b, `\u%04x`, c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// formatFloat writes the shortest text that reads back as f and that every YAML reader takes for a number: 0.05, 16.0, 1.0e-4.
func formatFloat(f float64) string {
	abs := f
	if abs < 0 {
		abs = -abs
	}
	if abs == 0 || abs >= 1e-3 && abs < 1e7 {
		s := strconv.FormatFloat(f, 'f', -1, 64)
		if !strings.Contains(s, ".") {
			s += ".0"
		}
		return s
	}
	mantissa, exponent, _ := strings.Cut(strconv.FormatFloat(f, 'e', -1, 64), "e")
	if !strings.Contains(mantissa, ".") {
		mantissa += ".0"
	}
	sign := exponent[:1]
	digits := strings.TrimLeft(exponent[1:], "0")
	if digits == "" {
		digits = "0"
	}
	return mantissa + "e" + sign + digits
}

// Any returns the value of a key as it stands in a JSON file, nil for an unset or unknown key.
func (r *Resolved) Any(path string) any {
	k := Lookup(path)
	if k == nil {
		return nil
	}
	v := r.value(k)
	if k.mayBeEmpty && reflect.ValueOf(v).IsZero() {
		return nil
	}
	switch v := v.(type) {
	case bool, float64, []string, [2]int, [2]float64, []Folder, int64, uint64, string:
		return v
	case int:
		if k.Type == AutoInt && v == 0 {
			return "auto"
		}
		return v
	case Size:
		switch {
		case v.IsAuto():
			return "auto"
		case v.W == v.H:
			return v.W
		}
		return []int{v.W, v.H}
	case Warmup:
		if v.Fraction > 0 {
			return v.Fraction
		}
		return v.Steps
	case Interval:
		if v.Time == 0 {
			return v.Steps
		}
		return v.String()
	case Targets:
		if v.Preset != "" {
			return v.Preset
		}
		if v.File != "" {
			return v.File
		}
		return v.Globs
	case []Layer:
		rules := []map[string]any{}
		for _, l := range v {
			rules = append(rules, l.Set)
		}
		return rules
	}
	panic("config: key " + path + " has no JSON form")
}
