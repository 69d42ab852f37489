package config

import (
	"fmt"
	"math"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"lycoris/internal/fault"
)

var (
	decimalInt   = regexp.MustCompile(`^[+-]?(0|[1-9][0-9]*)$`)
	decimalFloat = regexp.MustCompile(`^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?$`)
	sizeSuffix   = regexp.MustCompile(`^([0-9]+)(B|KiB|MiB|GiB)$`)
	countSuffix  = regexp.MustCompile(`^([0-9]+)([kM])$`)
)

// converter checks the values of one source.
type converter struct {
	f   *Findings
	dir string // relative paths of this source count from here
}

// value converts n to the Go value of k; ok is false when something was found, and v nil when n unsets the key.
//
//	Bool bool · Int AutoInt IntEnum int · Seed uint64 · Float float64 · Text Enum Path Tri string · Texts []string · Resolution Size
//	IntPair [2]int · FloatPair [2]float64 · Steps Warmup · Every Interval · Bytes Count int64 · Selection Targets · Folders []Folder · Layers []Layer
func (c *converter) value(k *Key, n *node) (v any, ok bool) {
	if n.kind == wordNode && (n.text == "null" && k.mayBeEmpty || n.text == "" && (k.Type == Text || k.Type == Path) && k.mayBeEmpty) {
		return nil, true
	}
	if n.kind == nullNode {
		if k.mayBeEmpty {
			return nil, true
		}
		c.f.add(n.origin, "%s has no value, it wants %s", k.Path, k.Wants())
		return nil, false
	}
	if n.kind == wordNode && strings.HasPrefix(n.text, "[") && k.acceptsList() {
		if n = c.flow(n); n == nil {
			return nil, false
		}
	}
	switch k.Type {
	case Bool:
		return c.bool(k, n)
	case Int, AutoInt:
		if k.Type == AutoInt && n.isWord("auto") {
			return 0, true
		}
		return c.int(k, n)
	case IntEnum:
		return c.intEnum(k, n)
	case Seed:
		return c.seed(k, n)
	case Float:
		return c.float(k, n)
	case Text:
		return c.text(k, n)
	case Path:
		return c.path(k, n)
	case Enum:
		return c.enum(k, n)
	case Tri:
		return c.tri(k, n)
	case Texts:
		return c.texts(k, n)
	case Resolution:
		return c.resolution(k, n)
	case IntPair:
		return c.intPair(k, n)
	case FloatPair:
		return c.floatPair(k, n)
	case Steps:
		return c.warmup(k, n)
	case Every:
		return c.interval(k, n)
	case Bytes, Count:
		return c.amount(k, n)
	case Selection:
		return c.selection(k, n)
	case Folders:
		return c.folders(k, n)
	case Layers:
		return c.layers(k, n)
	}
	panic(fmt.Sprintf("config: key %s has no converter", k.Path))
}

// acceptsList reports whether the text of a flag that begins with [ is a list for this key.
func (k *Key) acceptsList() bool {
	switch k.Type {
	case Texts, Resolution, IntPair, FloatPair, Selection, Folders, Layers:
		return true
	}
	return false
}

// flow reads the text of a flag or variable as a YAML list, every part of which keeps the flag as its origin.
func (c *converter) flow(n *node) *node {
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(n.text), &doc); err != nil {
		c.f.add(n.origin, "%q is not a list such as [a, b]", n.text)
		return nil
	}
	var b budget
	var inner Findings
	out, err := source{name: "value"}.fromYAML(doc.Content[0], 0, &b, &inner)
	if err != nil || len(inner.list) > 0 {
		c.f.add(n.origin, "%q is not a list such as [a, b]", n.text)
		return nil
	}
	var mark func(*node)
	mark = func(m *node) {
		m.origin = n.origin
		for _, i := range m.items {
			mark(i)
		}
		for i := range m.entries {
			m.entries[i].origin = n.origin
			mark(m.entries[i].value)
		}
	}
	mark(out)
	return out
}

// isWord reports whether n is the given text.
func (n *node) isWord(s string) bool {
	return (n.kind == textNode || n.kind == wordNode) && n.text == s
}

// Wants says in words what the key takes, with its range.
func (k *Key) Wants() string {
	r := k.rangeText()
	switch k.Type {
	case Bool:
		return "true or false"
	case Int, Seed:
		return "a whole number" + r
	case AutoInt:
		return "auto or a whole number" + r
	case Float:
		return "a number" + r
	case Enum, IntEnum:
		return "one of " + strings.Join(k.Enum, ", ")
	case Tri:
		return "auto, true or false"
	case Path:
		return "a path"
	case Text:
		return "text"
	case Texts:
		return "a list of texts"
	case Resolution:
		return "auto, a size or [width, height]" + r
	case IntPair:
		return "two whole numbers [a, b]" + r
	case FloatPair:
		return "two numbers [a, b]" + r
	case Steps:
		return "a whole number of steps or a share below 1"
	case Every:
		return "a whole number of steps or a time such as 10m"
	case Bytes:
		return "a size such as 256MiB"
	case Count:
		return "a whole number such as 100M"
	case Selection:
		return "one of " + strings.Join(k.Enum, ", ") + ", or a list of globs"
	}
	return "a list of folders"
}

// rangeText writes the allowed range, empty where there is none worth telling.
func (k *Key) rangeText() string {
	lo, hi := "", ""
	if k.Type == Seed {
		return " (0 or more)"
	}
	num := func(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }
	lo = num(k.Min) + " or more"
	if k.OpenMin {
		lo = "more than " + num(k.Min)
	}
	switch {
	case math.IsInf(k.Max, 1):
		return " (" + lo + ")"
	case k.OpenMax:
		hi = "below " + num(k.Max)
	case !k.OpenMin:
		return " (" + num(k.Min) + " to " + num(k.Max) + ")"
	default:
		hi = "at most " + num(k.Max)
	}
	return " (" + lo + ", " + hi + ")"
}

// mismatch reports a value of the wrong type.
func (c *converter) mismatch(k *Key, n *node) *fault.Error {
	subject := k.Path + ": "
	if n.kind == wordNode || strings.HasPrefix(n.origin, "-") {
		subject = ""
	}
	shown := n.shown()
	e := c.f.add(n.origin, "%s%s is not %s", subject, shown, k.Wants())
	if n.kind != textNode {
		return e
	}
	numeric := k.Type == Int || k.Type == AutoInt || k.Type == Float || k.Type == Seed || k.Type == IntEnum
	switch {
	case numeric && decimalFloat.MatchString(n.text):
		e.Advice = "remove the quotes"
	case k.Type == Bool && slices.Contains([]string{"yes", "no", "on", "off", "y", "n"}, strings.ToLower(n.text)):
		e.Advice = n.text + " is text here; write true or false"
	case k.Type == Bool && (n.text == "true" || n.text == "false"):
		e.Advice = "remove the quotes"
	}
	return e
}

// outOfRange reports a value of the right type that the key doesn't allow.
func (c *converter) outOfRange(k *Key, n *node) {
	subject := k.Path + ": "
	if n.kind == wordNode || strings.HasPrefix(n.origin, "-") {
		subject = ""
	}
	c.f.add(n.origin, "%s%s is out of range, it wants %s", subject, n.text, k.Wants())
}

// inRange reports whether f is inside the key's range.
func (k *Key) inRange(f float64) bool {
	return !(f < k.Min || k.OpenMin && f == k.Min || f > k.Max || k.OpenMax && f == k.Max || math.IsNaN(f) || math.IsInf(f, 0))
}

func (c *converter) bool(k *Key, n *node) (any, bool) {
	if (n.kind == boolNode || n.kind == wordNode) && (n.text == "true" || n.text == "false") {
		return n.text == "true", true
	}
	c.mismatch(k, n)
	return nil, false
}

// wholeNumber reads a decimal whole number within the key's range; what it can't read it reports.
func (c *converter) wholeNumber(k *Key, n *node) (int, bool) {
	if (n.kind == intNode || n.kind == wordNode) && decimalInt.MatchString(n.text) {
		if i, err := strconv.ParseInt(n.text, 10, 64); err == nil && k.inRange(float64(i)) {
			return int(i), true
		}
		c.outOfRange(k, n)
		return 0, false
	} else if n.kind == intNode {
		c.mismatch(k, n).Advice = "write it in decimal digits only"
		return 0, false
	}
	c.mismatch(k, n)
	return 0, false
}

func (c *converter) int(k *Key, n *node) (any, bool) {
	i, ok := c.wholeNumber(k, n)
	return i, ok
}

func (c *converter) intEnum(k *Key, n *node) (any, bool) {
	if (n.kind == intNode || n.kind == wordNode) && slices.Contains(k.Enum, n.text) {
		i, _ := strconv.Atoi(n.text)
		return i, true
	}
	c.mismatch(k, n)
	return nil, false
}

func (c *converter) seed(k *Key, n *node) (any, bool) {
	if (n.kind == intNode || n.kind == wordNode) && decimalInt.MatchString(n.text) {
		if u, err := strconv.ParseUint(strings.TrimPrefix(n.text, "+"), 10, 64); err == nil {
			return u, true
		}
	}
	c.mismatch(k, n)
	return nil, false
}

// number reads a finite number within the key's range.
func (c *converter) number(k *Key, n *node) (float64, bool) {
	if n.kind == intNode || n.kind == floatNode || n.kind == wordNode {
		if f, err := strconv.ParseFloat(n.text, 64); decimalFloat.MatchString(n.text) && err == nil && k.inRange(f) {
			return f, true
		} else if decimalFloat.MatchString(n.text) || n.kind == floatNode {
			c.outOfRange(k, n)
			return 0, false
		}
	}
	c.mismatch(k, n)
	return 0, false
}

func (c *converter) float(k *Key, n *node) (any, bool) {
	f, ok := c.number(k, n)
	return f, ok
}

// plain returns the text of a text value.
func (c *converter) plain(k *Key, n *node) (string, bool) {
	if n.kind != textNode && n.kind != wordNode {
		e := c.mismatch(k, n)
		if n.kind != listNode && n.kind != mapNode {
			e.Advice = fmt.Sprintf("put it in quotes: %q", n.text)
		}
		return "", false
	}
	if i := strings.IndexFunc(n.text, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' || r == 0x7f }); i >= 0 {
		c.f.add(n.origin, "%s: %q holds a control character", k.Path, n.text)
		return "", false
	}
	return n.text, true
}

func (c *converter) text(k *Key, n *node) (any, bool) {
	s, ok := c.plain(k, n)
	if ok && k.Path == "name" {
		if s == "" || s == "." || s == ".." || strings.ContainsAny(s, `/\`) || len(s) > 200 {
			c.f.add(n.origin, "name %q can't be the name of a folder", s).Advise("no slashes, at most 200 bytes; the folder that holds it is out")
			return nil, false
		}
	}
	return s, ok
}

func (c *converter) path(k *Key, n *node) (any, bool) {
	s, ok := c.plain(k, n)
	if !ok {
		return nil, false
	}
	if s == "" && !k.mayBeEmpty {
		c.f.add(n.origin, "%s is empty, it wants a path", k.Path)
		return nil, false
	}
	if s != "" && !filepath.IsAbs(s) && c.dir != "" {
		s = filepath.Join(c.dir, s)
	}
	return s, true
}

func (c *converter) enum(k *Key, n *node) (any, bool) {
	if n.kind == textNode || n.kind == wordNode {
		if slices.Contains(k.Enum, n.text) {
			return n.text, true
		}
		return nil, c.wrongWord(k, n)
	}
	c.mismatch(k, n)
	return nil, false
}

// wrongWord reports a word that isn't in the key's list, with the nearest one; it returns false.
func (c *converter) wrongWord(k *Key, n *node) bool {
	if slices.Contains(k.Later, n.text) {
		c.f.add(n.origin, "%s %q is not served yet: %s", k.Path, n.text, k.LaterWhy)
		return false
	}
	e := c.mismatch(k, n)
	if near := Nearest(n.text, slices.Concat(k.Enum, k.Later)); near != "" {
		e.Advise("did you mean %q?", near)
	}
	return false
}

func (c *converter) tri(k *Key, n *node) (any, bool) {
	if n.isWord("auto") || (n.kind == boolNode || n.kind == wordNode) && (n.text == "true" || n.text == "false") {
		return n.text, true
	}
	c.mismatch(k, n)
	return nil, false
}

func (c *converter) texts(k *Key, n *node) (any, bool) {
	if n.kind != listNode {
		s, ok := c.plain(k, n)
		return []string{s}, ok
	}
	out, all := []string{}, true
	for _, item := range n.items {
		s, ok := c.plain(k, item)
		out, all = append(out, s), all && ok
	}
	return out, all
}

func (c *converter) resolution(k *Key, n *node) (any, bool) {
	if n.isWord("auto") {
		return Size{}, true
	}
	if n.kind != listNode {
		i, ok := c.wholeNumber(k, n)
		return Size{i, i}, ok
	}
	p, ok := c.pair(k, n)
	return Size{p[0], p[1]}, ok
}

// pair reads a list of two whole numbers.
func (c *converter) pair(k *Key, n *node) ([2]int, bool) {
	if n.kind != listNode || len(n.items) != 2 {
		c.mismatch(k, n)
		return [2]int{}, false
	}
	a, ok := c.wholeNumber(k, n.items[0])
	b, ok2 := c.wholeNumber(k, n.items[1])
	return [2]int{a, b}, ok && ok2
}

func (c *converter) intPair(k *Key, n *node) (any, bool) {
	p, ok := c.pair(k, n)
	return p, ok
}

func (c *converter) floatPair(k *Key, n *node) (any, bool) {
	if n.kind != listNode || len(n.items) != 2 {
		c.mismatch(k, n)
		return nil, false
	}
	a, ok := c.number(k, n.items[0])
	b, ok2 := c.number(k, n.items[1])
	return [2]float64{a, b}, ok && ok2
}

func (c *converter) warmup(k *Key, n *node) (any, bool) {
	f, ok := c.number(k, n)
	switch {
	case !ok:
		return nil, false
	case decimalInt.MatchString(n.text):
		return Warmup{Steps: int(f)}, true
	case f < 1:
		return Warmup{Fraction: f}, true
	}
	c.mismatch(k, n)
	return nil, false
}

func (c *converter) interval(k *Key, n *node) (any, bool) {
	if n.kind == textNode || n.kind == wordNode && !decimalInt.MatchString(n.text) {
		d, err := time.ParseDuration(n.text)
		if err == nil && d >= time.Second && d <= 1000*time.Hour {
			return Interval{Time: d}, true
		}
		c.mismatch(k, n)
		return nil, false
	}
	i, ok := c.wholeNumber(k, n)
	return Interval{Steps: i}, ok
}

func (c *converter) amount(k *Key, n *node) (any, bool) {
	text, factor := n.text, int64(1)
	units := map[string]int64{"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
	re := sizeSuffix
	if k.Type == Count {
		re, units = countSuffix, map[string]int64{"k": 1e3, "M": 1e6}
	}
	isText := n.kind == textNode || n.kind == wordNode
	if m := re.FindStringSubmatch(text); m != nil && isText {
		text, factor = m[1], units[m[2]]
	} else if n.kind != intNode && n.kind != wordNode {
		c.mismatch(k, n)
		return nil, false
	}
	if i, err := strconv.ParseInt(text, 10, 64); err == nil && i >= 0 && i <= math.MaxInt64/factor && k.inRange(float64(i)*float64(factor)) {
		return i * factor, true
	}
	c.mismatch(k, n)
	return nil, false
}

func (c *converter) selection(k *Key, n *node) (any, bool) {
	if n.kind == listNode {
		v, ok := c.texts(k, n)
		if ok && len(n.items) == 0 {
			c.f.add(n.origin, "%s is an empty list: nothing would be trained", k.Path)
			return nil, false
		}
		if !ok {
			return nil, false
		}
		return Targets{Globs: v.([]string)}, true
	}
	if n.kind == textNode || n.kind == wordNode {
		if slices.Contains(k.Enum, n.text) {
			return Targets{Preset: n.text}, true
		}
		if strings.HasSuffix(strings.ToLower(n.text), ".toml") {
			v, ok := c.path(&Key{Path: k.Path, Type: Path}, n)
			if !ok {
				return nil, false
			}
			return Targets{File: v.(string)}, true
		}
		return nil, c.wrongWord(k, n)
	}
	c.mismatch(k, n)
	return nil, false
}
