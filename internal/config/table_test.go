package config

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

func TestTable(t *testing.T) {
	seen := map[string]string{}
	once := func(kind, name, path string) {
		if other, ok := seen[kind+name]; ok {
			t.Errorf("%s %q belongs to %s and %s", kind, name, other, path)
		}
		seen[kind+name] = path
	}
	fields := map[any]string{}
	c := &Config{}
	for _, k := range keys {
		once("path ", k.Path, k.Path)
		once("variable ", k.EnvName(), k.Path)
		if k.Flag != "" {
			once("flag ", k.Flag, k.Path)
		}
		for _, f := range k.Foreign {
			once("foreign ", f, k.Path)
			if Lookup(f) != nil && f != k.Path {
				t.Errorf("foreign name %q of %s is a key itself", f, k.Path)
			}
		}
		if k.Doc == "" {
			t.Errorf("%s has no doc", k.Path)
		}
		if k.Path != strings.ToLower(k.Path) {
			t.Errorf("%s has capitals, which viper would fold", k.Path)
		}
		at := k.field(c)
		if other, ok := fields[at]; ok {
			t.Errorf("%s and %s fill the same field", other, k.Path)
		}
		fields[at] = k.Path
		if slices.Contains(laterKeys, k.Path) {
			t.Errorf("%s is served and listed as later", k.Path)
		}
	}
	for _, k := range folderKeys {
		(&Folder{}).field(k.Path) // panics without a field
	}
}

// TestEveryFieldHasAKey keeps Config and the table in step.
func TestEveryFieldHasAKey(t *testing.T) {
	c := &Config{}
	have := map[any]bool{}
	for _, k := range keys {
		have[k.field(c)] = true
	}
	groups := []string{"Dropout", "Model", "Bucket", "DataLimits", "Validate", "Cache", "Optimizer", "Scheduler", "Train", "Save", "Sample", "Guard", "Log"}
	v := reflect.ValueOf(c).Elem()
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		if !slices.Contains(groups, name) {
			if !have[v.Field(i).Addr().Interface()] {
				t.Errorf("field %s has no key", name)
			}
			continue
		}
		for j := range v.Field(i).NumField() {
			if !have[v.Field(i).Field(j).Addr().Interface()] {
				t.Errorf("field %s.%s has no key", name, v.Field(i).Type().Field(j).Name)
			}
		}
	}
}

func TestTemplateIsTheDefaults(t *testing.T) {
	var lines []string
	for i, l := range strings.Split(string(Template()), "\n") {
		if i > 0 {
			l = strings.TrimPrefix(l, "# ")
		}
		lines = append(lines, l)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "all.yaml")
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o644); err != nil {
		t.Fatal(err)
	}
	got, _, err := Load(Input{Files: []string{path}})
	if err != nil {
		t.Fatal(err)
	}
	want, _, err := Load(Input{NoConfig: true})
	if err != nil {
		t.Fatal(err)
	}
	got.Out = want.Out // relative to the file
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestPresetsAndSamplesLoad(t *testing.T) {
	for _, name := range Presets() {
		if _, r, err := Load(Input{NoConfig: true, Preset: name}); err != nil || len(r.Warnings) > 0 {
			t.Errorf("preset %s: %v", name, err)
		}
	}
	samples, err := filepath.Glob("../../configs/*.yaml")
	if err != nil || len(samples) < 2 {
		t.Fatalf("found samples %v, %v", samples, err)
	}
	for _, s := range samples {
		if _, r, err := Load(Input{Files: []string{s}, Strict: true}); err != nil || len(r.Warnings) > 0 {
			t.Errorf("%s: %v", s, err)
		}
	}
	_, _, err = Load(Input{NoConfig: true, Preset: "charakter"})
	if err == nil || !strings.Contains(err.Error(), `no preset "charakter"`) {
		t.Errorf("got %v", err)
	}
}

// TestSchemaKnowsEveryKey looks each key up in the JSON Schema.
func TestSchemaKnowsEveryKey(t *testing.T) {
	props := Schema()["properties"].(map[string]any)
	for _, k := range keys {
		group, tail, nested := strings.Cut(k.Path, ".")
		where := props
		if nested {
			where = props[group].(map[string]any)["properties"].(map[string]any)
		} else {
			tail = k.Path
		}
		if where[tail] == nil {
			t.Errorf("no schema for %s", k.Path)
		}
	}
	if _, err := yaml.Marshal(props); err != nil {
		t.Error(err)
	}
}
