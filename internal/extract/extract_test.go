package extract_test

import (
	"context"
	"errors"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lycoris/internal/adapter"
	"lycoris/internal/algos"
	"lycoris/internal/arch"
	"lycoris/internal/checkpoint"
	"lycoris/internal/extract"
	"lycoris/internal/fault"
	"lycoris/internal/kernels"
	"lycoris/internal/kernels/cpu"
	"lycoris/internal/kernels/ref"
	"lycoris/internal/network"
	"lycoris/internal/rng"
	"lycoris/internal/tensor"
	"lycoris/internal/testutil/tinymodel"
)

// pair is a tiny base and a copy of it with changed weights.
type pair struct {
	base, tuned string
	changes     map[string][]float32 // by path: what was added, before rounding
}

// model opens the file at path as a model to train, for its targets.
func model(t *testing.T, path string) *checkpoint.Model {
	t.Helper()
	m, err := checkpoint.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// makePair writes a base in type d and a copy to which change adds; change returns nil for layers that stay.
func makePair(t *testing.T, d tensor.DType, change func(i int, target network.Target, weight []float32) []float32) pair {
	t.Helper()
	dir := t.TempDir()
	p := pair{filepath.Join(dir, "base.safetensors"), filepath.Join(dir, "tuned.safetensors"), map[string][]float32{}}
	if err := tinymodel.Write(p.base, tinymodel.Options{Seed: 1, DType: d, Vocab: 100}); err != nil {
		t.Fatal(err)
	}
	base := model(t, p.base)
	edited := map[string][]float32{}
	for i, target := range network.Targets(base) {
		names := arch.NewNames(target.Component, base.Modules(target.Component))
		name, _ := names.LDM(target.Module.Path + ".weight")
		w, err := base.Read(target.Component, target.Module.Path+".weight")
		if err != nil {
			t.Fatal(err)
		}
		weight := w.Float32()
		delta := change(i, target, weight)
		if delta == nil {
			continue
		}
		p.changes[target.Path] = delta
		for j, v := range delta {
			weight[j] += v
		}
		edited[name] = weight
	}
	rewrite(t, p.base, p.tuned, func(name string, x tensor.Tensor) tensor.Tensor {
		if v, ok := edited[name]; ok {
			delete(edited, name)
			return tensor.FromFloat32(d, x.Shape, v)
		}
		return x
	})
	if len(edited) > 0 {
		t.Fatalf("%d changed tensors aren't in the file", len(edited))
	}
	return p
}

// rewrite copies a file, each tensor through f.
func rewrite(t *testing.T, from, to string, f func(name string, x tensor.Tensor) tensor.Tensor) {
	t.Helper()
	file, err := tensor.OpenFile(from)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var all []tensor.Named
	for _, name := range file.Names() {
		x, err := file.Read(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, tensor.Named{Name: name, Tensor: f(name, x)})
	}
	if err := tensor.WriteFile(to, all, file.Metadata()); err != nil {
		t.Fatal(err)
	}
}

// by returns a change that an adapter of the algorithm makes on the layers of preset, with every factor moved.
func by(t *testing.T, algo *algos.Algorithm, preset string, o algos.Options, size float32) func(int, network.Target, []float32) []float32 {
	t.Helper()
	p, err := network.PresetByName(preset)
	if err != nil {
		t.Fatal(err)
	}
	choose, err := p.Chooser()
	if err != nil {
		t.Fatal(err)
	}
	return func(i int, target network.Target, weight []float32) []float32 {
		set, chosen := choose(target)
		if !chosen || target.IsNorm() {
			return nil
		}
		o := o
		o.OnInput, _ = set["on_input"].(bool)
		a, err := algo.New(target.Target, o, rng.New(3, "test", 0, uint64(i)))
		if err != nil {
			t.Fatal(err)
		}
		for j, f := range a.Factors() {
			if f.Frozen {
				continue
			}
			rng.New(4, target.Path, uint64(j), 0).FillNormal(f.Host)
			for k := range f.Host {
				f.Host[k] *= size
			}
		}
		delta, err := algos.Change(ref.Open(), a, tensor.FromFloat32(tensor.F32, target.Shape, weight))
		if err != nil {
			t.Fatal(err)
		}
		return delta
	}
}

// targetsOf returns the base's layers by path.
func targetsOf(t *testing.T, p pair) map[string]network.Target {
	targets := map[string]network.Target{}
	for _, x := range network.Targets(model(t, p.base)) {
		targets[x.Path] = x
	}
	return targets
}

func engine() (kernels.Backend, func(), error) {
	b, err := cpu.Open(cpu.Options{Threads: 1})
	if err != nil {
		return nil, nil, err
	}
	return b, b.Close, nil
}

// run extracts from a pair.
func run(t *testing.T, p pair, o extract.Options) (*extract.Report, error) {
	t.Helper()
	base, err := extract.Open(p.base)
	if err != nil {
		t.Fatal(err)
	}
	defer base.Close()
	tuned, err := extract.Open(p.tuned)
	if err != nil {
		t.Fatal(err)
	}
	defer tuned.Close()
	o.Backend, o.Memory = engine, 1<<24
	if o.Workers == 0 {
		o.Workers = 2
	}
	if o.DType == tensor.Invalid {
		o.DType = tensor.F32
	}
	return extract.Run(context.Background(), base, tuned, o)
}

func mustRun(t *testing.T, p pair, o extract.Options) *extract.Report {
	t.Helper()
	r, err := run(t, p, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// checkLoads saves what was extracted, loads it as any adapter is, and compares its changes with those that were made and with the report.
func checkLoads(t *testing.T, p pair, r *extract.Report, limit float64) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "out.safetensors")
	if err := adapter.Save(path, r.Tensors(), nil, tensor.F32); err != nil {
		t.Fatal(err)
	}
	base := model(t, p.base)
	loaded, err := network.Load(path, base, "", algos.Options{})
	if err != nil {
		t.Fatal(err)
	}
	reported := map[string]extract.Module{}
	for _, m := range r.Modules {
		reported[m.Path] = m
	}
	if len(loaded.Adapters) != len(p.changes) {
		t.Errorf("%d modules, %d layers were changed", len(loaded.Adapters), len(p.changes))
	}
	for _, a := range loaded.Adapters {
		component, module, _ := strings.Cut(a.Target().Path, ".")
		w, err := base.Read(arch.Component(component), module+".weight")
		if err != nil {
			t.Fatal(err)
		}
		got, err := algos.Change(ref.Open(), a, tensor.FromFloat32(tensor.F32, a.Target().Shape, w.Float32()))
		if err != nil {
			t.Fatal(err)
		}
		want := p.changes[a.Target().Path]
		var off, all float64
		for i, v := range want {
			d := float64(got[i]) - float64(v)
			off += d * d
			all += float64(v) * float64(v)
		}
		m := reported[a.Target().Path]
		if relative := math.Sqrt(off / all); relative > limit || math.Abs(relative-m.Relative()) > 1e-5 {
			t.Errorf("%s: the loaded change is off by %.3g, reported %.3g, want at most %.3g", a.Target().Path, relative, m.Relative(), limit)
		}
	}
}

// A change of an algorithm's own form comes back.
func TestOwnForm(t *testing.T) {
	for _, c := range []struct {
		name   string
		algo   *algos.Algorithm
		preset string
		made   algos.Options
		size   float32
		o      extract.Options
	}{
		{"lora", &algos.LoRA, "full", algos.Options{Rank: 3}, 0.1, extract.Options{Algorithm: "locon", Rule: extract.Rule{Dim: 3}}},
		{"lora of more rank than there is", &algos.LoRA, "attn-mlp", algos.Options{Rank: 2}, 0.1, extract.Options{Algorithm: "lora", Rule: extract.Rule{Dim: 6}}},
		{"lora by share", &algos.LoRA, "attn-mlp", algos.Options{Rank: 3}, 0.1, extract.Options{Algorithm: "lora", Rule: extract.Rule{Fro: 0.9999999}}},
		{"lora by ratio", &algos.LoRA, "attn-mlp", algos.Options{Rank: 3}, 0.1, extract.Options{Algorithm: "lora", Rule: extract.Rule{Ratio: 1e4}}},
		{"lokr", &algos.LoKr, "full", algos.Options{Rank: 2, Factor: 4, FullMatrix: true}, 0.3, extract.Options{Algorithm: "lokr", Factor: 4, ConvDim: 1000}},
		{"lokr, nearest to square", &algos.LoKr, "attn-mlp", algos.Options{Rank: 2, Factor: -1, FullMatrix: true}, 0.3, extract.Options{Algorithm: "lokr"}},
		{"lokr of low rank", &algos.LoKr, "attn-mlp", algos.Options{Rank: 2, Factor: 4}, 0.3, extract.Options{Algorithm: "lokr", Factor: 4, Rule: extract.Rule{Dim: 2}}},
		{"ia3", &algos.IA3, "ia3", algos.Options{}, 0.2, extract.Options{Algorithm: "ia3"}},
		{"diag-oft", &algos.DiagOFT, "full", algos.Options{Rank: 8}, 0.05, extract.Options{Algorithm: "diag-oft", Rule: extract.Rule{Dim: 8}, ConvDim: 8}},
		{"full", &algos.LoRA, "full", algos.Options{Rank: 3}, 0.1, extract.Options{Algorithm: "full"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := makePair(t, tensor.F32, by(t, c.algo, c.preset, c.made, c.size))
			r := mustRun(t, p, c.o)
			if e := r.Total.Relative(); e > 1e-5 {
				t.Errorf("the error in total is %.3g", e)
			}
			if got := r.Total.Count[extract.Fitted]; got != len(p.changes) {
				t.Errorf("%d modules, %d layers were changed", got, len(p.changes))
			}
			checkLoads(t, p, r, 2e-5)
		})
	}
}

// A rule keeps as many ranks as the change has.
func TestRulesFindTheRank(t *testing.T) {
	p := makePair(t, tensor.F32, by(t, &algos.LoRA, "attn-only", algos.Options{Rank: 3}, 0.1))
	for _, rule := range []extract.Rule{{Fro: 0.99999}, {Ratio: 1e3}, {Ratio: 1e-3}, {Threshold: 1e-3}, {Quantile: 0.9999}} {
		for _, m := range mustRun(t, p, extract.Options{Algorithm: "lora", Rule: rule}).Modules {
			if m.Status == extract.Fitted && m.Rank != 3 && !(rule.Quantile > 0 && m.Rank == 2) { // LyCORIS's rule stops one short of its share
				t.Errorf("%+v: %s has rank %d, want 3", rule, m.Path, m.Rank)
			}
		}
	}
}

// noise changes every Linear and convolution by random values.
func noise(i int, target network.Target, weight []float32) []float32 {
	if target.IsNorm() {
		return nil
	}
	delta := make([]float32, len(weight))
	rng.New(5, target.Path, 0, uint64(i)).FillNormal(delta)
	for j := range delta {
		delta[j] *= 0.01
	}
	return delta
}

// The error of what low rank can't hold is the best there is.
func TestErrorIsTheOptimum(t *testing.T) {
	p := makePair(t, tensor.F32, noise)
	r := mustRun(t, p, extract.Options{Algorithm: "locon", Rule: extract.Rule{Dim: 4}})
	targets := targetsOf(t, p)
	for _, m := range r.Modules {
		shape := targets[m.Path].Shape
		rows, cols := shape[0], tensor.Elems(shape[1:])
		if min(rows, cols) <= 4 { // the whole change
			if m.Missing > 1e-5*m.Change {
				t.Errorf("%s: %.3g of the whole rank is missing", m.Path, m.Relative())
			}
			continue
		}
		best := bestRest(p.changes[m.Path], rows, cols, 4)
		if ratio := m.Missing / best; ratio > 1.01 || ratio < 0.9999 {
			t.Errorf("%s: the error is %.5f of the optimum", m.Path, ratio)
		}
	}
}

// Kernels are left out unless they are asked for, and it is said what lies in them; results don't depend on the workers.
func TestLeftOutAndWorkers(t *testing.T) {
	p := makePair(t, tensor.F16, noise)
	one := mustRun(t, p, extract.Options{Algorithm: "lora", Rule: extract.Rule{Dim: 2}, Workers: 1, DType: tensor.F16})
	many := mustRun(t, p, extract.Options{Algorithm: "lora", Rule: extract.Rule{Dim: 2}, Workers: 5, DType: tensor.F16})
	if !slices.EqualFunc(one.Tensors(), many.Tensors(), func(a, b tensor.Named) bool { return a.Name == b.Name && slices.Equal(a.Data, b.Data) }) {
		t.Error("five workers give other bytes than one")
	}
	var windows, all float64
	for _, x := range network.Targets(model(t, p.base)) {
		sum := 0.0
		for _, v := range p.changes[x.Path] {
			sum += float64(v) * float64(v)
		}
		if len(x.Shape) == 4 && x.Shape[2] > 1 {
			windows += sum
		}
		all += sum
	}
	if got, want := one.Total.LeftOutShare(), windows/all; math.Abs(got-want) > 0.01*want {
		t.Errorf("kernels hold %v of the energy, reported %v", want, got)
	}
	for _, tt := range one.Tensors() {
		if strings.HasSuffix(tt.Name, "lora_down.weight") && len(tt.Shape) == 4 && tt.Shape[2] > 1 {
			t.Errorf("%s is a kernel's", tt.Name)
		}
	}
}

// A LoHa fit is better than the LoRA of its rank that it starts from.
func TestLoHa(t *testing.T) {
	p := makePair(t, tensor.F32, by(t, &algos.LoHa, "attn-only", algos.Options{Rank: 2}, 0.3))
	loha := mustRun(t, p, extract.Options{Algorithm: "loha", Rule: extract.Rule{Dim: 2}})
	lora := mustRun(t, p, extract.Options{Algorithm: "lora", Rule: extract.Rule{Dim: 2}})
	for i, m := range loha.Modules {
		if m.Status == extract.Fitted && m.Missing > 1.0001*lora.Modules[i].Missing {
			t.Errorf("%s: error %.4g, LoRA of the same rank %.4g", m.Path, m.Relative(), lora.Modules[i].Relative())
		}
	}
	if a, b := loha.Total.Relative(), lora.Total.Relative(); a > 0.9*b {
		t.Errorf("the error is %.4g, LoRA of the same rank %.4g", a, b)
	}
	for _, tt := range loha.Tensors() {
		if strings.HasSuffix(tt.Name, "hada_w2_b") && len(tt.Shape) != 2 {
			t.Errorf("%s has shape %v", tt.Name, tt.Shape)
		}
	}
}

// Forms that hold only what was made in them are compared with the best plain LoRA of their size.
func TestComparedWithLoRA(t *testing.T) {
	p := makePair(t, tensor.F32, noise)
	targets := targetsOf(t, p)
	for algorithm, o := range map[string]extract.Options{
		"loha": {Algorithm: "loha", Rule: extract.Rule{Dim: 1}}, "lokr": {Algorithm: "lokr", Factor: 4}, "diag-oft": {Algorithm: "diag-oft", Rule: extract.Rule{Dim: 8}},
	} {
		o.Components = []arch.Component{arch.TextEncoder}
		r := mustRun(t, p, o)
		missing := 0.0
		for _, m := range r.Modules {
			if m.Status != extract.Fitted {
				continue
			}
			numbers := 0
			for _, x := range r.Tensors() {
				if strings.HasPrefix(x.Name, m.Name+".") && !strings.HasSuffix(x.Name, ".alpha") {
					numbers += tensor.Elems(x.Shape)
				}
			}
			change := p.changes[m.Path]
			rows := targets[m.Path].Shape[0]
			cols := len(change) / rows
			if want := max(numbers/(rows+cols), 1); m.LoRARank != want {
				t.Errorf("%s %s: compared with rank %d, want %d", algorithm, m.Path, m.LoRARank, want)
			}
			best := bestRest(change, rows, cols, m.LoRARank)
			if q := m.LoRAMissing / best; q < 1-1e-5 || q > 1.01 {
				t.Errorf("%s %s: LoRA misses %.4g, the best %.4g", algorithm, m.Path, m.LoRAMissing, best)
			}
			missing += m.LoRAMissing * m.LoRAMissing
		}
		if got := r.Total.LoRAMissing; !r.Total.Compared || math.Abs(got-math.Sqrt(missing)) > 1e-9*got {
			t.Errorf("%s: in total %v, want %v", algorithm, got, math.Sqrt(missing))
		}
	}
	if r := mustRun(t, p, extract.Options{Algorithm: "lora"}); r.Total.Compared {
		t.Error("LoRA is compared with itself")
	}
}

// full takes biases and norms along.
func TestFullHasBiasesAndNorms(t *testing.T) {
	p := makePair(t, tensor.F32, func(int, network.Target, []float32) []float32 { return nil })
	rewrite(t, p.base, p.tuned, func(name string, x tensor.Tensor) tensor.Tensor {
		if strings.HasSuffix(name, "output_blocks.3.0.out_layers.0.weight") || strings.HasSuffix(name, "input_blocks.1.0.in_layers.2.bias") {
			v := x.Float32()
			v[1] += 0.25
			return tensor.FromFloat32(tensor.F32, x.Shape, v)
		}
		return x
	})
	found := map[string]float32{}
	for _, tt := range mustRun(t, p, extract.Options{Algorithm: "full"}).Tensors() {
		found[tt.Name] = tt.Float32()[1]
	}
	for name, want := range map[string]float32{
		"lora_unet_up_blocks_1_resnets_0_norm2.w_norm": 0.25, "lora_unet_up_blocks_1_resnets_0_norm2.b_norm": 0,
		"lora_unet_down_blocks_0_resnets_0_conv1.diff_b": 0.25, "lora_unet_down_blocks_0_resnets_0_conv1.diff": 0,
	} {
		if got, ok := found[name]; !ok || got != want {
			t.Errorf("%s is %v (%t), want %v", name, got, ok, want)
		}
	}
	if len(found) != 4 {
		t.Errorf("%d tensors, want 4: %v", len(found), found)
	}
}

// wantFault asserts an error of the kind whose message has the words.
func wantFault(t *testing.T, err error, kind fault.Kind, words ...string) {
	t.Helper()
	var e *fault.Error
	if !errors.As(err, &e) || e.Kind != kind {
		t.Fatalf("got %v, want an error of kind %s", err, kind)
	}
	for _, w := range words {
		if !strings.Contains(e.Error()+" "+e.Advice, w) {
			t.Errorf("%q doesn't say %q", e.Error()+" "+e.Advice, w)
		}
	}
}

// The same model in another precision, or bit by bit, is no difference.
func TestNothingToExtract(t *testing.T) {
	p := makePair(t, tensor.F16, func(int, network.Target, []float32) []float32 { return nil })
	_, err := run(t, p, extract.Options{Algorithm: "lora"})
	wantFault(t, err, fault.Input, "no difference")
	for _, d := range []tensor.DType{tensor.BF16, tensor.F32} {
		rewrite(t, p.base, p.tuned, func(name string, x tensor.Tensor) tensor.Tensor {
			v := x.Float32()
			for i, f := range v { // rounded to BF16, stored as d
				v[i] = tensor.BF16ToFloat32(tensor.Float32ToBF16(f))
			}
			return tensor.FromFloat32(d, x.Shape, v)
		})
		_, err = run(t, p, extract.Options{Algorithm: "lora"})
		wantFault(t, err, fault.Input, "no difference")
		r := mustRun(t, p, extract.Options{Algorithm: "lora", KeepNoise: true})
		if r.Total.Count[extract.Fitted] == 0 {
			t.Errorf("%s: the rounding isn't kept", d)
		}
	}
}

func TestBadModels(t *testing.T) {
	p := makePair(t, tensor.F32, noise)
	bad := p
	bad.tuned = filepath.Join(t.TempDir(), "bad.safetensors")
	t.Run("not finite", func(t *testing.T) {
		rewrite(t, p.tuned, bad.tuned, func(name string, x tensor.Tensor) tensor.Tensor {
			if strings.HasSuffix(name, "input_blocks.1.1.proj_in.weight") {
				v := x.Float32()
				v[7] = float32(math.NaN())
				return tensor.FromFloat32(tensor.F32, x.Shape, v)
			}
			return x
		})
		_, err := run(t, bad, extract.Options{Algorithm: "lora"})
		wantFault(t, err, fault.Input, "proj_in.weight", "index 7")
	})
	t.Run("another width", func(t *testing.T) {
		rewrite(t, p.tuned, bad.tuned, func(name string, x tensor.Tensor) tensor.Tensor {
			if strings.HasSuffix(name, "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight") {
				return tensor.FromFloat32(tensor.F32, []int{x.Shape[0], 2}, make([]float32, 2*x.Shape[0]))
			}
			return x
		})
		_, err := run(t, bad, extract.Options{Algorithm: "lora"})
		wantFault(t, err, fault.Input, "attn2.to_k", "[32 2]", "[32 48]")
	})
	t.Run("too large for F16", func(t *testing.T) {
		rewrite(t, p.tuned, bad.tuned, func(name string, x tensor.Tensor) tensor.Tensor {
			if strings.HasSuffix(name, "input_blocks.1.1.proj_in.weight") {
				v := x.Float32()
				v[0] = 1e30
				return tensor.FromFloat32(tensor.F32, x.Shape, v)
			}
			return x
		})
		_, err := run(t, bad, extract.Options{Algorithm: "lora", DType: tensor.F16})
		wantFault(t, err, fault.Failed, "proj_in", "too large", "bf16")
	})
	t.Run("options", func(t *testing.T) {
		_, err := run(t, p, extract.Options{Algorithm: "boft"})
		wantFault(t, err, fault.Usage, "boft", "diag-oft")
		_, err = run(t, p, extract.Options{Algorithm: "lora", Rule: extract.Rule{Fro: 0.9, Ratio: 2}})
		wantFault(t, err, fault.Usage, "--sv-fro")
		_, err = run(t, p, extract.Options{Algorithm: "lokr", Rule: extract.Rule{Fro: 0.9}})
		wantFault(t, err, fault.Usage, "lora")
	})
	t.Run("stopped", func(t *testing.T) {
		base, err := extract.Open(p.base)
		if err != nil {
			t.Fatal(err)
		}
		defer base.Close()
		tuned, err := extract.Open(p.tuned)
		if err != nil {
			t.Fatal(err)
		}
		defer tuned.Close()
		ctx, stop := context.WithCancelCause(context.Background())
		why := errors.New("enough")
		stop(why)
		_, err = extract.Run(ctx, base, tuned, extract.Options{Algorithm: "lora", Backend: engine, Workers: 2, Memory: 1 << 24, DType: tensor.F16})
		if !errors.Is(err, why) {
			t.Errorf("got %v", err)
		}
	})
}
