package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func load(t *testing.T, text string) (*Config, *Resolved) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	c, r, err := Load(Input{Files: []string{path}})
	if err != nil {
		t.Fatal(err)
	}
	return c, r
}

// Rules are kept in order with what they set, come back from the resolved file, and change a copy of the configuration only.
func TestLayers(t *testing.T) {
	c, r := load(t, "algo: loha\ndim: 8\nlayers:\n  - {match: \"unet.*attn1*\", algo: lokr, factor: 4, dim: 32}\n  - {match: b, skip: true}\n  - {match: c, lr_scale: 0.5, alpha: 3, on_input: true}\n")
	if len(c.Layers) != 3 || c.Layers[0].Match != "unet.*attn1*" || !c.Layers[1].Skip || c.Layers[1].LRScale != 1 || c.Layers[2].LRScale != 0.5 {
		t.Fatalf("%+v", c.Layers)
	}
	with := c.With(c.Layers[0].Set)
	if with.Algo != "lokr" || with.Factor != 4 || with.Dim != 32 || with.ConvDim != 32 || with.Alpha != 32 || with.ConvAlpha != 32 {
		t.Errorf("the first rule gives %+v", with)
	}
	if c.Algo != "loha" || c.Dim != 8 || c.Factor != -1 {
		t.Errorf("a rule changed the configuration itself: %+v", c)
	}
	if with := c.With(c.Layers[2].Set); with.Alpha != 3 || with.ConvAlpha != 3 || with.Dim != 8 {
		t.Errorf("the third rule gives %+v", with)
	}
	again, _ := load(t, string(r.YAML("again")))
	if !reflect.DeepEqual(again.Layers, c.Layers) {
		t.Errorf("written and read: %+v, want %+v", again.Layers, c.Layers)
	}
}

// A key that means nothing to any algorithm of the run is a warning that says so; one that a rule's algorithm takes is none.
func TestKeysWithoutEffect(t *testing.T) {
	for text, want := range map[string]string{
		"algo: ia3\ndim: 4\n":                           "dim has no effect: it means nothing to ia3",
		"factor: 4\n":                                   "factor has no effect: it means nothing to lora",
		"algo: boft\nalpha: 2\n":                        "alpha has no effect: it means nothing to boft",
		"algo: glora\ndora: in\n":                       "dora has no effect: it means nothing to glora",
		"factor: 4\nlayers: [{match: x, algo: lokr}]\n": "",
		"algo: lokr\nfactor: 4\n":                       "",
	} {
		_, r := load(t, text)
		var got []string
		for _, w := range r.Warnings {
			got = append(got, w.Message)
		}
		if strings.Join(got, "; ") != want {
			t.Errorf("%q: warnings %q, want %q", text, got, want)
		}
	}
}

// The layers of ia3 are its own unless others are asked for; a LyCORIS preset file is a path.
func TestTargets(t *testing.T) {
	if c, _ := load(t, "algo: ia3\n"); c.Targets.Preset != "ia3" {
		t.Errorf("ia3 trains %+v", c.Targets)
	}
	if c, _ := load(t, "algo: ia3\ntargets: full\n"); c.Targets.Preset != "full" {
		t.Errorf("ia3 with targets: full trains %+v", c.Targets)
	}
	c, r := load(t, "targets: my.toml\n")
	if filepath.Base(c.Targets.File) != "my.toml" || !filepath.IsAbs(c.Targets.File) {
		t.Errorf("a preset file is %+v", c.Targets)
	}
	if again, _ := load(t, string(r.YAML(""))); !reflect.DeepEqual(again.Targets, c.Targets) {
		t.Errorf("written and read: %+v, want %+v", again.Targets, c.Targets)
	}
}
