package archtest

import (
	"fmt"
	"slices"
	"strings"
)

// module is the path that all packages of the project start with.
const module = "lycoris/"

// layers lists every package, top row first. A package imports packages of lower rows only; those of one row don't know each other.
var layers = [][]string{
	{"cmd/lycoris", "scripts/fullsize", "internal/archtest", "internal/modeltest"},
	{"internal/train"},
	{"internal/sample", "internal/merge", "internal/extract", "internal/resize"},
	{"internal/inspect", "internal/convert"},
	{"internal/loose"},
	{"internal/network", "internal/pipeline", "internal/testutil/tinymodel", "internal/algos/algostest"},
	{"internal/unet", "internal/textencoder", "internal/textencoder/tokenizer", "internal/vae", "internal/algos", "internal/adapter", "internal/checkpoint", "internal/modelfile",
		"internal/dataset", "internal/diffusion", "internal/kernels/kernelstest"},
	{"internal/nn", "internal/linalg", "internal/optim", "internal/arch", "internal/config", "internal/ui", "internal/runs"},
	{"internal/graph", "internal/kernels/ref", "internal/kernels/cpu", "internal/kernels/cuda", "internal/testutil"},
	{"internal/kernels"},
	{"internal/pickle"},
	{"internal/tensor"},
	{"internal/fault", "internal/rng", "configs"}, // configs is embedded files and nothing else
}

// testOnly are packages that the program itself never contains.
var testOnly = []string{"internal/archtest", "internal/modeltest", "internal/testutil", "internal/testutil/tinymodel", "internal/kernels/kernelstest",
	"internal/algos/algostest"}

// planned are packages of layers that may not be there yet.
var planned = []string{"internal/algos/algostest"}

// ban forbids an import that the rows alone would allow, or whose reason is worth reading when it is tried.
type ban struct {
	from   string // a package, or a folder of packages that ends in "/"
	to     string // likewise, or a package of the standard library
	except []string
	reason string
}

var bans = []ban{
	{from: "internal/unet", to: "internal/algos", reason: "a model doesn't know what adapts it: both meet at a layer of nn, train introduces them"},
	{from: "internal/textencoder", to: "internal/algos", reason: "a model doesn't know what adapts it: both meet at a layer of nn, train introduces them"},
	{from: "internal/algos", to: "internal/unet", reason: "an algorithm sees a layer's shape, not the model, so that it serves every family"},
	{from: "internal/algos", to: "internal/arch", reason: "an algorithm sees a layer's shape, not the model's table, so that it serves every family"},
	{from: "internal/adapter", to: "internal/algos", reason: "adapter files are read by tools that compute nothing: adapter is handed the algorithms' keys"},
	{from: "internal/tensor", to: "internal/kernels", reason: "tensor is the bottom: a backend packs weights from their file's element type"},
	{from: "internal/", to: "internal/kernels/cpu", reason: "the command chooses a backend; everything below speaks to kernels.Backend, so that CUDA needs no second version of it"},
	{from: "internal/", to: "internal/kernels/cuda", reason: "the command chooses a backend; everything below speaks to kernels.Backend"},
	{from: "internal/", to: "internal/kernels/ref", reason: "ref defines what kernels compute; only tests compare with it"},
	{from: "internal/", to: "internal/ui", except: []string{"internal/train", "internal/sample"}, reason: "packages that compute return errors and call back; messages have one voice"},
	{from: "internal/", to: "internal/config", except: []string{"internal/train"}, reason: "packages take what they need as arguments: keys and files of settings end in train and cmd"},
	{from: "internal/diffusion", to: "os", reason: "diffusion is arithmetic without I/O, so that every formula has a table test"},
	{from: "internal/diffusion", to: "io", reason: "diffusion is arithmetic without I/O, so that every formula has a table test"},
	{from: "internal/", to: "math/rand", reason: "random numbers are addressed (internal/rng): a generator's state would end exact resume"},
	{from: "internal/", to: "math/rand/v2", reason: "random numbers are addressed (internal/rng): a generator's state would end exact resume"},
	{from: "internal/", to: "net/http", reason: "training uses no network"},
	{from: "cmd/", to: "net/http", reason: "training uses no network"},
}

// home is where a module from outside may be imported, and why there.
type home struct {
	prefix   string // of import paths
	packages []string
	reason   string
}

var homes = []home{
	{"github.com/spf13/cobra", []string{"cmd/lycoris"}, "commands and flags end in cmd; what they call takes a struct"},
	{"github.com/spf13/pflag", []string{"cmd/lycoris"}, "commands and flags end in cmd; what they call takes a struct"},
	{"github.com/spf13/viper", []string{"internal/config"}, "layers of settings are one package's matter"},
	{"gopkg.in/yaml.v3", []string{"internal/config"}, "positions of keys for messages about a file of settings"},
	{"github.com/pelletier/go-toml/v2", []string{"internal/config"}, "positions of keys for messages about a file of settings"},
	{"github.com/schollz/progressbar/v3", []string{"internal/ui"}, "progress has one voice, which also knows when there is no terminal"},
	{"golang.org/x/term", []string{"internal/ui"}, "whether there is a terminal is asked once"},
	{"github.com/nlpodyssey/safetensors", []string{"internal/tensor"}, "its gaps (rank-0 tensors) are closed there and nowhere else"},
	{"gonum.org/v1/gonum", []string{"internal/linalg"}, "decompositions have one place; adapters and tools ask it"},
	{"gorgonia.org/cu", []string{"internal/kernels/cuda"}, "the only package that needs CUDA's headers, behind the build tag cuda"},
	{"golang.org/x/image", []string{"internal/dataset"}, "pictures are decoded behind one limit on their size"},
	{"golang.org/x/text", []string{"internal/textencoder/tokenizer"}, "CLIP's tokenizer needs Unicode's tables"},
	{"golang.org/x/sync", []string{"internal/algos", "internal/merge"}, "layers start side by side; blocks of a file are worked on side by side"},
	{"golang.org/x/sys", []string{"cmd/lycoris", "internal/runs", "internal/tensor"}, "signals, locks and free space of a disk"},
	{"github.com/rogpeppe/go-internal/testscript", []string{"cmd/lycoris"}, "scripts test the command line as users see it"},
}

// edge is one import statement of a file that is part of the program, or of a test if test is set.
type edge struct {
	from, to string // to is without the module's name where it is the project's own
	own      bool
	test     bool
	at       string // file:line
}

// violation returns what is wrong with e, with the reason of the rule, or "".
func violation(e edge) string {
	if rowOf(e.from) < 0 {
		return fmt.Sprintf("%s is in no row of archtest.layers: give it one", e.from)
	}
	if e.own && rowOf(e.to) < 0 {
		return fmt.Sprintf("%s imports %s, which is in no row of archtest.layers", e.from, e.to)
	}
	if !e.own && strings.Contains(strings.Split(e.to, "/")[0], ".") {
		return misplaced(e)
	}
	if e.test { // tests may look at anything of the project
		return ""
	}
	for _, b := range bans {
		if slices.Contains(testOnly, e.from) { // nor do helpers of tests end up in the program
			break
		}
		if covers(b.from, e.from) && covers(b.to, e.to) && !slices.Contains(b.except, e.from) {
			return fmt.Sprintf("%s imports %s: %s", e.from, e.to, b.reason)
		}
	}
	if !e.own {
		return ""
	}
	if slices.Contains(testOnly, e.to) && !slices.Contains(testOnly, e.from) && !strings.HasPrefix(e.from, "scripts/") {
		return fmt.Sprintf("%s imports %s, which is for tests", e.from, e.to)
	}
	if rowOf(e.from) >= rowOf(e.to) {
		return fmt.Sprintf("%s imports %s: imports point down the rows of archtest.layers, never up or along one", e.from, e.to)
	}
	return ""
}

// misplaced returns what is wrong with the import of a module from outside.
func misplaced(e edge) string {
	for _, h := range homes {
		if e.to != h.prefix && !strings.HasPrefix(e.to, h.prefix+"/") {
			continue
		}
		if slices.Contains(h.packages, e.from) {
			return ""
		}
		return fmt.Sprintf("%s imports %s, whose home is %s: %s", e.from, e.to, strings.Join(h.packages, ", "), h.reason)
	}
	return fmt.Sprintf("%s imports %s, which has no line in archtest.homes: say where its home is and why", e.from, e.to)
}

// covers reports whether the package pkg is rule or, where rule ends in "/", below it.
func covers(rule, pkg string) bool {
	return pkg == rule || strings.HasSuffix(rule, "/") && strings.HasPrefix(pkg, rule)
}

// rowOf returns the row of a package, top row 0; -1 if it is in none.
func rowOf(pkg string) int {
	return slices.IndexFunc(layers, func(row []string) bool { return slices.Contains(row, pkg) })
}
