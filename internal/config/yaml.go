package config

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"lycoris/internal/fault"
)

var yamlLine = regexp.MustCompile(`line (\d+)`)

// parseYAML reads one YAML document.
func (s source) parseYAML(f *Findings) *node {
	dec := yaml.NewDecoder(bytes.NewReader(s.data))
	var doc yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return &node{kind: mapNode, origin: s.position(1, 1)}
		}
		s.yamlError(err, f)
		return nil
	}
	var second yaml.Node
	if err := dec.Decode(&second); err == nil {
		f.add(s.position(second.Line, second.Column), "a second document begins here, a configuration is one")
	} else if !errors.Is(err, io.EOF) {
		s.yamlError(err, f)
	}
	var b budget
	n, fe := s.fromYAML(doc.Content[0], 0, &b, f)
	if fe != nil {
		f.list = append(f.list, fe)
		return nil
	}
	return n
}

// yamlError turns the decoder's words into a finding with a place.
func (s source) yamlError(err error, f *Findings) {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 1
	if m := yamlLine.FindStringSubmatchIndex(text); m != nil {
		line, _ = strconv.Atoi(text[m[2]:m[3]])
		text = strings.TrimPrefix(text[m[1]:], ": ")
	}
	column := 1
	lines := strings.Split(string(s.data), "\n")
	// The scanner counts from 0 in some messages: look for the tab in the line it names and the next one.
	for l := line; l <= line+1 && strings.Contains(text, "start any token"); l++ {
		if l >= 1 && l <= len(lines) {
			indent := lines[l-1][:len(lines[l-1])-len(strings.TrimLeft(lines[l-1], " \t"))]
			if i := strings.IndexByte(indent, '\t'); i >= 0 {
				f.add(s.position(l, i+1), "is indented with a tab, YAML wants blanks")
				return
			}
		}
	}
	if strings.Contains(text, "exceeded max depth") {
		text = "is nested too deep"
	}
	f.add(s.position(line, column), "is not valid YAML: %s", text)
}

// fromYAML converts a node; aliases are followed and counted.
func (s source) fromYAML(y *yaml.Node, depth int, b *budget, f *Findings) (*node, *fault.Error) {
	origin := s.position(y.Line, y.Column)
	if err := b.enter(depth, origin); err != nil {
		return nil, err
	}
	switch y.Kind {
	case yaml.AliasNode:
		n, err := s.fromYAML(y.Alias, depth+1, b, f)
		return n, err
	case yaml.SequenceNode:
		n := &node{kind: listNode, origin: origin}
		for _, c := range y.Content {
			item, err := s.fromYAML(c, depth+1, b, f)
			if err != nil {
				return nil, err
			}
			n.items = append(n.items, item)
		}
		return n, nil
	case yaml.MappingNode:
		n := &node{kind: mapNode, origin: origin}
		for i := 0; i+1 < len(y.Content); i += 2 {
			k := y.Content[i]
			at := s.position(k.Line, k.Column)
			if k.Kind != yaml.ScalarNode || (k.Tag != "!!str" && k.Tag != "!!merge") {
				f.add(at, "a key must be text")
				continue
			}
			v, err := s.fromYAML(y.Content[i+1], depth+1, b, f)
			if err != nil {
				return nil, err
			}
			n.entries = append(n.entries, entry{key: k.Value, origin: at, value: v})
		}
		checkDuplicates(n, f)
		return n, nil
	}
	n := &node{kind: textNode, text: y.Value, origin: origin}
	switch y.Tag {
	case "!!null":
		n.kind = nullNode
	case "!!bool":
		n.kind = boolNode
	case "!!int":
		n.kind = intNode
	case "!!float":
		n.kind = floatNode
	}
	return n, nil
}
