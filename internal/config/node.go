package config

import (
	"fmt"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"lycoris/internal/fault"
)

// Limits on configuration files, checked before anything is built from them.
const (
	maxFileBytes = 4 << 20
	maxNodes     = 100_000 // after aliases are followed
	maxDepth     = 32
)

// kind is the shape of a node.
type kind int

const (
	nullNode kind = iota
	boolNode
	intNode
	floatNode
	textNode
	listNode
	mapNode
	wordNode // text of a flag or variable: its type is whatever the key wants
)

// node is a value as it stands in its source.
type node struct {
	kind    kind
	text    string // scalars: as written, without quotes
	origin  string // file:line:column, --flag, --set key, or LYCORIS_NAME
	entries []entry
	items   []*node
}

// entry is one key of a map.
type entry struct {
	key    string
	origin string
	value  *node
}

// shown returns the value as messages quote it.
func (n *node) shown() string {
	switch n.kind {
	case nullNode:
		return "nothing"
	case listNode:
		return "a list"
	case mapNode:
		return "a group of keys"
	}
	return fmt.Sprintf("%q", n.text)
}

// source is one configuration file.
type source struct {
	name string // as shown in messages
	dir  string // folder that relative paths in it count from
	data []byte
}

// parse reads a file's text by the ending of its name: .toml, .json, everything else is YAML.
func (s source) parse(f *Findings) *node {
	if len(s.data) > maxFileBytes {
		f.add(s.name, "is %d bytes long, a configuration may have %d", len(s.data), maxFileBytes)
		return nil
	}
	if !utf8.Valid(s.data) {
		i := 0
		for i < len(s.data) {
			r, n := utf8.DecodeRune(s.data[i:])
			if r == utf8.RuneError && n == 1 {
				break
			}
			i += n
		}
		f.add(s.at(i), "is not UTF-8 text").Advise("save the file as UTF-8")
		return nil
	}
	switch strings.ToLower(filepath.Ext(s.name)) {
	case ".toml":
		return s.parseTOML(f)
	case ".json":
		return s.parseJSON(f)
	}
	return s.parseYAML(f)
}

// at returns the origin of the byte at offset; columns count characters from 1.
func (s source) at(offset int) string {
	head := string(s.data[:min(max(offset, 0), len(s.data))])
	line := strings.Count(head, "\n") + 1
	column := utf8.RuneCountInString(head[strings.LastIndexByte(head, '\n')+1:]) + 1
	return s.position(line, column)
}

// position returns the origin for a line and column.
func (s source) position(line, column int) string {
	return fmt.Sprintf("%s:%d:%d", s.name, line, column)
}

// budget counts nodes and levels while a tree is built.
type budget struct{ nodes int }

// enter counts one node at the given depth and reports a file that grows beyond the limits.
func (b *budget) enter(depth int, origin string) *fault.Error {
	b.nodes++
	if depth > maxDepth {
		return fault.BadUsage(origin, "is nested more than %d levels deep", maxDepth)
	}
	if b.nodes > maxNodes {
		return fault.BadUsage(origin, "expands to more than %d values", maxNodes)
	}
	return nil
}

// checkDuplicates reports keys that occur twice in a map.
func checkDuplicates(n *node, f *Findings) {
	seen := map[string]string{}
	for _, e := range n.entries {
		if first, ok := seen[e.key]; ok {
			f.add(e.origin, "key %q is given twice", e.key).Advise("the first is at %s", first)
			continue
		}
		seen[e.key] = e.origin
	}
}
