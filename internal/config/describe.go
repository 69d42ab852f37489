package config

import (
	"bytes"
	"fmt"
	"math"
	"strings"
)

// Template returns a configuration file with every key at its default, commented out, and its meaning beside it.
func Template() []byte {
	var b bytes.Buffer
	b.WriteString("# lycoris configuration. Remove the # before a key to change it; lycoris config keys lists ranges.\n")
	_, defaults, err := Load(Input{NoConfig: true})
	if err != nil {
		panic("config: the defaults don't load: " + err.Error())
	}
	group := ""
	for _, k := range keys {
		name, indent := k.Path, ""
		if g, tail, ok := strings.Cut(k.Path, "."); ok {
			if g != group {
				fmt.Fprintf(&b, "# %s:\n", g)
			}
			group, name, indent = g, tail, "  "
		} else {
			group = ""
		}
		value := k.Default
		if value == "" {
			value = defaults.Value(k.Path)
		}
		doc := k.Doc
		if k.Derived != "" {
			doc += " (" + k.Derived + ")"
		}
		fmt.Fprintf(&b, "%-38s # %s\n", "# "+indent+name+": "+value, doc)
	}
	return b.Bytes()
}

// Schema returns a JSON Schema of configuration files.
func Schema() map[string]any {
	props := map[string]any{}
	for _, k := range keys {
		group, tail, nested := strings.Cut(k.Path, ".")
		if !nested {
			props[k.Path] = k.schema()
			continue
		}
		g, _ := props[group].(map[string]any)
		if g == nil {
			g = map[string]any{"type": "object", "additionalProperties": false, "properties": map[string]any{}}
			props[group] = g
		}
		g["properties"].(map[string]any)[tail] = k.schema()
	}
	return map[string]any{"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "lycoris configuration", "type": "object",
		"additionalProperties": false, "properties": props}
}

// schema describes the values of one key.
func (k *Key) schema() map[string]any {
	m := k.typeSchema()
	m["description"] = k.Doc
	if k.Default != "" && (k.Type == Enum || k.Type == Tri) {
		m["default"] = k.Default
	}
	if k.mayBeEmpty {
		return map[string]any{"anyOf": []any{m, map[string]any{"type": "null"}}}
	}
	return m
}

func (k *Key) typeSchema() map[string]any {
	one := func(t string) map[string]any { return map[string]any{"type": t} }
	anyOf := func(s ...any) map[string]any { return map[string]any{"anyOf": s} }
	switch k.Type {
	case Bool:
		return one("boolean")
	case Int, Seed:
		return k.bounds("integer")
	case Float, Steps:
		return k.bounds("number")
	case AutoInt:
		return anyOf(map[string]any{"const": "auto"}, k.bounds("integer"))
	case Enum:
		return map[string]any{"enum": k.Enum}
	case IntEnum:
		var values []any
		for _, e := range k.Enum {
			var i int
			fmt.Sscan(e, &i)
			values = append(values, i)
		}
		return map[string]any{"enum": values}
	case Tri:
		return map[string]any{"enum": []any{"auto", true, false}}
	case Texts:
		return anyOf(one("string"), map[string]any{"type": "array", "items": one("string")})
	case Selection:
		return anyOf(map[string]any{"enum": k.Enum}, map[string]any{"type": "string", "pattern": `\.[tT][oO][mM][lL]$`}, map[string]any{"type": "array", "items": one("string"), "minItems": 1})
	case Resolution:
		return anyOf(map[string]any{"const": "auto"}, k.bounds("integer"), k.pairOf("integer"))
	case IntPair:
		return k.pairOf("integer")
	case FloatPair:
		return k.pairOf("number")
	case Every, Bytes, Count:
		return anyOf(k.bounds("integer"), one("string"))
	case Layers:
		props := map[string]any{}
		for _, lk := range layerKeys {
			props[lk.Path] = lk.schema()
		}
		return map[string]any{"type": "array", "items": map[string]any{"type": "object", "additionalProperties": false, "required": []string{"match"}, "properties": props}}
	case Folders:
		props := map[string]any{}
		for _, fk := range folderKeys {
			props[fk.Path] = fk.schema()
		}
		entry := map[string]any{"type": "object", "additionalProperties": false, "required": []string{"path"}, "properties": props}
		return anyOf(one("string"), entry, map[string]any{"type": "array", "items": anyOf(one("string"), entry)})
	}
	return one("string")
}

func (k *Key) pairOf(t string) map[string]any {
	return map[string]any{"type": "array", "items": k.bounds(t), "minItems": 2, "maxItems": 2}
}

// bounds is a number's schema with the key's range.
func (k *Key) bounds(t string) map[string]any {
	m := map[string]any{"type": t}
	name := "minimum"
	if k.OpenMin {
		name = "exclusiveMinimum"
	}
	m[name] = k.Min
	if !math.IsInf(k.Max, 1) {
		name = "maximum"
		if k.OpenMax {
			name = "exclusiveMaximum"
		}
		m[name] = k.Max
	}
	return m
}
