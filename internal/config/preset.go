package config

import (
	"io/fs"
	"strings"

	"lycoris/configs"
	"lycoris/internal/fault"
)

// Presets returns the names of the presets in the binary, sorted.
func Presets() []string {
	entries, err := fs.ReadDir(configs.Presets, "presets")
	if err != nil {
		panic("config: the embedded presets can't be listed: " + err.Error())
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".yaml"))
	}
	return names
}

// Preset returns the text of a preset.
func Preset(name string) ([]byte, error) {
	for _, p := range Presets() {
		if p == name {
			return fs.ReadFile(configs.Presets, "presets/"+name+".yaml")
		}
	}
	e := fault.BadUsage("--preset", "there is no preset %q, there are %s", name, strings.Join(Presets(), ", "))
	if near := Nearest(name, Presets()); near != "" {
		e.Advise("did you mean %q?", near)
	}
	return nil, e
}
