package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"

	"lycoris/internal/fault"
)

// jsonReader walks a JSON text token by token, which shows duplicate keys and places.
type jsonReader struct {
	s   source
	dec *json.Decoder
	b   budget
	f   *Findings
}

// parseJSON reads one JSON value.
func (s source) parseJSON(f *Findings) *node {
	r := &jsonReader{s: s, dec: json.NewDecoder(bytes.NewReader(s.data)), f: f}
	r.dec.UseNumber()
	n, err := r.value(0)
	if err == nil {
		end := r.next()
		if _, extra := r.dec.Token(); !errors.Is(extra, io.EOF) {
			f.add(s.at(end), "text follows after the configuration")
		}
		return n
	}
	var fe *fault.Error
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &fe):
		f.list = append(f.list, fe)
	case errors.As(err, &syntax):
		f.add(s.at(int(syntax.Offset)-1), "is not valid JSON: %s", strings.TrimPrefix(syntax.Error(), "json: "))
	default:
		f.add(s.at(len(s.data)), "is not valid JSON: it ends too early")
	}
	return nil
}

// next returns the offset of the next token: the decoder's offset is the end of the last one.
func (r *jsonReader) next() int {
	i := int(r.dec.InputOffset())
	for i < len(r.s.data) && strings.IndexByte(" \t\r\n,:", r.s.data[i]) >= 0 {
		i++
	}
	return i
}

// value reads the next value.
func (r *jsonReader) value(depth int) (*node, error) {
	origin := r.s.at(r.next())
	if err := r.b.enter(depth, origin); err != nil {
		return nil, err
	}
	tok, err := r.dec.Token()
	if err != nil {
		return nil, err
	}
	switch t := tok.(type) {
	case nil:
		return &node{kind: nullNode, origin: origin}, nil
	case bool:
		n := &node{kind: boolNode, text: "false", origin: origin}
		if t {
			n.text = "true"
		}
		return n, nil
	case json.Number:
		n := &node{kind: intNode, text: t.String(), origin: origin}
		if strings.ContainsAny(n.text, ".eE") {
			n.kind = floatNode
		}
		return n, nil
	case string:
		return &node{kind: textNode, text: t, origin: origin}, nil
	case json.Delim:
		if t == '[' {
			return r.list(origin, depth)
		}
		return r.object(origin, depth)
	}
	return nil, io.ErrUnexpectedEOF
}

func (r *jsonReader) list(origin string, depth int) (*node, error) {
	n := &node{kind: listNode, origin: origin}
	for r.dec.More() {
		item, err := r.value(depth + 1)
		if err != nil {
			return nil, err
		}
		n.items = append(n.items, item)
	}
	_, err := r.dec.Token()
	return n, err
}

func (r *jsonReader) object(origin string, depth int) (*node, error) {
	n := &node{kind: mapNode, origin: origin}
	for r.dec.More() {
		at := r.s.at(r.next())
		tok, err := r.dec.Token()
		if err != nil {
			return nil, err
		}
		v, err := r.value(depth + 1)
		if err != nil {
			return nil, err
		}
		n.entries = append(n.entries, entry{key: tok.(string), origin: at, value: v})
	}
	_, err := r.dec.Token()
	checkDuplicates(n, r.f)
	return n, err
}
