package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/spf13/viper"

	"lycoris/internal/fault"
)

// Input is everything a configuration is made of.
type Input struct {
	Flags      map[string][]string // by key path: texts of the flags that were given; only list keys may have several
	Sets       []string            // KEY=VALUE, as given to --set
	Files      []string            // --config, the last one wins
	NoConfig   bool                // don't look for lycoris.yaml or lycoris.toml
	Env        []string            // NAME=VALUE, as os.Environ gives them
	Dir        string              // folder that flags' paths count from; empty: the current one
	Preset     string              // name of a preset
	ResumeFile string              // config.resolved.yaml of the run that goes on
	Strict     bool                // warnings are errors
}

// layer is one source after checking.
type layer struct {
	name    string // "built-in", "preset", "run", a file's name, "environment", "command line"
	values  map[string]any
	origins map[string]string
}

func newLayer(name string) *layer {
	return &layer{name: name, values: map[string]any{}, origins: map[string]string{}}
}

// loader collects layers, lowest first.
type loader struct {
	in       Input
	f        Findings
	warnings []*fault.Error
	layers   []*layer
	inputs   []InputFile
	preset   *InputFile
}

// Load reads, checks and layers all sources. The error is [*Findings] of kind fault.Usage, or of kind fault.Resume when a key that is
// fixed for a run differs from the run's; it is an fault.Input error when a file can't be read.
func Load(in Input) (*Config, *Resolved, error) {
	l := &loader{in: in}
	l.layers = append(l.layers, builtIn())
	if err := l.files(); err != nil {
		return nil, nil, err
	}
	l.environment()
	l.commandLine()
	l.exclusive()
	if err := l.f.err(); err != nil {
		return nil, nil, err
	}
	r := l.resolve()
	l.crossChecks(r)
	if l.in.Strict && len(l.warnings) > 0 {
		l.f.list = append(l.f.list, l.warnings...)
	}
	if err := l.f.err(); err != nil {
		return nil, nil, err
	}
	if err := l.fixedKeys(r); err != nil {
		return nil, nil, err
	}
	return r.Config, r, nil
}

// builtIn returns the defaults of the table.
func builtIn() *layer {
	var f Findings
	c := &converter{f: &f}
	out := newLayer("built-in")
	for _, k := range keys {
		if k.Default == "" {
			continue
		}
		if v, ok := c.value(k, &node{kind: wordNode, text: k.Default, origin: k.Path}); ok {
			out.values[k.Path], out.origins[k.Path] = v, "built-in"
		}
	}
	if len(f.list) > 0 {
		panic("config: the table's defaults don't pass the table: " + f.Error())
	}
	return out
}

// files adds the preset, the run's own file and the configuration files.
func (l *loader) files() error {
	if l.in.Preset != "" && l.in.ResumeFile == "" {
		data, err := Preset(l.in.Preset)
		if err != nil {
			return err
		}
		l.preset = &InputFile{Name: l.in.Preset, Data: data}
		l.file(source{name: "preset " + l.in.Preset, dir: l.in.Dir, data: data})
	}
	paths := l.in.Files
	switch {
	case l.in.ResumeFile != "":
		paths = append([]string{l.in.ResumeFile}, paths...)
	case len(paths) == 0 && !l.in.NoConfig && l.variable("LYCORIS_CONFIG") != "none":
		for _, name := range []string{"lycoris.yaml", "lycoris.toml"} {
			if _, err := os.Stat(l.inDir(name)); err == nil {
				paths = append(paths, name)
				break
			}
		}
	}
	for _, p := range paths {
		full := l.inDir(p)
		data, err := readLimited(full)
		if err != nil {
			return err
		}
		l.inputs = append(l.inputs, InputFile{Name: p, Data: data})
		dir := filepath.Dir(full)
		if dir == "." {
			dir = ""
		}
		l.file(source{name: p, dir: dir, data: data})
		if p == l.in.ResumeFile && len(l.f.list) > 0 {
			e := l.f.list[0]
			return fault.New(fault.Resume, p, "is damaged, the run can't go on: %s", e.Message).Advise("%s\nstart a new run from its adapter: --network-weights FILE", e.Path)
		}
	}
	return nil
}

// readLimited reads a configuration file that isn't larger than it may be.
func readLimited(path string) ([]byte, error) {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fault.BadInput(path, "there is no such configuration file").Advise("check the path given with --config; lycoris config init writes one")
	case err != nil:
		return nil, fault.BadInput(path, "can't be read: %w", errors.Unwrap(err))
	case st.IsDir():
		return nil, fault.BadInput(path, "is a folder, not a configuration file")
	case st.Size() > maxFileBytes:
		return nil, fault.BadInput(path, "is %d bytes long, a configuration may have %d", st.Size(), maxFileBytes)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.BadInput(path, "can't be read: %w", err)
	}
	return data, nil
}

// inDir returns the place of a path that counts from the current folder.
func (l *loader) inDir(p string) string {
	if filepath.IsAbs(p) || l.in.Dir == "" {
		return p
	}
	return filepath.Join(l.in.Dir, p)
}

// file checks one file and adds its layer.
func (l *loader) file(s source) {
	n := s.parse(&l.f)
	if n == nil || n.kind == nullNode {
		return
	}
	out := newLayer(s.name)
	if n.kind != mapNode {
		l.f.add(n.origin, "a configuration is a group of keys, this is %s", n.shown())
		return
	}
	c := &converter{f: &l.f, dir: s.dir}
	c.group(n, "", out)
	l.layers = append(l.layers, out)
}

// group checks the keys of one map and puts their values into out; prefix is the group's path.
func (c *converter) group(n *node, prefix string, out *layer) {
	for _, e := range n.entries {
		path := e.key
		if prefix != "" {
			path = prefix + "." + e.key
		}
		if k := Lookup(path); k != nil && !(prefix == "" && strings.Contains(e.key, ".")) {
			if _, twice := out.values[path]; twice {
				continue
			}
			if v, ok := c.value(k, e.value); ok {
				out.put(k, v, e.value.origin)
			}
			continue
		} else if k != nil {
			c.f.add(e.origin, "unknown key %q", e.key).Advise("write it as a key of the group %q", strings.SplitN(e.key, ".", 2)[0])
			continue
		}
		if prefix == "" && slices.Contains(Groups(), e.key) {
			switch e.value.kind {
			case mapNode:
				c.group(e.value, e.key, out)
			case nullNode:
				c.f.add(e.value.origin, "%s has no keys", e.key)
			default:
				c.f.add(e.value.origin, "%s: %s is not a group of keys", e.key, e.value.shown()).Advise("its keys are %s", strings.Join(groupKeys(e.key), ", "))
			}
			continue
		}
		c.f.unknown(e.origin, e.key, prefix, keys)
	}
}

// groupKeys returns the last parts of the keys of a group.
func groupKeys(group string) []string {
	var out []string
	for _, k := range keys {
		if tail, ok := strings.CutPrefix(k.Path, group+"."); ok {
			out = append(out, tail)
		}
	}
	return out
}

// put stores a checked value; nil unsets the key, which is the zero value of its type.
func (l *layer) put(k *Key, v any, origin string) {
	if v == nil {
		v = reflect.Zero(reflect.TypeOf(k.field(&Config{})).Elem()).Interface()
	}
	l.values[k.Path], l.origins[k.Path] = v, origin
}

// variable returns the value of an environment variable, empty when unset.
func (l *loader) variable(name string) string {
	for _, kv := range l.in.Env {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}

// otherVariables are LYCORIS_ names that aren't keys.
var otherVariables = []string{"LYCORIS_CONFIG", "LYCORIS_CUDA_DRIVER", "LYCORIS_CUDA_WAIT"}

// environment adds the layer of LYCORIS_ variables.
func (l *loader) environment() {
	out := newLayer("environment")
	byName := map[string]*Key{}
	for _, k := range keys {
		byName[k.EnvName()] = k
	}
	c := &converter{f: &l.f, dir: l.in.Dir}
	env := slices.Sorted(slices.Values(l.in.Env))
	for _, kv := range env {
		name, text, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, "LYCORIS_") || text == "" || slices.Contains(otherVariables, name) {
			continue
		}
		k := byName[name]
		if k == nil {
			w := fault.BadUsage(name, "is not a key of the configuration, it is ignored")
			if near := Nearest(name, slices.Sorted(maps.Keys(byName))); near != "" {
				w.Advise("did you mean %s?", near)
			}
			l.warnings = append(l.warnings, w)
			continue
		}
		if v, ok := c.value(k, &node{kind: wordNode, text: text, origin: name}); ok {
			out.put(k, v, name)
		}
	}
	l.layers = append(l.layers, out)
}

// commandLine adds the layer of flags and --set, which rank equally: a key in both is an error.
func (l *loader) commandLine() {
	out := newLayer("command line")
	c := &converter{f: &l.f, dir: l.in.Dir}
	for _, path := range slices.Sorted(maps.Keys(l.in.Flags)) {
		k := Lookup(path)
		if k == nil {
			panic("config: a flag was made for the unknown key " + path)
		}
		n := words(k, l.in.Flags[path], "--"+k.Flag)
		if v, ok := c.value(k, n); ok {
			out.put(k, v, "--"+k.Flag)
		} else {
			out.origins[k.Path] = "--" + k.Flag
		}
	}
	for _, set := range l.in.Sets {
		path, text, ok := strings.Cut(set, "=")
		if !ok {
			l.f.add("--set", "%q is not KEY=VALUE", set)
			continue
		}
		k := Lookup(path)
		if k == nil {
			if group, tail, nested := strings.Cut(path, "."); nested && slices.Contains(Groups(), group) {
				l.f.unknown("--set "+path, tail, group, keys)
			} else {
				l.f.unknown("--set "+path, path, "", keys)
			}
			continue
		}
		if have, twice := out.origins[path]; twice {
			l.f.add("--set "+path, "key %q is given twice on the command line", path).Advise("the first is %s", have)
			continue
		}
		if v, ok := c.value(k, words(k, []string{text}, "--set "+path)); ok {
			out.put(k, v, "--set "+path)
		} else {
			out.origins[path] = "--set " + path
		}
	}
	l.layers = append(l.layers, out)
}

// words makes a node of the texts given to one flag.
func words(k *Key, texts []string, origin string) *node {
	if len(texts) == 1 {
		return &node{kind: wordNode, text: texts[0], origin: origin}
	}
	n := &node{kind: listNode, origin: origin}
	for _, t := range texts {
		n.items = append(n.items, &node{kind: wordNode, text: t, origin: origin})
	}
	return n
}

// exclusive settles steps and epochs: both in one source is an error, else the higher one wins and the other is unset.
func (l *loader) exclusive() {
	for i := len(l.layers) - 1; i > 0; i-- {
		lay := l.layers[i]
		steps, _ := lay.values["steps"].(int)
		epochs, _ := lay.values["epochs"].(int)
		switch {
		case steps > 0 && epochs > 0:
			l.f.add(lay.origins["epochs"], "steps and epochs are both given").Advise("keep one of them; steps is at %s", lay.origins["steps"])
			return
		case epochs > 0:
			lay.put(Lookup("steps"), 0, lay.origins["epochs"])
			return
		case steps > 0:
			lay.put(Lookup("epochs"), 0, lay.origins["steps"])
			return
		}
	}
}

// resolve lays the layers over each other with viper and fills the Config.
func (l *loader) resolve() *Resolved {
	v := viper.New()
	r := &Resolved{Config: &Config{}, Warnings: l.warnings, Inputs: l.inputs, Preset: l.preset, sources: map[string]string{}}
	for _, lay := range l.layers {
		switch lay.name {
		case "built-in":
			for path, value := range lay.values {
				v.SetDefault(path, value)
			}
		case "environment", "command line":
			for path, value := range lay.values {
				v.Set(path, value)
			}
		default:
			if err := v.MergeConfigMap(nested(lay.values)); err != nil {
				panic(fmt.Sprintf("config: layering %s: %v", lay.name, err))
			}
		}
		for path := range lay.values {
			r.sources[path] = lay.origins[path]
		}
	}
	for _, k := range keys {
		if value := v.Get(k.Path); value != nil {
			assign(k.field(r.Config), value)
		}
	}
	r.derive()
	return r
}

// nested turns dotted paths into maps of maps, the form viper merges.
func nested(values map[string]any) map[string]any {
	out := map[string]any{}
	for path, v := range values {
		group, tail, ok := strings.Cut(path, ".")
		if !ok {
			out[path] = v
			continue
		}
		m, _ := out[group].(map[string]any)
		if m == nil {
			m = map[string]any{}
			out[group] = m
		}
		m[tail] = v
	}
	return out
}

// assign stores v at the address field; both have the same type, the converter saw to it.
func assign(field, v any) { reflect.ValueOf(field).Elem().Set(reflect.ValueOf(v)) }

// fixedKeys compares with the run that goes on: only keys marked resumable may differ.
func (l *loader) fixedKeys(r *Resolved) error {
	if l.in.ResumeFile == "" {
		return nil
	}
	run := l.layers[1]
	var f Findings
	for _, k := range keys {
		was, given := run.values[k.Path]
		if !given || k.Resumable {
			continue
		}
		a, b := r.format(k, was), r.format(k, r.value(k))
		if a != b {
			a, b = r.brief(k, was, a), r.brief(k, r.value(k), b)
			e := fault.New(fault.Resume, r.sources[k.Path], "can't resume: %s was %s, is %s", k.Path, a, b)
			if a == b { // the folders are the same
				e = fault.New(fault.Resume, r.sources[k.Path], "can't resume: the settings of the folders in %s differ from the run's", k.Path)
			}
			f.list = append(f.list, e.Advise("leave it as it was, or start a new run with another --name"))
		}
	}
	return f.err()
}
