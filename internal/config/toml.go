package config

import (
	"errors"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"

	"lycoris/internal/fault"
)

// tomlReader builds a tree from the parser's expressions. The parser knows syntax only: that a table or key is given once is checked here.
type tomlReader struct {
	s       source
	p       unstable.Parser
	b       budget
	f       *Findings
	root    *node
	defined map[*node]bool // tables with a header of their own, inline tables, and lists that are values
}

// parseTOML reads a TOML document.
func (s source) parseTOML(f *Findings) *node {
	r := &tomlReader{s: s, f: f, root: &node{kind: mapNode, origin: s.position(1, 1)}, defined: map[*node]bool{}}
	r.p.Reset(s.data)
	table := r.root
	for r.p.NextExpression() {
		e := r.p.Expression()
		var err *fault.Error
		switch e.Kind {
		case unstable.KeyValue:
			if table != nil {
				err = r.keyValue(table, e, 0)
			}
		case unstable.Table, unstable.ArrayTable:
			table, err = r.header(e)
		}
		if err != nil {
			f.list = append(f.list, err)
			return nil
		}
	}
	if err := r.p.Error(); err != nil {
		at := s.position(1, 1)
		var pe *unstable.ParserError
		if errors.As(err, &pe) && len(pe.Highlight) > 0 {
			at = s.at(int(r.p.Range(pe.Highlight).Offset))
		}
		f.add(at, "is not valid TOML: %s", strings.TrimPrefix(err.Error(), "toml: "))
		return nil
	}
	return r.root
}

// keyPart is one part of a dotted key.
type keyPart struct{ name, origin string }

func (r *tomlReader) parts(e *unstable.Node) []keyPart {
	var parts []keyPart
	for it := e.Key(); it.Next(); {
		k := it.Node()
		parts = append(parts, keyPart{string(k.Data), r.s.at(int(k.Raw.Offset))})
	}
	return parts
}

// find returns the value of a key in a map.
func (n *node) find(key string) *node {
	for _, e := range n.entries {
		if e.key == key {
			return e.value
		}
	}
	return nil
}

// descend walks to the table that holds the last part, making tables on the way; nil when a part is no table.
func (r *tomlReader) descend(n *node, parts []keyPart, depth int) (*node, *fault.Error) {
	for i, part := range parts {
		if err := r.b.enter(depth+i, part.origin); err != nil {
			return nil, err
		}
		next := n.find(part.name)
		if next == nil {
			next = &node{kind: mapNode, origin: part.origin}
			n.entries = append(n.entries, entry{part.name, part.origin, next})
		}
		if next.kind == listNode && len(next.items) > 0 && !r.defined[next] {
			next = next.items[len(next.items)-1]
		}
		if next.kind != mapNode {
			r.f.add(part.origin, "key %q is given twice", part.name).Advise("the first is at %s", next.origin)
			return nil, nil
		}
		n = next
	}
	return n, nil
}

// header opens [table] or [[table]].
func (r *tomlReader) header(e *unstable.Node) (*node, *fault.Error) {
	parts := r.parts(e)
	last := parts[len(parts)-1]
	parent, err := r.descend(r.root, parts[:len(parts)-1], 0)
	if parent == nil || err != nil {
		return nil, err
	}
	have := parent.find(last.name)
	fresh := &node{kind: mapNode, origin: last.origin}
	if e.Kind == unstable.ArrayTable {
		switch {
		case have == nil:
			parent.entries = append(parent.entries, entry{last.name, last.origin, &node{kind: listNode, origin: last.origin, items: []*node{fresh}}})
		case have.kind == listNode && !r.defined[have]:
			have.items = append(have.items, fresh)
		default:
			r.f.add(last.origin, "key %q is given twice", last.name).Advise("the first is at %s", have.origin)
			return nil, nil
		}
		return fresh, r.b.enter(len(parts), last.origin)
	}
	if have == nil {
		parent.entries = append(parent.entries, entry{last.name, last.origin, fresh})
		have = fresh
	} else if have.kind != mapNode || r.defined[have] {
		r.f.add(last.origin, "table %q is given twice", last.name).Advise("the first is at %s", have.origin)
		return nil, nil
	}
	r.defined[have] = true
	return have, r.b.enter(len(parts), last.origin)
}

// keyValue adds one key to table.
func (r *tomlReader) keyValue(table *node, e *unstable.Node, depth int) *fault.Error {
	parts := r.parts(e)
	last := parts[len(parts)-1]
	parent, err := r.descend(table, parts[:len(parts)-1], depth)
	if parent == nil || err != nil {
		return err
	}
	v, err := r.value(e.Value(), last.origin, depth+len(parts))
	if err != nil {
		return err
	}
	if have := parent.find(last.name); have != nil {
		r.f.add(last.origin, "key %q is given twice", last.name).Advise("the first is at %s", have.origin)
		return nil
	}
	parent.entries = append(parent.entries, entry{last.name, last.origin, v})
	return nil
}

// value converts a value; lists have no place of their own in the parser's tree and take their key's.
func (r *tomlReader) value(v *unstable.Node, origin string, depth int) (*node, *fault.Error) {
	if v.Raw.Length > 0 {
		origin = r.s.at(int(v.Raw.Offset))
	}
	if err := r.b.enter(depth, origin); err != nil {
		return nil, err
	}
	n := &node{kind: textNode, text: string(v.Data), origin: origin}
	switch v.Kind {
	case unstable.Bool:
		n.kind = boolNode
	case unstable.Integer:
		n.kind = intNode
	case unstable.Float:
		n.kind = floatNode
	case unstable.Array:
		n.kind = listNode
		r.defined[n] = true
		for it := v.Children(); it.Next(); {
			item, err := r.value(it.Node(), origin, depth+1)
			if err != nil {
				return nil, err
			}
			n.items = append(n.items, item)
		}
	case unstable.InlineTable:
		n.kind = mapNode
		for it := v.Children(); it.Next(); {
			if err := r.keyValue(n, it.Node(), depth+1); err != nil {
				return nil, err
			}
		}
		r.defined[n] = true
	}
	return n, nil
}
