package config

import "slices"

// folders converts the list of data folders; a text is short for {path: text}.
func (c *converter) folders(k *Key, n *node) (any, bool) {
	if n.kind == textNode || n.kind == wordNode || n.kind == mapNode {
		n = &node{kind: listNode, origin: n.origin, items: []*node{n}}
	}
	if n.kind != listNode {
		c.mismatch(k, n)
		return nil, false
	}
	out, all := []Folder{}, true
	for _, item := range n.items {
		d, ok := c.folder(k, item)
		out, all = append(out, d), all && ok
	}
	return out, all
}

// folder converts one entry of data.
func (c *converter) folder(k *Key, n *node) (Folder, bool) {
	d := Folder{CaptionExt: []string{".txt", ".caption"}, Crop: "center"}
	pathKey := folderKey("path")
	if n.kind != mapNode {
		if n.kind != textNode && n.kind != wordNode {
			c.mismatch(k, n)
			return d, false
		}
		v, ok := c.path(pathKey, n)
		if ok {
			d.Path = v.(string)
		}
		return d, ok
	}
	all, havePath := true, false
	for _, e := range n.entries {
		fk := folderKey(e.key)
		if fk == nil {
			c.f.unknown(e.origin, e.key, "data", folderKeys)
			all = false
			continue
		}
		v, ok := c.value(fk, e.value)
		if !ok {
			all = false
		}
		if e.key == "path" {
			havePath = true
		}
		if ok && v != nil {
			d.set(e.key, v)
		}
	}
	if !havePath {
		c.f.add(n.origin, "an entry of data has no path")
		all = false
	}
	return d, all
}

// folderKey returns the key of a data entry with the given name, nil if there is none.
func folderKey(name string) *Key {
	if i := slices.IndexFunc(folderKeys, func(k *Key) bool { return k.Path == name }); i >= 0 {
		return folderKeys[i]
	}
	return nil
}

// set assigns one checked value.
func (d *Folder) set(key string, v any) { assign(d.field(key), v) }

// field returns the address of the field of a key.
func (d *Folder) field(key string) any {
	switch key {
	case "path":
		return &d.Path
	case "repeats":
		return &d.Repeats
	case "caption_ext":
		return &d.CaptionExt
	case "class_tokens":
		return &d.ClassTokens
	case "flip":
		return &d.Flip
	case "crop":
		return &d.Crop
	case "keep_tokens":
		return &d.KeepTokens
	case "shuffle":
		return &d.Shuffle
	case "caption_dropout":
		return &d.CaptionDropout
	case "tag_dropout":
		return &d.TagDropout
	case "prefix":
		return &d.Prefix
	case "suffix":
		return &d.Suffix
	}
	panic("config: no field for data key " + key)
}
