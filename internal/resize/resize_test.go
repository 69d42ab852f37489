package resize

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lycoris/internal/adapter"
	"lycoris/internal/algos"
	"lycoris/internal/algos/algostest"
	"lycoris/internal/fault"
	"lycoris/internal/kernels/ref"
	"lycoris/internal/linalg"
	"lycoris/internal/network"
	"lycoris/internal/rng"
	"lycoris/internal/tensor"
	"lycoris/internal/testutil"
)

// targets are a Linear, a 1×1 and two 3×3 layers, named as in SD1, which is where the window of flat factors is known from.
var targets = []algos.Target{
	{Name: "lora_unet_conv_in", Path: "unet.conv_in", Shape: []int{18, 6, 3, 3}, Pad: 1, Stride: 1},
	{Name: "lora_unet_down_blocks_0_attentions_0_proj_in", Path: "unet.down_blocks.0.attentions.0.proj_in", Shape: []int{20, 16, 1, 1}, Stride: 1},
	{Name: "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q", Path: "unet.q", Shape: []int{24, 20}},
	{Name: "lora_unet_down_blocks_0_resnets_0_conv1", Path: "unet.conv1", Shape: []int{12, 16, 3, 3}, Pad: 1, Stride: 1},
}

// adapterFile writes an adapter of all targets with random factors and returns its path.
func adapterFile(t *testing.T, a *algos.Algorithm, o algos.Options, meta map[string]string, d tensor.DType) string {
	t.Helper()
	var all []algos.Adapter
	for i, target := range targets {
		one, err := a.New(target, o, rng.New(1, "test", 0, uint64(i)))
		if err != nil {
			t.Fatal(err)
		}
		for k, f := range one.Factors() {
			s := rng.New(1, "values", uint64(k), uint64(i))
			for x := range f.Host {
				f.Host[x] = s.NormFloat32()
			}
		}
		all = append(all, one)
	}
	return saved(t, algos.NewNetwork(all).Tensors(), meta, d)
}

func saved(t *testing.T, tensors []tensor.Named, meta map[string]string, d tensor.DType) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "in.safetensors")
	if err := adapter.Save(path, tensors, meta, d); err != nil {
		t.Fatal(err)
	}
	return path
}

// frozen is the weight of every target.
func frozen(target algos.Target) tensor.Tensor {
	v := make([]float32, tensor.Elems(target.Shape))
	rng.New(2, "weight", 0, 0).FillNormal(v)
	return tensor.FromFloat32(tensor.F32, target.Shape, v)
}

// changes reads the weight change of every module of a file as training has it.
func changes(t *testing.T, path string) map[string][]float64 {
	t.Helper()
	f, err := adapter.OpenAny(path, network.KeySets())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all := map[string][]float64{}
	for _, m := range f.Modules {
		i := slices.IndexFunc(targets, func(x algos.Target) bool { return x.Name == m.Name })
		tensors, err := m.Tensors()
		if err != nil {
			t.Fatal(err)
		}
		algo, err := algos.ByName(m.Algorithm)
		if err != nil {
			t.Fatal(err)
		}
		a, err := algo.Load(targets[i], tensors, algos.Options{})
		if err != nil {
			t.Fatal(err)
		}
		change, err := algos.Change(ref.Open(), a, frozen(targets[i]))
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range change {
			all[m.Name] = append(all[m.Name], float64(x))
		}
	}
	return all
}

func distance(x, y []float64) float64 {
	var sum float64
	for i, v := range x {
		sum += (v - y[i]) * (v - y[i])
	}
	return math.Sqrt(sum)
}

// resized runs and returns where the result is.
func resized(t *testing.T, o Options) (string, *Report) {
	t.Helper()
	if o.Out == "" {
		o.Out = filepath.Join(t.TempDir(), "out.safetensors")
	}
	if o.Level == "" {
		o.Level = adapter.Full
	}
	r, err := Run(context.Background(), o, nil)
	if err != nil {
		t.Fatal(err)
	}
	return o.Out, r
}

// forms are what has ranks.
var forms = map[string]struct {
	algo    *algos.Algorithm
	options algos.Options
}{
	"lora":              {&algos.LoRA, algos.Options{Rank: 6, Alpha: 3}},
	"tucker":            {&algos.LoRA, algos.Options{Rank: 6, Alpha: 3, Tucker: true}},
	"loha":              {&algos.LoHa, algos.Options{Rank: 3, Alpha: 2}},
	"loha of full rank": {&algos.LoHa, algos.Options{Rank: 5, Alpha: 2}},
	"loha tucker":       {&algos.LoHa, algos.Options{Rank: 3, Alpha: 2, Tucker: true}},
	"lokr":              {&algos.LoKr, algos.Options{Rank: 2, Alpha: 1, Factor: 2}},
	"lokr tucker":       {&algos.LoKr, algos.Options{Rank: 2, Alpha: 1, Factor: 2, Tucker: true}},
	"lokr whole":        {&algos.LoKr, algos.Options{Rank: 2, Alpha: 1, Factor: 2, FullMatrix: true}},
	"lokr both":         {&algos.LoKr, algos.Options{Rank: 2, Alpha: 1, Factor: 6, DecomposeBoth: true}},
}

// With all ranks the change stays what it is.
func TestAllRanks(t *testing.T) {
	for name, c := range forms {
		t.Run(name, func(t *testing.T) {
			in := adapterFile(t, c.algo, c.options, nil, tensor.F32)
			want := changes(t, in)
			for _, o := range []Options{{Rule: MaxError}, {Rule: Frobenius, Value: 1}, {Rule: Ratio, Value: 1e30}, {Dim: 64, AllowRaise: true}, {Rule: MaxError, KeepScale: true}} {
				o.In = in
				out, r := resized(t, o)
				got := changes(t, out)
				if len(got) != len(want) {
					t.Fatalf("%d modules, want %d", len(got), len(want))
				}
				for module, w := range want {
					if d := distance(got[module], w) / norm(w); d > 1e-6 {
						t.Errorf("%+v: %s is off by %g", o, module, d)
					}
				}
				if r.Total.Relative() > 1e-7 {
					t.Errorf("%+v: it says that it is off by %g", o, r.Total.Relative())
				}
			}
		})
	}
}

// matrixOf returns the change of a module as a matrix of rows of outputs and the values that a decomposition of it has.
func spectrumOf(target algos.Target, change []float64) []float64 {
	_, s, _ := linalg.SVD(change, target.Shape[0], tensor.Elems(target.Shape[1:]))
	return s
}

// With fewer ranks the error is what is said, and the least that there is: the tail of the values of a full decomposition (Eckart and Young), for LoKr of its large factor,
// of whose values every one stands in the change as often as the small factor has rows and columns, times its values.
func TestFewerRanks(t *testing.T) {
	for name, c := range forms {
		for _, k := range []int{1, 2, 4} {
			t.Run(fmt.Sprint(name, " ", k), func(t *testing.T) {
				in := adapterFile(t, c.algo, c.options, nil, tensor.F32)
				want := changes(t, in)
				out, r := resized(t, Options{In: in, Dim: k, AllowRaise: true})
				got := changes(t, out)
				for i, target := range targets {
					m, w := r.Modules[i], want[target.Name]
					if m.Name != target.Name {
						t.Fatalf("module %d is %q", i, m.Name)
					}
					d := distance(got[target.Name], w)
					if math.Abs(d-m.Error) > 1e-6*norm(w) || math.Abs(norm(w)-m.Norm) > 1e-6*norm(w) {
						t.Errorf("%s: error %g of %g, it says %g of %g", target.Name, d, norm(w), m.Error, m.Norm)
					}
					if c.algo == &algos.LoKr {
						continue
					}
					s := spectrumOf(target, w)
					best := norm(s[min(k, len(s)):])
					if math.Abs(d-best) > 1e-6*max(best, norm(w)*0.1) {
						t.Errorf("%s: error %g, the least is %g", target.Name, d, best)
					}
				}
			})
		}
	}
}

// The cut of LoKr's large factor is the best for its small one.
func TestLoKrIsBest(t *testing.T) {
	in := adapterFile(t, &algos.LoKr, algos.Options{Rank: 2, Alpha: 1, Factor: 2, FullMatrix: true}, nil, tensor.F32)
	out, r := resized(t, Options{In: in, Dim: 3})
	before, after := testutil.Tensors(t, in), testutil.Tensors(t, out)
	for _, m := range r.Modules {
		w1, w2 := before[m.Name+".lokr_w1"], before[m.Name+".lokr_w2"]
		if !bytes.Equal(w1.Data, after[m.Name+".lokr_w1"].Data) {
			t.Errorf("%s: the small factor changed", m.Name)
		}
		_, s, _ := linalg.SVD(values(w2), w2.Shape[0], tensor.Elems(w2.Shape[1:]))
		best := norm(values(w1)) * norm(s[3:])
		if m.Rank != 3 || m.Did != Resized || math.Abs(m.Error-best) > 1e-6*best {
			t.Errorf("%s: %s to %d, error %g, want %g", m.Name, m.Did, m.Rank, m.Error, best)
		}
		if a := after[m.Name+".alpha"]; values(a)[0] != 3 {
			t.Errorf("%s: alpha %v, want 3: two factors have one, the whole had none", m.Name, values(a))
		}
	}
}

// alpha is the rank, or such that alpha/rank is what it was; both factors are equally long; an alpha of 0 stays; a negative one is in the factors.
func TestAlpha(t *testing.T) {
	target := targets[2]
	module := func(alpha ...float32) string {
		a, err := algos.LoRA.New(target, algos.Options{Rank: 4}, rng.New(1, "test", 0, 0))
		if err != nil {
			t.Fatal(err)
		}
		rng.New(1, "up", 0, 0).FillNormal(a.Factors()[0].Host)
		var all []tensor.Named
		for _, f := range algos.NewNetwork([]algos.Adapter{a}).Tensors() {
			if !strings.HasSuffix(f.Name, ".alpha") {
				all = append(all, f)
			} else if len(alpha) > 0 {
				f.Tensor = tensor.FromFloat32(tensor.F32, nil, alpha)
				all = append(all, f)
			}
		}
		return saved(t, all, nil, tensor.F32)
	}
	for _, c := range []struct {
		alpha []float32
		keep  bool
		want  float64
	}{{[]float32{1}, false, 2}, {[]float32{1}, true, 0.5}, {nil, false, 2}, {nil, true, 2}, {[]float32{-3}, false, 2}, {[]float32{-3}, true, -1.5}, {[]float32{0}, false, 0}, {[]float32{0}, true, 0}} {
		in := module(c.alpha...)
		out, r := resized(t, Options{In: in, Dim: 2, KeepScale: c.keep})
		after := testutil.Tensors(t, out)
		if a := values(after[target.Name+".alpha"])[0]; a != c.want {
			t.Errorf("alpha %v, keep %t: %v, want %v", c.alpha, c.keep, a, c.want)
		}
		up, down := norm(values(after[target.Name+".lora_up.weight"])), norm(values(after[target.Name+".lora_down.weight"]))
		if math.Abs(up-down) > 1e-6*up {
			t.Errorf("alpha %v: factors of norms %g and %g", c.alpha, up, down)
		}
		before, now := changes(t, in)[target.Name], changes(t, out)[target.Name] // algos takes an alpha of 0 for the rank
		s := spectrumOf(target, before)
		if d, best := distance(before, now), norm(s[2:]); math.Abs(d-best) > 1e-6*best {
			t.Errorf("alpha %v, keep %t: error %g, want %g", c.alpha, c.keep, d, best)
		}
		if odd := len(c.alpha) > 0 && c.alpha[0] <= 0; odd != (len(r.Warnings) == 1) {
			t.Errorf("alpha %v: warnings %q", c.alpha, r.Warnings)
		}
	}
}

// Caps: windows have their own, 1×1 kernels none; a rule is bounded by them; what has fewer ranks stays as it is.
func TestCaps(t *testing.T) {
	in := adapterFile(t, &algos.LoRA, algos.Options{Rank: 6}, nil, tensor.F32)
	for _, c := range []struct {
		o    Options
		want []int // by target
	}{
		{Options{Dim: 3}, []int{3, 3, 3, 3}}, {Options{Dim: 3, ConvDim: 2}, []int{2, 3, 3, 2}}, {Options{Dim: 6, ConvDim: 2}, []int{2, 6, 6, 2}},
		{Options{Rule: Ratio, Value: 1e9, Dim: 4}, []int{4, 4, 4, 4}}, {Options{Rule: Ratio, Value: 1e9, ConvDim: 4}, []int{4, 6, 6, 4}}, {Options{Rule: Ratio, Value: 1}, []int{1, 1, 1, 1}},
		{Options{Dim: 8, AllowRaise: true}, []int{8, 8, 8, 8}},
	} {
		c.o.In = in
		out, r := resized(t, c.o)
		after := testutil.Tensors(t, out)
		for i, want := range c.want {
			down, up := after[targets[i].Name+".lora_down.weight"].Shape, after[targets[i].Name+".lora_up.weight"].Shape
			if r.Modules[i].Rank != want || down[0] != want || up[1] != want || len(up) != len(down) || !slices.Equal(down[1:], targets[i].Shape[1:]) {
				t.Errorf("%+v: %s has rank %d, factors %v and %v, want %d", c.o, targets[i].Name, r.Modules[i].Rank, down, up, want)
			}
			if kept := r.Modules[i].Did == Kept; kept != (want == 6) {
				t.Errorf("%+v: %s is %s", c.o, targets[i].Name, r.Modules[i].Did)
			}
		}
	}
	two := slices.Clone(targets) // more ranks than outputs
	defer func() { targets = two }()
	targets = []algos.Target{{Name: "lora_unet_conv_out", Path: "unet.conv_out", Shape: []int{4, 8, 3, 3}, Pad: 1, Stride: 1}}
	in = adapterFile(t, &algos.LoRA, algos.Options{Rank: 6}, nil, tensor.F32)
	out, r := resized(t, Options{In: in, Dim: 6})
	if d := distance(changes(t, out)["lora_unet_conv_out"], changes(t, in)["lora_unet_conv_out"]); r.Modules[0].Rank != 4 || d > 1e-5 {
		t.Errorf("four outputs: rank %d, off by %g", r.Modules[0].Rank, d)
	}
}

// A DyLoRA cut behind any block acts as it did when that block was trained, by the rule that the file names and by the rules of other programs.
func TestDyLoRACut(t *testing.T) {
	type nested interface {
		algos.Adapter
		Blocks() int
		Use(k int) (string, []float32)
	}
	const rank, size = 6, 2
	for name, p := range algostest.Layers(3) {
		if len(p.Target.Shape) == 1 {
			continue // a norm
		}
		p.Target.Name = "lora_unet_probe"
		for _, rule := range algos.BlockScales {
			one, err := algos.DyLoRA.New(p.Target, algos.Options{Rank: rank, Alpha: 3, BlockSize: size, BlockScale: rule}, rng.New(1, "test", 0, 0))
			if err != nil {
				t.Fatal(err)
			}
			for i, f := range one.Factors() {
				rng.New(1, "values", 0, uint64(i)).FillNormal(f.Host)
			}
			a := one.(nested)
			meta := map[string]map[string]string{
				"active":  {"ss_network_module": "lycoris.kohya", "ss_network_args": `{"algo":"dylora","block_size":"2"}`, "lycoris.dylora_scale": "active"},
				"kohya":   {"ss_network_module": "networks.dylora", "ss_network_args": `{"unit":2}`},
				"lycoris": {"ss_network_module": "lycoris.kohya", "ss_network_args": `{"algo":"dylora","block_size":"2"}`},
			}[rule]
			in := saved(t, algos.NewNetwork([]algos.Adapter{a}).Tensors(), meta, tensor.F32)
			bare := saved(t, algos.NewNetwork([]algos.Adapter{a}).Tensors(), nil, tensor.F32)
			for k := range a.Blocks() {
				out, r := resized(t, Options{In: in, Block: (k + 1) * size})
				m := r.Modules[0]
				if r.Rule != rule || m.Rank != (k+1)*size || m.Did != Cut || m.Best > m.Error*(1+1e-9) {
					t.Errorf("%s %s: rule %q, %+v", name, rule, r.Rule, m)
				}
				if got := r.Metadata; got["ss_network_dim"] != fmt.Sprint((k+1)*size) && m.Conv == false || got["lycoris.dylora_scale"] != "" || !strings.Contains(got["ss_training_comment"], "scale: "+rule) ||
					strings.Contains(got["ss_network_args"], "dylora") || strings.Contains(got["ss_network_args"], "unit") {
					t.Errorf("%s %s: metadata %q", name, rule, got)
				}
				cut := load(t, p.Target, out)
				use := func(_ *algos.Network, put func(string, []float32)) { put(a.Use(k)) }
				want := p.Run(t, ref.Open(), use, a).Y
				testutil.NearRel(t, fmt.Sprintf("%s %s cut behind block %d", name, rule, k), p.Run(t, ref.Open(), nil, cut).Y, want, 1e-6)
				said, _ := resized(t, Options{In: in, Dim: (k + 1) * size}) // the same
				testutil.NearRel(t, "by --dim", p.Run(t, ref.Open(), nil, load(t, p.Target, said)).Y, want, 1e-6)
				if rule != scaleLycoris { // whose block isn't known then
					told, _ := resized(t, Options{In: bare, Block: (k + 1) * size, DyLoRAScale: rule})
					testutil.NearRel(t, "by --dylora-scale", p.Run(t, ref.Open(), nil, load(t, p.Target, told)).Y, want, 1e-6)
				}
			}
		}
	}
}

// load reads the only module of a file.
func load(t *testing.T, target algos.Target, path string) algos.Adapter {
	t.Helper()
	f, err := adapter.OpenAny(path, network.KeySets())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tensors, err := f.Modules[0].Tensors()
	if err != nil {
		t.Fatal(err)
	}
	a, err := algos.LoRA.Load(target, tensors, algos.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// A decomposition never loses more than the cut at the same rank.
func TestDyLoRABySVD(t *testing.T) {
	meta := map[string]string{"ss_network_module": "networks.dylora"}
	in := adapterFile(t, &algos.DyLoRA, algos.Options{Rank: 6}, meta, tensor.F32)
	_, cut := resized(t, Options{In: in, Dim: 2})
	_, svd := resized(t, Options{In: in, Dim: 2, SVD: true})
	for i, m := range svd.Modules {
		if m.Did != Resized || cut.Modules[i].Did != Cut || m.Error >= cut.Modules[i].Error || math.Abs(m.Error-cut.Modules[i].Best) > 1e-9*m.Norm {
			t.Errorf("%s: decomposed %g, cut %g, best %g", m.Name, m.Error, cut.Modules[i].Error, cut.Modules[i].Best)
		}
	}
}

// Magnitudes stay bit by bit, and what is resized is the change below them.
func TestDoRA(t *testing.T) {
	for _, c := range []struct {
		algo *algos.Algorithm
		o    algos.Options
	}{{&algos.LoRA, algos.Options{Rank: 6, DoRA: "out"}}, {&algos.LoHa, algos.Options{Rank: 2, DoRA: "in"}}, {&algos.LoKr, algos.Options{Rank: 2, Factor: 2, DoRA: "in"}}} {
		in := adapterFile(t, c.algo, c.o, nil, tensor.F32)
		all, _ := resized(t, Options{In: in, Rule: MaxError})
		out, r := resized(t, Options{In: in, Dim: 1})
		before, after := testutil.Tensors(t, in), testutil.Tensors(t, out)
		want, got := changes(t, in), changes(t, all)
		for _, m := range r.Modules {
			x, y := before[m.Name+".dora_scale"], after[m.Name+".dora_scale"]
			if !m.DoRA || !bytes.Equal(x.Data, y.Data) || !slices.Equal(x.Shape, y.Shape) {
				t.Errorf("%s: magnitudes %v are %v", m.Name, x.Shape, y.Shape)
			}
			if d := distance(got[m.Name], want[m.Name]) / norm(want[m.Name]); d > 1e-6 {
				t.Errorf("%s: with all ranks off by %g", m.Name, d)
			}
		}
	}
}

// What has no ranks is copied beside what has, and told.
func TestOthersAreCopied(t *testing.T) {
	full, err := algos.Full.New(targets[1], algos.Options{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	rng.New(1, "full", 0, 0).FillNormal(full.Factors()[0].Host)
	all := algos.NewNetwork([]algos.Adapter{full}).Tensors()
	lora, err := algos.LoRA.New(targets[2], algos.Options{Rank: 4}, rng.New(1, "test", 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	rng.New(1, "up", 0, 0).FillNormal(lora.Factors()[0].Host)
	all = append(all, algos.NewNetwork([]algos.Adapter{lora}).Tensors()...)
	all = append(all, tensor.Named{Name: "bundle_emb.word.vector", Tensor: tensor.FromFloat32(tensor.F16, []int{2}, []float32{1, 2})})
	in := saved(t, all, nil, tensor.F16)
	out, r := resized(t, Options{In: in, Dim: 2})
	before, after := testutil.Tensors(t, in), testutil.Tensors(t, out)
	for _, name := range []string{targets[1].Name + ".diff", "bundle_emb.word.vector"} {
		if !bytes.Equal(before[name].Data, after[name].Data) || before[name].DType != after[name].DType {
			t.Errorf("%s changed", name)
		}
	}
	if r.Count(Copied) != 1 || r.Count(Resized) != 1 || !slices.ContainsFunc(r.Notes, func(n string) bool { return strings.Contains(n, "1 modules of full") }) {
		t.Errorf("notes %q", r.Notes)
	}
	if d := after[targets[2].Name+".lora_up.weight"].DType; d != tensor.F16 {
		t.Errorf("factors are %s, were F16", d)
	}
	wide, _ := resized(t, Options{In: in, Dim: 2, DType: tensor.BF16})
	for name, x := range testutil.Tensors(t, wide) {
		want := tensor.BF16
		switch {
		case strings.HasSuffix(name, ".alpha"):
			want = tensor.F32
		case strings.HasPrefix(name, "bundle_emb."):
			want = tensor.F16
		}
		if x.DType != want {
			t.Errorf("%s is %s, want %s", name, x.DType, want)
		}
	}
}

// The bytes don't depend on the number of threads.
func TestThreads(t *testing.T) {
	for name, c := range forms {
		in := adapterFile(t, c.algo, c.options, map[string]string{"ss_v2": "False"}, tensor.F16)
		one, _ := resized(t, Options{In: in, Dim: 2, Threads: 1})
		many, _ := resized(t, Options{In: in, Dim: 2, Threads: 7})
		x, err := os.ReadFile(one)
		if err != nil {
			t.Fatal(err)
		}
		if y, err := os.ReadFile(many); err != nil || !bytes.Equal(x, y) {
			t.Errorf("%s: other bytes with other threads (%v)", name, err)
		}
	}
}

// Metadata: everything stays but what is no longer true.
func TestMetadata(t *testing.T) {
	full := map[string]string{"ss_network_module": "lycoris.kohya", "ss_network_dim": "6", "ss_network_alpha": "3", "ss_network_args": `{"algo":"lora","conv_dim":"6","conv_alpha":"3","dropout":"0.1"}`,
		"ss_base_model_version": "sd_v1", "ss_v2": "False", "ss_training_comment": "my cat", "ss_tag_frequency": "{}", "modelspec.sai_model_spec": "1.0.1", "modelspec.date": "2024-01-01T00:00:00",
		"lora_adapter_metadata": `{"unet.r": 6}`, "lycoris.history": `[{"command":"merge"}]`}
	in := adapterFile(t, &algos.LoRA, algos.Options{Rank: 6, Alpha: 3}, full, tensor.F32)
	out, _ := resized(t, Options{In: in, Dim: 4, ConvDim: 2, Version: "1.2", Date: "2026-02-03T04:05:06"})
	f, err := tensor.OpenFile(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := maps.Clone(f.Metadata())
	hash, err := tensor.HashFileData(f)
	if err != nil {
		t.Fatal(err)
	}
	old, err := tensor.OpenFile(in)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	for key, want := range map[string]string{"ss_network_dim": "4", "ss_network_alpha": "4", "ss_network_module": "lycoris.kohya", "ss_network_args": `{"algo":"lora","conv_alpha":"2","conv_dim":"2","dropout":"0.1"}`,
		"ss_training_comment": "dimension is resized from 6 to 4 (conv: 2); my cat", "ss_tag_frequency": "{}", "modelspec.date": "2026-02-03T04:05:06", "lora_adapter_metadata": "",
		"sshs_model_hash": hash, "sshs_legacy_hash": "e3b0c442", "modelspec.hash_sha256": "0x" + hash} {
		if got[key] != want {
			t.Errorf("%s is %q, want %q", key, got[key], want)
		}
	}
	if old.Metadata()["sshs_model_hash"] == hash {
		t.Error("the hash is the old one")
	}
	var history []map[string]any
	if err := json.Unmarshal([]byte(got["lycoris.history"]), &history); err != nil || len(history) != 2 || history[0]["command"] != "merge" || history[1]["command"] != "resize" || history[1]["version"] != "1.2" {
		t.Errorf("history %s: %v", got["lycoris.history"], err)
	}

	_, r := resized(t, Options{In: in, Rule: Frobenius, Value: 0.9})
	if c := r.Metadata["ss_training_comment"]; c != "Dynamic resize with sv_fro: 0.9 from 6; my cat" {
		t.Errorf("comment %q", c)
	}
	_, r = resized(t, Options{In: in, Dim: 2, Level: adapter.Minimal})
	if len(r.Metadata) != 6 || r.Metadata["ss_network_dim"] != "2" {
		t.Errorf("minimal: %q", r.Metadata)
	}
	_, r = resized(t, Options{In: in, Dim: 2, Level: adapter.None})
	if r.Metadata != nil {
		t.Errorf("none: %q", r.Metadata)
	}

	// another algorithm
	in = adapterFile(t, &algos.LoHa, algos.Options{Rank: 3}, map[string]string{"ss_network_module": "lycoris.kohya", "ss_network_args": `{"algo":"loha"}`, "ss_base_model_version": "sd_v1"}, tensor.F32)
	_, r = resized(t, Options{In: in, Dim: 4})
	if m := r.Metadata; m["ss_network_module"] != "lycoris.kohya" || m["ss_network_args"] != `{"algo":"lora","conv_alpha":"4","conv_dim":"4"}` || m["ss_network_dim"] != "4" {
		t.Errorf("of LoHa: %q", m)
	}
	defer func(all []algos.Target) { targets = all }(targets)
	targets = targets[2:3]
	in = adapterFile(t, &algos.LoHa, algos.Options{Rank: 3}, map[string]string{"ss_network_module": "lycoris.kohya", "ss_network_args": `{"algo":"loha"}`, "ss_base_model_version": "sd_v1"}, tensor.F32)
	_, r = resized(t, Options{In: in, Dim: 4})
	if m := r.Metadata; m["ss_network_module"] != "networks.lora" || m["ss_network_args"] != `{}` {
		t.Errorf("of LoHa without windows: %q", m)
	}

	// a file that says nothing and of whose family nothing is known goes on saying nothing
	in = adapterFile(t, &algos.LoRA, algos.Options{Rank: 4}, nil, tensor.F32)
	if _, r = resized(t, Options{In: in, Dim: 2}); r.Metadata != nil {
		t.Errorf("of nothing: %q", r.Metadata)
	}
}

// Names of peft and diffusers stay, without alpha, and what their configuration scales is in the factors.
func TestPeftNames(t *testing.T) {
	dir := t.TempDir()
	s := rng.New(1, "peft", 0, 0)
	make1 := func(name string, shape ...int) tensor.Named {
		v := make([]float32, tensor.Elems(shape))
		s.FillNormal(v)
		return tensor.Named{Name: "base_model.model.mid.to_q." + name, Tensor: tensor.FromFloat32(tensor.F32, shape, v)}
	}
	a, b := make1("lora_A.weight", 4, 8), make1("lora_B.weight", 10, 4)
	if err := tensor.WriteFile(filepath.Join(dir, "adapter_model.safetensors"), []tensor.Named{a, b}, nil); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "adapter_config.json"), []byte(`{"peft_type":"LORA","r":4,"lora_alpha":2}`), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, dim := range []int{2, 4} {
		out, r := resized(t, Options{In: dir, Dim: dim})
		after := testutil.Tensors(t, out)
		if len(after) != 2 {
			t.Fatalf("%d tensors: %v", len(after), sortedKeys(after))
		}
		_, s, _ := linalg.ProductSVD(values(b.Tensor), values(a.Tensor), 10, 4, 8, dim)
		_, now, _ := linalg.ProductSVD(values(after[b.Name]), values(after[a.Name]), 10, dim, 8, dim)
		for i := range s {
			if math.Abs(now[i]-0.5*s[i]) > 1e-6*s[0] {
				t.Errorf("dim %d: value %d is %g, want %g", dim, i, now[i], 0.5*s[i])
			}
		}
		if r.Modules[0].Did != Resized {
			t.Errorf("dim %d: %s", dim, r.Modules[0].Did)
		}
	}
}

// Bad requests and files are refused with a sentence, and nothing is written.
func TestRefused(t *testing.T) {
	lora := adapterFile(t, &algos.LoRA, algos.Options{Rank: 6}, nil, tensor.F32)
	dylora := adapterFile(t, &algos.DyLoRA, algos.Options{Rank: 8}, map[string]string{"ss_network_module": "lycoris.kohya", "ss_network_args": `{"algo":"dylora","block_size":"4"}`}, tensor.F32)
	large := saved(t, []tensor.Named{{Name: "lora_unet_x.lora_up.weight", Tensor: tensor.FromFloat32(tensor.F32, []int{1, 2}, []float32{1e9, 1e9})},
		{Name: "lora_unet_x.lora_down.weight", Tensor: tensor.FromFloat32(tensor.F32, []int{2, 1}, []float32{1e9, 1})}}, nil, tensor.F32)
	ia3 := adapterFile(t, &algos.IA3, algos.Options{}, nil, tensor.F32)
	loha := adapterFile(t, &algos.LoHa, algos.Options{Rank: 2}, nil, tensor.F32)
	lokr := adapterFile(t, &algos.LoKr, algos.Options{Rank: 2, Factor: 2}, nil, tensor.F32)
	tucker := adapterFile(t, &algos.LoRA, algos.Options{Rank: 6, Tucker: true}, nil, tensor.F32)
	damaged := func(path, suffix string, change func(*tensor.Tensor)) string {
		var all []tensor.Named
		for name, x := range testutil.Tensors(t, path) {
			if strings.HasSuffix(name, suffix) {
				change(&x)
			}
			all = append(all, tensor.Named{Name: name, Tensor: x})
		}
		out := filepath.Join(t.TempDir(), "damaged.safetensors")
		if err := tensor.WriteFile(out, all, nil); err != nil {
			t.Fatal(err)
		}
		return out
	}
	halve := func(axis int) func(x *tensor.Tensor) {
		return func(x *tensor.Tensor) {
			x.Shape = slices.Clone(x.Shape)
			x.Shape[axis] /= 2
			x.Data = x.Data[:len(x.Data)/2]
		}
	}
	nan := func(x *tensor.Tensor) { *x = tensor.FromFloat32(tensor.F32, []int{}, []float32{float32(math.NaN())}) }
	vector := func(x *tensor.Tensor) { *x = tensor.FromFloat32(tensor.F32, []int{2}, []float32{1, 2}) }
	for _, c := range []struct {
		what string
		o    Options
		kind fault.Kind
		word string
	}{
		{"raise", Options{In: lora, Dim: 7}, fault.Usage, "7 is above the file's 6 ranks"},
		{"raise windows", Options{In: lora, Dim: 6, ConvDim: 7}, fault.Usage, "7 is above the file's 6 ranks"},
		{"inside a block", Options{In: dylora, Block: 6}, fault.Usage, "6 cuts a block of 4 ranks"},
		{"inside the first block", Options{In: dylora, Dim: 3}, fault.Usage, "3 cuts a block of 4 ranks"},
		{"beyond the blocks", Options{In: dylora, Block: 12}, fault.Usage, "12 is above the file's 8 ranks"},
		{"a rule without blocks", Options{In: lora, Dim: 2, DyLoRAScale: "kohya"}, fault.Usage, "nothing is cut by blocks"},
		{"blocks of LoHa", Options{In: loha, Block: 1}, fault.Input, "is a LoHa"},
		{"blocks of LoKr", Options{In: lokr, Block: 1}, fault.Input, "is a LoKr"},
		{"blocks of Tucker", Options{In: tucker, Block: 1}, fault.Input, "has a Tucker core"},
		{"no ranks", Options{In: ia3, Dim: 2}, fault.Input, "none of its 4 modules has ranks to cut: they are ia3"},
		{"no file", Options{In: "none.safetensors", Dim: 2}, fault.Input, "there is no such file"},
		{"too large for fp16", Options{In: large, Dim: 1, DType: tensor.F16}, fault.Failed, "too large for F16"},
		{"NaN", Options{In: damaged(lora, ".alpha", nan), Dim: 2}, fault.Input, "NaN"},
		{"alpha is a vector", Options{In: damaged(lora, ".alpha", vector), Dim: 2}, fault.Input, "want one number"},
		{"ranks of LoHa", Options{In: damaged(loha, "hada_w1_b", halve(0)), Dim: 1}, fault.Input, "the ranks don't match"},
		{"sizes of LoHa", Options{In: damaged(loha, "hada_w2_b", halve(1)), Dim: 1}, fault.Input, "its two products are"},
		{"core", Options{In: damaged(tucker, "lora_mid.weight", halve(0)), Dim: 2}, fault.Input, "lora_mid.weight has shape"},
		{"ranks of LoKr", Options{In: damaged(lokr, "lokr_w2_b", halve(0)), Dim: 1}, fault.Input, "the ranks don't match"},
	} {
		t.Run(c.what, func(t *testing.T) {
			dir := t.TempDir()
			c.o.Out, c.o.Level, c.o.Threads = filepath.Join(dir, "out.safetensors"), adapter.Full, 2
			_, err := Run(context.Background(), c.o, nil)
			if err == nil || fault.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.word) {
				t.Errorf("got %v (%v), want %v with %q", err, fault.KindOf(err), c.kind, c.word)
			}
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Errorf("%q is left", left[0].Name())
			}
		})
	}
	ctx, stop := context.WithCancel(context.Background())
	stop()
	out := filepath.Join(t.TempDir(), "out.safetensors")
	if _, err := Run(ctx, Options{In: lora, Out: out, Dim: 2}, nil); err != context.Canceled {
		t.Errorf("stopped: %v", err)
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("stopped, and a file is there")
	}
}

// Of a LoHa whose ranks multiply to more than half of a side the first values are found in the product itself: the same.
func TestLargeLoHa(t *testing.T) {
	defer func(all []algos.Target) { targets = all }(targets)
	targets = []algos.Target{{Name: "lora_unet_x", Path: "unet.x", Shape: []int{40, 48}}}
	in := adapterFile(t, &algos.LoHa, algos.Options{Rank: 5, Alpha: 2}, nil, tensor.F32)
	want := changes(t, in)["lora_unet_x"]
	s := spectrumOf(targets[0], want)
	out, r := resized(t, Options{In: in, Dim: 4})
	best := norm(s[4:])
	if d := distance(changes(t, out)["lora_unet_x"], want); math.Abs(d-best) > 1e-6*best || math.Abs(r.Modules[0].Error-best) > 1e-6*best || r.Modules[0].OldRank != 25 {
		t.Errorf("error %g, it says %g, the least is %g", d, r.Modules[0].Error, best)
	}
}
