package archtest

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const root = "../.."

// imports returns every import statement below dir, whatever build tags its file has.
func imports(t *testing.T, dir string) []edge {
	t.Helper()
	var edges []edge
	files := token.NewFileSet()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") || strings.HasPrefix(d.Name(), "_")) {
			return filepath.SkipDir
		}
		if d.IsDir() || filepath.Ext(path) != ".go" {
			return nil
		}
		f, err := parser.ParseFile(files, path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		for _, spec := range f.Imports {
			to, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			own := strings.HasPrefix(to, module)
			edges = append(edges, edge{
				from: filepath.ToSlash(rel), to: strings.TrimPrefix(to, module), own: own,
				test: strings.HasSuffix(path, "_test.go"), at: files.Position(spec.Pos()).String(),
			})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return edges
}

func TestImportsPointDown(t *testing.T) {
	seen := map[string]bool{}
	for _, top := range []string{"cmd", "configs", "internal", "scripts"} {
		for _, e := range imports(t, filepath.Join(root, top)) {
			seen[e.from] = true
			if e.from == e.to { // a test of the package from outside
				continue
			}
			if wrong := violation(e); wrong != "" {
				t.Errorf("%s: %s", e.at, wrong)
			}
		}
	}
	if len(seen) < 25 || !seen["cmd/lycoris"] || !seen["internal/kernels/cpu"] {
		t.Errorf("only %d packages were read: %v", len(seen), seen)
	}
}

// A line for a package that is gone would hide a mistyped name.
func TestLayersExist(t *testing.T) {
	lines := map[string]int{}
	for _, row := range layers {
		for _, pkg := range row {
			if lines[pkg]++; lines[pkg] > 1 {
				t.Errorf("%s stands in layers twice", pkg)
			}
			if slices.Contains(planned, pkg) {
				continue
			}
			if _, err := os.Stat(filepath.Join(root, pkg)); err != nil {
				t.Errorf("layers: %v", err)
			}
		}
	}
}

func TestRulesHaveReasons(t *testing.T) {
	for _, b := range bans {
		if b.reason == "" {
			t.Errorf("the ban of %s in %s has no reason", b.to, b.from)
		}
	}
	for _, h := range homes {
		if h.reason == "" || len(h.packages) == 0 {
			t.Errorf("the home of %s has no reason or no package", h.prefix)
		}
	}
}

func TestViolation(t *testing.T) {
	for _, c := range []struct {
		name string
		edge edge
		want string // part of the message; "" = allowed
	}{
		{"down", edge{from: "internal/nn", to: "internal/graph", own: true}, ""},
		{"down many rows", edge{from: "internal/train", to: "internal/fault", own: true}, ""},
		{"up", edge{from: "internal/graph", to: "internal/nn", own: true}, "never up"},
		{"sideways", edge{from: "internal/vae", to: "internal/checkpoint", own: true}, "along one"},
		{"to the bottom's neighbour", edge{from: "internal/tensor", to: "internal/kernels", own: true}, "tensor is the bottom"},
		{"model to algorithms", edge{from: "internal/unet", to: "internal/algos", own: true}, "introduces them"},
		{"files to algorithms", edge{from: "internal/adapter", to: "internal/algos", own: true}, "handed the algorithms' keys"},
		{"backend below cmd", edge{from: "internal/train", to: "internal/kernels/cpu", own: true}, "chooses a backend"},
		{"backend in a test", edge{from: "internal/train", to: "internal/kernels/cpu", own: true, test: true}, ""},
		{"definition in a suite", edge{from: "internal/kernels/kernelstest", to: "internal/kernels/ref", own: true}, ""},
		{"definition in the program", edge{from: "internal/nn", to: "internal/kernels/ref", own: true}, "only tests compare"},
		{"a suite points up", edge{from: "internal/testutil", to: "internal/nn", own: true}, "never up"},
		{"backend in cmd", edge{from: "cmd/lycoris", to: "internal/kernels/cpu", own: true}, ""},
		{"test helpers in the program", edge{from: "internal/train", to: "internal/testutil", own: true}, "for tests"},
		{"unknown package", edge{from: "internal/util", to: "internal/fault", own: true}, "no row"},
		{"import of an unknown package", edge{from: "internal/train", to: "internal/util", own: true}, "no row"},
		{"viper at home", edge{from: "internal/config", to: "github.com/spf13/viper"}, ""},
		{"viper in cmd", edge{from: "cmd/lycoris", to: "github.com/spf13/viper"}, "home is internal/config"},
		{"cobra below cmd", edge{from: "internal/train", to: "github.com/spf13/cobra"}, "home is cmd/lycoris"},
		{"cobra in a test", edge{from: "internal/train", to: "github.com/spf13/cobra", test: true}, "home is cmd/lycoris"},
		{"progress bar in train", edge{from: "internal/train", to: "github.com/schollz/progressbar/v3"}, "home is internal/ui"},
		{"safetensors in adapter", edge{from: "internal/adapter", to: "github.com/nlpodyssey/safetensors"}, "home is internal/tensor"},
		{"CUDA in graph", edge{from: "internal/graph", to: "gorgonia.org/cu"}, "home is internal/kernels/cuda"},
		{"CUDA's parts", edge{from: "internal/kernels/cuda", to: "gorgonia.org/cu/dnn"}, ""},
		{"a longer name", edge{from: "internal/kernels/cuda", to: "gorgonia.org/cutter"}, "no line in archtest.homes"},
		{"a new module", edge{from: "internal/train", to: "example.org/new"}, "no line in archtest.homes"},
		{"standard library", edge{from: "internal/train", to: "os"}, ""},
		{"files in diffusion", edge{from: "internal/diffusion", to: "os"}, "without I/O"},
		{"generators with a state", edge{from: "internal/algos", to: "math/rand/v2"}, "exact resume"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := violation(c.edge)
			if c.want == "" && got != "" {
				t.Errorf("forbidden: %s", got)
			}
			if !strings.Contains(got, c.want) || c.want != "" && got == "" {
				t.Errorf("got %q, want it to say %q", got, c.want)
			}
		})
	}
}
