// Package configs holds the presets that are in the binary, and sample configurations beside them.
package configs

import "embed"

// Presets holds presets/<name>.yaml.
//
//go:embed presets/*.yaml
var Presets embed.FS
