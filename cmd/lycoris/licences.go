package main

import "runtime/debug"

// licence is a module in the program.
type licence struct {
	Module  string `json:"module"`
	Version string `json:"version"`
	Licence string `json:"licence"` // SPDX expression
}

// spdx holds the licences of the modules, as their LICENSE files say.
var spdx = map[string]string{
	"github.com/chewxy/math32":             "BSD-2-Clause",
	"github.com/fsnotify/fsnotify":         "BSD-3-Clause",
	"github.com/go-viper/mapstructure/v2":  "MIT",
	"github.com/google/uuid":               "BSD-3-Clause",
	"github.com/inconshreveable/mousetrap": "Apache-2.0",
	"github.com/mitchellh/colorstring":     "MIT",
	"github.com/nlpodyssey/safetensors":    "BSD-2-Clause",
	"github.com/pelletier/go-toml/v2":      "MIT",
	"github.com/pkg/errors":                "BSD-2-Clause",
	"github.com/rivo/uniseg":               "MIT",
	"github.com/rogpeppe/go-internal":      "BSD-3-Clause",
	"github.com/sagikazarmark/locafero":    "MIT",
	"github.com/schollz/progressbar/v3":    "MIT",
	"github.com/sourcegraph/conc":          "MIT",
	"github.com/spf13/afero":               "Apache-2.0",
	"github.com/spf13/cast":                "MIT",
	"github.com/spf13/cobra":               "Apache-2.0",
	"github.com/spf13/pflag":               "BSD-3-Clause",
	"github.com/spf13/viper":               "MIT",
	"github.com/subosito/gotenv":           "MIT",
	"go.yaml.in/yaml/v3":                   "MIT AND Apache-2.0",
	"golang.org/x/image":                   "BSD-3-Clause",
	"golang.org/x/sync":                    "BSD-3-Clause",
	"golang.org/x/sys":                     "BSD-3-Clause",
	"golang.org/x/term":                    "BSD-3-Clause",
	"golang.org/x/text":                    "BSD-3-Clause",
	"gonum.org/v1/gonum":                   "BSD-3-Clause",
	"gopkg.in/yaml.v3":                     "MIT AND Apache-2.0",
	"gorgonia.org/cu":                      "Apache-2.0",
}

// licences lists the modules that this build holds.
func licences() []licence {
	out := []licence{}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return out
	}
	for _, m := range info.Deps {
		name := spdx[m.Path]
		if name == "" {
			name = "unknown"
		}
		out = append(out, licence{m.Path, m.Version, name})
	}
	return out
}
