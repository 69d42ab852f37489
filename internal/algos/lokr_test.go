package algos

import (
	"fmt"
	"maps"
	"math"
	"strings"
	"testing"

	"lycoris/internal/fault"
	"lycoris/internal/graph"
	"lycoris/internal/kernels/ref"
	"lycoris/internal/nn"
	"lycoris/internal/rng"
	"lycoris/internal/tensor"
)

var (
	kronLinear = Target{Path: "unet.x", Name: "lora_unet_x", Shape: []int{1280, 320}}
	kronConv   = Target{Path: "unet.x", Name: "lora_unet_x", Shape: []int{6, 10, 3, 3}, Stride: 1, Pad: 1}
)

// The shapes of the worked examples of algorithms.md §4.1, and what decides between whole and low-rank parts.
func TestLoKrShapes(t *testing.T) {
	square := Target{Name: "x", Shape: []int{320, 320}}
	small := Target{Name: "x", Shape: []int{8, 12}}
	for _, c := range []struct {
		name   string
		target Target
		o      Options
		want   string
	}{
		{"square", square, Options{Rank: 4, Factor: -1}, "lokr_w1[16 16] lokr_w2_a[20 4] lokr_w2_b[4 20]"},
		{"factor not given", square, Options{Rank: 4}, "lokr_w1[16 16] lokr_w2_a[20 4] lokr_w2_b[4 20]"},
		{"factor 8", kronLinear, Options{Rank: 4, Factor: 8}, "lokr_w1[8 8] lokr_w2_a[160 4] lokr_w2_b[4 40]"},
		{"rank 1", small, Options{Rank: 1}, "lokr_w1[2 3] lokr_w2_a[4 1] lokr_w2_b[1 4]"},
		{"factor 2", small, Options{Rank: 1, Factor: 2}, "lokr_w1[2 2] lokr_w2_a[4 1] lokr_w2_b[1 6]"},
		{"unbalanced", small, Options{Rank: 1, Unbalanced: true}, "lokr_w1[4 3] lokr_w2_a[2 1] lokr_w2_b[1 4]"},
		{"convolution", kronConv, Options{Rank: 1}, "lokr_w1[2 2] lokr_w2_a[3 1] lokr_w2_b[1 45]"},
		{"tucker", kronConv, Options{Rank: 1, Tucker: true}, "lokr_w1[2 2] lokr_w2_a[1 3] lokr_w2_b[1 5] lokr_t2[1 1 3 3]"},
		{"rank at half the side", square, Options{Rank: 10}, "lokr_w1[16 16] lokr_w2[20 20]"},
		{"rank below half the side", square, Options{Rank: 9}, "lokr_w1[16 16] lokr_w2_a[20 9] lokr_w2_b[9 20]"},
		{"half of an odd side", Target{Name: "x", Shape: []int{34, 34}}, Options{Rank: 8, Factor: 2}, "lokr_w1[2 2] lokr_w2_a[17 8] lokr_w2_b[8 17]"},
		{"just above it", Target{Name: "x", Shape: []int{34, 34}}, Options{Rank: 9, Factor: 2}, "lokr_w1[2 2] lokr_w2[17 17]"},
		{"both", square, Options{Rank: 4, DecomposeBoth: true}, "lokr_w1_a[16 4] lokr_w1_b[4 16] lokr_w2_a[20 4] lokr_w2_b[4 20]"},
		{"W1 low-rank, W2 whole", Target{Name: "x", Shape: []int{64, 4}}, Options{Rank: 2, Factor: 4, DecomposeBoth: true, Unbalanced: true},
			"lokr_w1_a[16 2] lokr_w1_b[2 1] lokr_w2[4 4]"},
		{"full matrix", kronConv, Options{Rank: 1, FullMatrix: true, DecomposeBoth: true}, "lokr_w1[2 2] lokr_w2[3 5 3 3]"},
		{"dim of 10¹³", square, Options{Rank: 1e13, RSLoRA: true, DecomposeBoth: true}, "lokr_w1[16 16] lokr_w2[20 20]"},
	} {
		a, err := newLoKr(c.target, c.o, rng.New(1, "test", 0, 0))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range a.Tensors() {
			if f.Name != keyAlpha {
				got = append(got, f.Name+fmt.Sprint(f.Shape))
			}
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s: %s, want %s", c.name, s, c.want)
		}
	}
}

// Where both parts are whole the scale is 1 whatever alpha and rs_lora say, and the file's alpha is the dim; otherwise they mean what they mean to LoRA.
func TestLoKrScale(t *testing.T) {
	for _, c := range []struct {
		o           Options
		scale, file float64
	}{
		{Options{Rank: 4, Alpha: 2}, 0.5, 2},
		{Options{Rank: 4}, 1, 4},
		{Options{Rank: 4, Alpha: 2, RSLoRA: true}, 1, 4},
		{Options{Rank: 4, Alpha: 2, FullMatrix: true}, 1, 4},
		{Options{Rank: 100000, Alpha: 1, RSLoRA: true}, 1, 100000},
		{Options{Rank: 1e13, Alpha: 1}, 1, 1e13},
		{Options{Rank: 2, Alpha: 1, FullMatrix: true, UseScalar: true}, 1, 2},
	} {
		a, err := newLoKr(kronLinear, c.o, rng.New(1, "test", 0, 0))
		if err != nil {
			t.Fatal(err)
		}
		l := a.(*lokr)
		if l.scale != c.scale || l.fileAlpha != c.file {
			t.Errorf("%+v: scale %v and alpha %v, want %v and %v", c.o, l.scale, l.fileAlpha, c.scale, c.file)
		}
		again, err := loadLoKr(kronLinear, named(a.Tensors()), Options{RSLoRA: true})
		if err != nil {
			t.Fatal(err)
		}
		if s := again.(*lokr).scale; math.Abs(s-c.scale) > 1e-7 {
			t.Errorf("%+v: scale %v once loaded", c.o, s)
		}
	}
}

func named(all []tensor.Named) map[string]tensor.Tensor {
	m := map[string]tensor.Tensor{}
	for _, f := range all {
		m[f.Name] = f.Tensor
	}
	return m
}

// Files of every form load from their tensors alone; what doesn't fit is refused with a sentence that names module and key.
func TestKronLoad(t *testing.T) {
	type file = map[string][]int // shapes by key
	linear := Target{Path: "unet.x", Name: "lora_unet_x", Shape: []int{64, 12}}
	conv := Target{Path: "unet.x", Name: "lora_unet_x", Shape: []int{8, 6, 3, 3}, Stride: 1, Pad: 1}
	whole := file{"lokr_w1": {4, 3}, "lokr_w2": {16, 4}, keyAlpha: {}}
	low := file{"lokr_w1": {4, 3}, "lokr_w2_a": {16, 2}, "lokr_w2_b": {2, 4}, keyAlpha: {}}
	mixed := file{"lokr_w1_a": {16, 2}, "lokr_w1_b": {2, 3}, "lokr_w2": {4, 4}, keyAlpha: {}}
	tucker := file{"lokr_w1": {2, 2}, "lokr_w2_a": {2, 4}, "lokr_w2_b": {2, 3}, "lokr_t2": {2, 2, 3, 3}, keyAlpha: {1}}
	glokr := file{"glokr_a_w1": {3, 3}, "glokr_a_w2_a": {4, 2}, "glokr_a_w2_b": {2, 4}, "glokr_b_w1": {8, 3}, "glokr_b_w2": {8, 4}}
	for _, c := range []struct {
		name   string
		algo   *Algorithm
		target Target
		whole  file
		change file   // nil: left out
		want   string // part of the message; "" = loads
	}{
		{"whole", &LoKr, linear, whole, nil, ""},
		{"unbalanced", &LoKr, linear, file{"lokr_w1": {16, 3}, "lokr_w2": {4, 4}}, nil, ""},
		{"no alpha", &LoKr, linear, low, file{keyAlpha: nil}, ""},
		{"low rank", &LoKr, linear, low, nil, ""},
		{"mixed", &LoKr, linear, mixed, nil, ""},
		{"tucker", &LoKr, conv, tucker, nil, ""},
		{"a core never written", &LoKr, linear, low, file{"lokr_t1": {1, 1, 1, 1}}, ""},
		{"1×1 kernel", &LoKr, Target{Name: "lora_unet_x", Shape: []int{64, 12, 1, 1}}, whole, file{"lokr_w2": {16, 4, 1, 1}}, ""},
		{"magnitudes", &LoKr, linear, low, file{keyDoRA: {64, 1}}, ""},
		{"halves", &GLoKr, linear, glokr, nil, ""},

		{"no w1", &LoKr, linear, low, file{"lokr_w1": nil}, "lokr_w1"},
		{"no w1_b", &LoKr, linear, mixed, file{"lokr_w1_b": nil}, "lokr_w1_b"},
		{"no w1_a", &LoKr, linear, mixed, file{"lokr_w1_a": nil}, "lokr_w1_a"},
		{"no w2", &LoKr, linear, whole, file{"lokr_w2": nil}, "lokr_w2"},
		{"no w2_a", &LoKr, linear, low, file{"lokr_w2_a": nil}, "lokr_w2_a"},
		{"no w2_b", &LoKr, linear, low, file{"lokr_w2_b": nil}, "lokr_w2_b"},
		{"tucker without w2_a", &LoKr, conv, tucker, file{"lokr_w2_a": nil}, "lokr_w2_a"},
		{"w1 that doesn't divide", &LoKr, linear, whole, file{"lokr_w1": {5, 3}}, "lokr_w1"},
		{"w1 of no rows", &LoKr, linear, whole, file{"lokr_w1": {0, 3}}, "lokr_w1"},
		{"w1 a number", &LoKr, linear, whole, file{"lokr_w1": {}}, "lokr_w1"},
		{"w2 of another shape", &LoKr, linear, whole, file{"lokr_w2": {4, 16}}, "lokr_w2"},
		{"w2 without the window", &LoKr, conv, file{"lokr_w1": {2, 2}, "lokr_w2": {4, 3}}, nil, "lokr_w2"},
		{"ranks that differ", &LoKr, linear, mixed, file{"lokr_w2": nil, "lokr_w2_a": {4, 3}, "lokr_w2_b": {3, 4}}, "lokr_w2_b"},
		{"halves of w2 that differ", &LoKr, linear, low, file{"lokr_w2_a": {16, 3}}, "lokr_w2_a"},
		{"rank 0", &LoKr, linear, low, file{"lokr_w2_a": {16, 0}, "lokr_w2_b": {0, 4}}, "lokr_w2_b"},
		{"core on a Linear", &LoKr, linear, low, file{"lokr_t2": {2, 2, 1, 1}}, "lokr_t2"},
		{"core of another rank", &LoKr, conv, tucker, file{"lokr_t2": {3, 2, 3, 3}}, "lokr_w2_a"},
		{"core of another window", &LoKr, conv, tucker, file{"lokr_t2": {2, 2, 5, 5}}, "lokr_t2"},
		{"two alphas", &LoKr, linear, low, file{keyAlpha: {2}}, keyAlpha},
		{"magnitudes of another axis", &LoKr, linear, low, file{keyDoRA: {63, 1}}, keyDoRA},
		{"A1 not square", &GLoKr, linear, glokr, file{"glokr_a_w1": {4, 3}}, "glokr_a_w1"},
		{"no A2", &GLoKr, linear, glokr, file{"glokr_a_w2_a": nil, "glokr_a_w2_b": nil}, "glokr_a_w2"},
		{"no B1", &GLoKr, linear, glokr, file{"glokr_b_w1": nil}, "glokr_b_w1"},
		{"halves of different ranks", &GLoKr, linear, glokr, file{"glokr_b_w2": nil, "glokr_b_w2_a": {8, 3}, "glokr_b_w2_b": {3, 4}}, "ranks"},
	} {
		t.Run(c.algo.Name+"/"+c.name, func(t *testing.T) {
			shapes := maps.Clone(c.whole)
			maps.Copy(shapes, c.change)
			tensors := map[string]tensor.Tensor{}
			for key, shape := range shapes {
				if shape != nil {
					tensors[key] = tensor.FromFloat32(tensor.F32, shape, make([]float32, tensor.Elems(shape)))
				}
			}
			_, err := c.algo.Load(c.target, tensors, Options{})
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || fault.KindOf(err) != fault.Input || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), `"lora_unet_x"`)):
				t.Errorf("%v, want a fault about %q", err, c.want)
			}
		})
	}
}

// A bounded norm takes the same root from every stored factor, and does not look at the scalar (algorithms.md §1.10).
func TestLoKrBoundNorm(t *testing.T) {
	for _, c := range []struct {
		o       Options
		factors int
	}{
		{Options{Rank: 1, FullMatrix: true}, 2},
		{Options{Rank: 1}, 3},
		{Options{Rank: 1, DecomposeBoth: true}, 3}, // W1 is too small to be taken apart
		{Options{Rank: 1, Tucker: true}, 4},
		{Options{Rank: 1, UseScalar: true, Tucker: true}, 4},
	} {
		o := c.o
		o.MaxNorm = true
		a, err := newLoKr(kronConv, o, rng.New(1, "test", 0, 0))
		if err != nil {
			t.Fatal(err)
		}
		l := a.(*lokr)
		was := map[*Factor][]float32{}
		for _, f := range l.Factors() {
			for i := range f.Host {
				f.Host[i] = float32(i%5) - 1.5
			}
			was[f] = append([]float32{}, f.Host...)
		}
		if l.sigma != nil {
			l.sigma.Host[0], was[l.sigma][0] = 0.01, 0.01
		}
		dw, err := Change(ref.Open(), a, tensor.FromFloat32(tensor.F32, kronConv.Shape, make([]float32, 540)))
		if err != nil {
			t.Fatal(err)
		}
		var sum float64
		for _, v := range dw {
			sum += float64(v) * float64(v)
		}
		norm := math.Sqrt(sum) / float64(hostScalar(l.sigma))
		limit := norm / 8
		before, after := l.BoundNorm(limit)
		if math.Abs(before-norm) > 1e-5*norm || math.Abs(after-limit) > 1e-5*limit {
			t.Errorf("%+v: norm %v to %v, want %v to %v", c.o, before, after, norm, limit)
		}
		root := math.Pow(1.0/8, 1/float64(c.factors))
		for f, v := range was {
			want := root
			if f == l.sigma {
				want = 1
			}
			for i := range v {
				if d := float64(f.Host[i]) - want*float64(v[i]); math.Abs(d) > 1e-6 {
					t.Fatalf("%+v: %s: %v to %v, want it times %v", c.o, f.Param.Name, v[i], f.Host[i], want)
				}
			}
		}
	}
}

// W1 comes where it costs least: in the middle of a low-rank W2, before a W2 that widens what W1 narrows, after one that narrows.
func TestKronPlace(t *testing.T) {
	whole, low := &Factor{}, &Factor{}
	for _, c := range []struct {
		name string
		k    kron
		at   int
	}{
		{"low rank", kron{l: 16, m: 16, k: 20, n: 20, rank: 4, w1: whole, w2a: low, w2b: low}, 1},
		{"fewer groups out", kron{l: 2, m: 16, k: 20, n: 20, w1: whole, w2: whole}, 0},
		{"fewer groups in", kron{l: 16, m: 2, k: 20, n: 20, w1: whole, w2: whole}, 1},
		{"wider groups in", kron{l: 16, m: 16, k: 20, n: 80, w1: whole, w2: whole}, 1},
		{"wider groups out", kron{l: 16, m: 16, k: 80, n: 20, w1: whole, w2: whole}, 0},
	} {
		if at, work := c.k.place(c.k.stages(false), 4096, 4096); at != c.at || !(work > 0) {
			t.Errorf("%s: before stage %d for %v, want %d", c.name, at, work, c.at)
		}
	}
}

// The form by the factors makes neither ΔW nor anything of the layer's size, forward and backward.
func TestKronMakesNoWeight(t *testing.T) {
	for _, a := range []*Algorithm{&LoKr, &GLoKr} {
		for _, shape := range [][]int{{1280, 320}, {320, 320, 3, 3}} {
			for _, o := range []Options{{Rank: 4, Form: FormFactors}, {Rank: 4, Form: FormFactors, FullMatrix: true}} {
				target := Target{Path: "unet.x", Name: "lora_unet_x", Shape: shape}
				adapter, err := a.New(target, o, rng.New(1, "test", 0, 0))
				if err != nil {
					t.Fatal(err)
				}
				g := &graph.Graph{}
				leaves := nn.NewLeaves(g)
				layer := &nn.Layer{Path: target.Path, W: &graph.Weight{Name: "W", Shape: shape}}
				input := []int{3, 320}
				if len(shape) == 4 {
					layer.IsConv, layer.Conv = true, graph.ConvOptions{Stride: 1, Pad: graph.SamePad(1)}
					input = []int{1, 2, 2, 320}
				}
				x := leaves.Input("x", input...)
				y := adapter.Forward(nn.NewBuilder(leaves, nil, "unet", nil), layer, x, nn.Extra{})
				wrt := []*graph.Node{x}
				for _, f := range adapter.Factors() {
					wrt = append(wrt, leaves.Param(f.Param))
				}
				outputs := append([]*graph.Node{y}, g.Grad([]*graph.Node{y}, []*graph.Node{leaves.Input("dy", y.Shape()...)}, wrt)...)
				if got, weight := graph.NewPlan(g, outputs, graph.PlanOptions{}).Floats(), tensor.Elems(shape); got > weight/3 {
					t.Errorf("%s %v %+v: %d floats of memory, the weight has %d", a.Name, shape, o, got, weight)
				}
			}
		}
	}
}
