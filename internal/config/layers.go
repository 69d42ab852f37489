package config

import (
	"maps"
	"slices"
)

// Layer is one rule of layers: what it sets for the modules that it matches.
type Layer struct {
	Match   string
	Skip    bool
	LRScale float64        // 1 unless given
	Set     map[string]any // every key that was given, by path, match included
}

// layers converts the list of rules.
func (c *converter) layers(k *Key, n *node) (any, bool) {
	if n.kind == mapNode {
		n = &node{kind: listNode, origin: n.origin, items: []*node{n}}
	}
	if n.kind != listNode {
		c.mismatch(k, n)
		return nil, false
	}
	out, all := []Layer{}, true
	for _, item := range n.items {
		l, ok := c.layer(k, item)
		out, all = append(out, l), all && ok
	}
	return out, all
}

// layer converts one rule.
func (c *converter) layer(k *Key, n *node) (Layer, bool) {
	l := Layer{LRScale: 1, Set: map[string]any{}}
	if n.kind != mapNode {
		c.f.add(n.origin, "an entry of layers is a group of keys such as {match: \"unet.*attn1*\", dim: 8}")
		return l, false
	}
	all := true
	for _, e := range n.entries {
		lk := layerKey(e.key)
		if lk == nil {
			c.f.unknown(e.origin, e.key, "layers", layerKeys)
			all = false
			continue
		}
		v, ok := c.value(lk, e.value)
		if !ok {
			all = false
			continue
		}
		l.Set[e.key] = v
		switch e.key {
		case "match":
			l.Match = v.(string)
		case "skip":
			l.Skip = v.(bool)
		case "lr_scale":
			l.LRScale = v.(float64)
		}
	}
	if l.Match == "" && all {
		c.f.add(n.origin, "an entry of layers has no match")
		all = false
	}
	return l, all
}

// layerKey returns the key of a rule with the given name, nil if there is none.
func layerKey(name string) *Key {
	if i := slices.IndexFunc(layerKeys, func(k *Key) bool { return k.Path == name }); i >= 0 {
		return layerKeys[i]
	}
	return nil
}

// With returns a copy of c in which the keys of set, which are keys of layers, have its values. A dim goes for convolutions too; an alpha that nobody gave
// follows it.
func (c *Config) With(set map[string]any) *Config {
	with := *c
	for _, path := range slices.Sorted(maps.Keys(set)) {
		if k := Lookup(path); k != nil {
			assign(k.field(&with), set[path])
		}
	}
	if dim, given := set["dim"]; given {
		with.ConvDim = dim.(int)
		if _, given := set["alpha"]; !given && c.Alpha == float64(c.Dim) {
			with.Alpha = float64(with.Dim)
		}
		with.ConvAlpha = with.Alpha
	}
	if alpha, given := set["alpha"]; given {
		with.ConvAlpha = alpha.(float64)
	}
	return &with
}
