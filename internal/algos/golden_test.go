package algos_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"lycoris/internal/algos"
	"lycoris/internal/algos/algostest"
	"lycoris/internal/kernels/ref"
	"lycoris/internal/rng"
	"lycoris/internal/tensor"
	"lycoris/internal/testutil"
)

// goldenBound is on the largest error, relative to the largest value of what is compared.
const goldenBound = 1e-5

// table prints the worst error of each algorithm, layer and variant: go test ./internal/algos -run Golden -table -v
var table = flag.Bool("table", false, "print the errors against the goldens")

// goldenLayer and goldenCase are what scripts/goldens/lycoris_algos.py writes into algos.json.
type goldenLayer struct {
	Kind                    string
	Stride, Padding, Groups int
}

type goldenCase struct {
	Case, Algo, Layer, Variant string
	Options                    goldenOptions
	Mu                         []float64
	Keys                       []string
}

type goldenOptions struct {
	Dim           int     `json:"lora_dim"`
	Alpha         float64 `json:"alpha"`
	Tucker        bool    `json:"use_tucker"`
	Scalar        bool    `json:"use_scalar"`
	RS            bool    `json:"rs_lora"`
	DoRA          bool    `json:"weight_decompose"`
	DoRAOut       bool    `json:"wd_on_out"`
	Factor        int     `json:"factor"`
	DecomposeBoth bool    `json:"decompose_both"`
	FullMatrix    bool    `json:"full_matrix"`
	Unbalanced    bool    `json:"unbalanced_factorization"`
	BlockSize     int     `json:"block_size"`
	Block         int     `json:"block"`
	Constraint    float64 `json:"constraint"`
	Rescaled      bool    `json:"rescaled"`
	OnInput       bool    `json:"train_on_input"`
	Timestep      *int    `json:"timestep"`
}

// options returns the settings by which a new adapter has the shapes of the case's file.
func (o goldenOptions) options() algos.Options {
	out := algos.Options{Rank: o.Dim, Alpha: o.Alpha, Tucker: o.Tucker, UseScalar: o.Scalar, RSLoRA: o.RS, Factor: o.Factor, DecomposeBoth: o.DecomposeBoth,
		FullMatrix: o.FullMatrix, Unbalanced: o.Unbalanced, BlockSize: o.BlockSize, Constraint: o.Constraint, Rescaled: o.Rescaled, OnInput: o.OnInput}
	if o.DoRA {
		out.DoRA = "in"
		if o.DoRAOut {
			out.DoRA = "out"
		}
	}
	return out
}

// Every algorithm on every kind of layer with its options gives what lycoris-lora 4.1.3 gives, from the same file and by both forms: the result, the
// gradient of the input and of everything trained. It writes the same file, and a new adapter with the same settings has the same keys, shapes and alpha.
func TestGolden(t *testing.T) {
	all := testutil.Tensors(t, testutil.GoldenPath(t, "algos.safetensors"))
	var index struct {
		Layers map[string]goldenLayer
		Cases  []goldenCase
	}
	b, err := os.ReadFile(testutil.GoldenPath(t, "algos.json"))
	if err == nil {
		err = json.Unmarshal(b, &index)
	}
	if err != nil || len(index.Cases) < 361 {
		t.Fatalf("%d cases, %v", len(index.Cases), err)
	}
	worst := map[string]map[string]float64{} // by algorithm and variant, by layer
	for _, c := range index.Cases {
		t.Run(c.Case, func(t *testing.T) {
			a, err := algos.ByName(c.Algo)
			if err != nil {
				t.Fatal(err)
			}
			g := golden{c, a, goldenProbe(all, c.Layer, index.Layers[c.Layer]), all}
			row := c.Algo + "/" + c.Variant
			if worst[row] == nil {
				worst[row] = map[string]float64{}
			}
			worst[row][c.Layer] = g.check(t)
			g.files(t)
		})
	}
	if *table {
		t.Log(errorTable(worst, slices.Sorted(maps.Keys(index.Layers))))
	}
}

// goldenProbe returns a layer of the goldens, images channels-last.
func goldenProbe(all map[string]tensor.Tensor, name string, l goldenLayer) algostest.Probe {
	w, x, dy := all[name+".W"], all[name+".x"], all[name+".dy"]
	p := algostest.Probe{Target: algos.Target{Path: "unet.x", Name: "lora_unet_x", Shape: w.Shape, Pad: l.Padding}, W: w, Groups: l.Groups, XShape: lastShape(x.Shape), X: lastValues(x), DY: lastValues(dy)}
	if l.Kind == "conv" {
		p.Target.Stride = max(l.Stride, 1)
	}
	if b, ok := all[name+".b"]; ok {
		p.Target.Bias, p.Bias = true, b.Float32()
	}
	return p
}

// lastShape and lastValues reorder [N,C,H,W] to [N,H,W,C].
func lastShape(s []int) []int {
	if len(s) == 4 {
		return []int{s[0], s[2], s[3], s[1]}
	}
	return s
}

func lastValues(v tensor.Tensor) []float32 {
	if len(v.Shape) == 4 {
		return testutil.ChannelsLast(v)
	}
	return v.Float32()
}

type golden struct {
	goldenCase
	a   *algos.Algorithm
	p   algostest.Probe
	all map[string]tensor.Tensor
}

// file returns the module's tensors by key.
func (g golden) file() map[string]tensor.Tensor {
	file := map[string]tensor.Tensor{}
	for _, key := range g.Keys {
		file[key] = g.all[g.Case+".file."+key]
	}
	return file
}

func (g golden) load(t *testing.T, o algos.Options) algos.Adapter {
	t.Helper()
	o.UseScalar, o.BlockSize = g.Options.Scalar, g.Options.BlockSize
	a, err := g.a.Load(g.p.Target, g.file(), o)
	if err != nil {
		t.Fatal(err)
	}
	start(t, a, g.p)
	return a
}

func start(t *testing.T, a algos.Adapter, p algostest.Probe) {
	t.Helper()
	if s, ok := a.(algos.Starter); ok {
		if err := s.Start(p.W.Float32()); err != nil {
			t.Fatal(err)
		}
	}
}

// check compares values and gradients and returns the worst error.
func (g golden) check(t *testing.T) float64 {
	var worst float64
	for _, form := range []algos.Form{algos.FormWeight, algos.FormFactors} {
		for _, mu := range g.Mu {
			a := g.load(t, algos.Options{Strength: mu, Form: form, MinRank: 1})
			got := g.p.Run(t, ref.Open(), g.step(a), a)
			if g.Algo == "dylora" {
				got.Grads = wholeDyLoRA(got.Grads, g.Options.Dim)
			}
			run := fmt.Sprintf("%s@%g", g.Case, mu)
			what := fmt.Sprintf("form %d, multiplier %g: ", form, mu)
			compare := func(name string, got, want []float32) {
				e := testutil.MaxRel(got, want)
				if !(e <= goldenBound) {
					t.Errorf("%s%s: error %.1e of the largest value", what, name, e)
				}
				worst = max(worst, e)
			}
			compare("result", got.Y, lastValues(g.all[run+".y"]))
			compare("input gradient", got.DX, lastValues(g.all[run+".dx"]))
			trained := 0
			for name, want := range g.all {
				key, ok := strings.CutPrefix(name, run+".grad.")
				if !ok {
					continue
				}
				trained++
				if grad, ok := got.Grads[key]; ok {
					compare("gradient of "+key, grad, want.Float32())
				} else {
					t.Errorf("%sno gradient of %s", what, key)
				}
			}
			if trained != len(got.Grads) {
				t.Errorf("%s%d gradients, want %d: %v", what, len(got.Grads), trained, slices.Sorted(maps.Keys(got.Grads)))
			}
		}
	}
	return worst
}

// step returns what gives a's inputs the values of the case's step; nil where it has none.
func (g golden) step(a algos.Adapter) func(*algos.Network, func(string, []float32)) {
	if d, ok := a.(interface {
		Use(k int) (input string, values []float32)
	}); ok {
		return func(_ *algos.Network, put func(string, []float32)) { put(d.Use(g.Options.Block)) }
	}
	if g.Options.Timestep == nil {
		return nil
	}
	return func(_ *algos.Network, put func(string, []float32)) {
		for _, in := range a.Inputs() {
			v := make([]float32, in.Size)
			in.Fill(v, rng.New(1, "test", 0, 0), algos.Step{Timesteps: []int{*g.Options.Timestep}})
			put(in.Name, v)
		}
	}
}

// wholeDyLoRA returns the gradients of DyLoRA's blocks as those of the two factors in the file.
func wholeDyLoRA(blocks map[string][]float32, rank int) map[string][]float32 {
	up := blocks["up_list"] // [R,O]
	out := len(up) / rank
	turned := make([]float32, len(up))
	for i, v := range up {
		turned[i%out*rank+i/out] = v
	}
	return map[string][]float32{"lora_up.weight": turned, "lora_down.weight": blocks["down_list"]}
}

// files compares what is written with the library's file, and the shapes of a new adapter with it.
func (g golden) files(t *testing.T) {
	file := g.file()
	if !g.a.Is(func(key string) []int {
		if f, ok := file[key]; ok {
			return append([]int{}, f.Shape...)
		}
		return nil
	}) {
		t.Error("doesn't know the library's file")
	}
	g.sameFile(t, "saved", g.load(t, algos.Options{}), true)
	fresh, err := g.a.New(g.p.Target, g.Options.options(), rng.New(1, "test", 0, 0))
	if err != nil {
		t.Errorf("new: %v", err)
		return
	}
	start(t, fresh, g.p)
	g.sameFile(t, "new", fresh, false)
}

func (g golden) sameFile(t *testing.T, what string, a algos.Adapter, values bool) {
	t.Helper()
	var keys []string
	for _, f := range a.Tensors() {
		if g.Algo == "tlora" && strings.HasPrefix(f.Name, "base_") && !slices.Contains(g.Keys, f.Name) {
			continue // our files say where T-LoRA started
		}
		if !slices.Contains(g.Keys, f.Name) {
			t.Errorf("%s: %s is not in the library's file", what, f.Name)
			continue
		}
		keys = append(keys, f.Name)
		want := g.all[g.Case+".file."+f.Name]
		if g.Algo == "dylora" && f.Name == "lora_up.weight" && len(f.Shape) == 4 { // the library's is [O,R] here too, which no reader takes
			want.Shape = append(slices.Clone(want.Shape), 1, 1)
		}
		if !slices.Equal(f.Shape, want.Shape) {
			t.Errorf("%s: %s has shape %v, want %v", what, f.Name, f.Shape, want.Shape)
		} else if values || f.Name == "alpha" || f.Name == "on_input" {
			if e := testutil.MaxRel(f.Float32(), want.Float32()); !(e <= 1e-6) {
				t.Errorf("%s: %s: error %.1e", what, f.Name, e)
			}
		}
	}
	if !slices.Equal(keys, g.Keys) {
		t.Errorf("%s: keys %v, want %v", what, keys, g.Keys)
	}
}

// errorTable lays out the worst errors, a row for each variant and a column for each layer.
func errorTable(worst map[string]map[string]float64, layers []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "largest error of result and gradients, both forms, multipliers 1 and 0.7\n| case |")
	for _, l := range layers {
		fmt.Fprintf(&b, " %s |", l)
	}
	for _, row := range slices.Sorted(maps.Keys(worst)) {
		fmt.Fprintf(&b, "\n| %s |", row)
		for _, l := range layers {
			if e, ok := worst[row][l]; ok {
				fmt.Fprintf(&b, " %.1e |", e)
			} else {
				b.WriteString(" |")
			}
		}
	}
	return b.String()
}
