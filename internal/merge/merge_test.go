package merge_test

import (
	"context"
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
	"lycoris/internal/arch"
	"lycoris/internal/checkpoint"
	"lycoris/internal/fault"
	"lycoris/internal/kernels"
	"lycoris/internal/kernels/cpu"
	"lycoris/internal/kernels/ref"
	"lycoris/internal/merge"
	"lycoris/internal/network"
	"lycoris/internal/rng"
	"lycoris/internal/tensor"
	"lycoris/internal/testutil"
	"lycoris/internal/testutil/tinymodel"
)

// layers are the layers that the tests adapt: linear with and without bias, 1×1, 3×3, strided, a text encoder's; and a norm.
var layers = []string{"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0", "unet.down_blocks.0.attentions.0.proj_in",
	"unet.down_blocks.1.resnets.0.conv1", "unet.down_blocks.0.downsamplers.0.conv", "text_encoder.text_model.encoder.layers.0.mlp.fc1", "unet.mid_block.resnets.0.norm1"}

// tiny writes the tiny model, a file or a folder.
func tiny(t testing.TB, o tinymodel.Options) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "base.safetensors")
	o.Vocab = 50
	if err := tinymodel.Write(path, o); err != nil {
		t.Fatal(err)
	}
	return path
}

func openBase(t testing.TB, path string) *checkpoint.Model {
	t.Helper()
	m, err := checkpoint.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// makeAdapter writes an adapter of an algorithm for the layers that it takes.
func makeAdapter(t testing.TB, base *checkpoint.Model, algo *algos.Algorithm, o algos.Options) string {
	t.Helper()
	var all []algos.Adapter
	for _, target := range network.Targets(base) {
		if !slices.Contains(layers, target.Path) || target.IsNorm() != (algo == &algos.Norm) {
			continue
		}
		a, err := algo.New(target.Target, o, rng.New(3, "merge "+target.Path, 0, 0))
		if err != nil {
			t.Fatal(err)
		}
		if a == nil {
			continue
		}
		if s, ok := a.(algos.Starter); ok {
			w, err := network.Frozen(base)(target.Target)
			if err == nil {
				err = s.Start(w)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		algostest.Move(a)
		for _, f := range a.Factors() {
			if strings.HasSuffix(f.Param.Name, ".dora_scale") { // a magnitude is a norm
				for i, v := range f.Host {
					f.Host[i] = float32(math.Abs(float64(v)))
				}
			}
		}
		all = append(all, a)
	}
	path := filepath.Join(t.TempDir(), algo.Name+".safetensors")
	if err := adapter.Save(path, algos.NewNetwork(all).Tensors(), nil, tensor.F32); err != nil {
		t.Fatal(err)
	}
	return path
}

// options returns options with everything at its default.
func options(model, out string, adapters ...merge.Source) merge.Options {
	return merge.Options{Model: model, Out: out, Adapters: adapters, UNet: 1, Text: [2]float64{1, 1}, As: merge.AsConsumer, EMA: merge.EMAKeep, Version: "test"}
}

func run(t testing.TB, o merge.Options, b kernels.Backend) *merge.Result {
	t.Helper()
	p, err := merge.Prepare(o)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	res, err := p.Run(context.Background(), b, nil)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// wantTensors checks every tensor (ΔW in float32 leaves some values next to a tie open, most with DoRA, whose definition subtracts W from what it made) of out against base: changed ones by the adapters' definition (by diffusers name: values and how far they may be off), all others byte for byte.
func wantTensors(t *testing.T, base, out *checkpoint.Model, want map[string][]float64, slack float64) {
	t.Helper()
	changed, wrong, all := 0, 0, 0
	for _, c := range arch.Components {
		for _, param := range arch.Params(base.Modules(c)) {
			before, err := base.Read(c, param.Name)
			after, err2 := out.Read(c, param.Name)
			if err != nil || err2 != nil {
				t.Fatal(err, err2)
			}
			exact, ok := want[string(c)+"."+param.Name]
			if !ok {
				if string(before.Data) != string(after.Data) || before.DType != after.DType {
					t.Errorf("%s.%s changed", c, param.Name)
				}
				continue
			}
			changed++
			got := after.Float32()
			moved := 0.0
			w := before.Float32()
			for i, v := range exact {
				moved = max(moved, math.Abs(v-float64(w[i])))
			}
			for i, v := range exact {
				all++
				nearest := float64(tensor.F16ToFloat32(tensor.Float64ToF16(v)))
				if after.DType == tensor.F32 {
					nearest = float64(float32(v))
				}
				if float64(got[i]) == nearest {
					continue
				}
				wrong++
				step := math.Max(math.Abs(v)*0x1p-10, 0x1p-24)
				if after.DType == tensor.F32 {
					step = math.Abs(v) * 0x1p-23
				}
				if math.Abs(float64(got[i])-v) > step/2+slack*moved {
					t.Fatalf("%s.%s[%d]: got %v, want %v (before %v)", c, param.Name, i, got[i], v, w[i])
				}
			}
		}
	}
	if changed != len(want) {
		t.Errorf("%d tensors, want %d", changed, len(want))
	}
	if limit := max(2, all/1000); wrong > limit && slack < 1e-3 && openDType(out) == tensor.F16 {
		t.Errorf("%d of %d values aren't the nearest ones, want at most %d", wrong, all, limit)
	}
}

func openDType(m *checkpoint.Model) tensor.DType {
	for d := range m.DTypes(arch.UNet) {
		return d
	}
	return tensor.Invalid
}

// byDefinition returns W + c·ΔW by algos.Change for the layers of an adapter, biases too.
func byDefinition(t *testing.T, base *checkpoint.Model, path string, strength, times float64) map[string][]float64 {
	t.Helper()
	n, err := network.Load(path, base, "", algos.Options{Strength: strength})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Start(network.Frozen(base), func() {}); err != nil {
		t.Fatal(err)
	}
	want := map[string][]float64{}
	sum := func(name string, delta []float32) {
		c, param, _ := strings.Cut(name, ".")
		w, err := base.Read(arch.Component(c), param)
		if err != nil {
			t.Fatal(err)
		}
		values := make([]float64, len(delta))
		for i, v := range w.Float32() {
			values[i] = float64(v) + times*float64(delta[i])
		}
		want[name] = values
	}
	eachChange(t, n, base, sum)
	return want
}

// eachChange calls use with the name and the change, by algos.Change, of every weight and bias that an adapter of n moves.
func eachChange(t testing.TB, n *algos.Network, base *checkpoint.Model, use func(name string, delta []float32)) {
	t.Helper()
	for _, a := range n.Adapters {
		w, err := network.Frozen(base)(a.Target())
		if err != nil {
			t.Fatal(err)
		}
		delta, err := algos.Change(ref.Open(), a, tensor.FromFloat32(tensor.F32, a.Target().Shape, w))
		if err != nil {
			t.Fatal(err)
		}
		use(a.Target().Path+".weight", delta)
		if b, ok := a.(algos.BiasChanger); ok && b.BiasChange() != nil {
			use(a.Target().Path+".bias", b.BiasChange())
		}
	}
}

// TestAlgorithms: for every algorithm and its forms, file and folder, F16 and F32: merged weights are base + algos.Change, rounded once; nothing else changes.
func TestAlgorithms(t *testing.T) {
	cases := map[string]struct {
		algo *algos.Algorithm
		o    algos.Options
	}{}
	for _, a := range algos.All {
		cases[a.Name] = struct {
			algo *algos.Algorithm
			o    algos.Options
		}{a, algos.Options{Rank: 4, Alpha: 2, BlockSize: 2}}
	}
	for name, o := range map[string]algos.Options{"tucker": {Rank: 4, Alpha: 1, Tucker: true}, "dora in": {Rank: 4, DoRA: "in"}, "dora out": {Rank: 4, DoRA: "out"},
		"both": {Rank: 2, Alpha: 1, DecomposeBoth: true}, "whole": {Rank: 2, Alpha: 1, FullMatrix: true}, "factor": {Rank: 2, Alpha: 1, Factor: 2, Tucker: true}} {
		for _, a := range []*algos.Algorithm{&algos.LoRA, &algos.LoHa, &algos.LoKr} {
			cases[a.Name+" "+name] = struct {
				algo *algos.Algorithm
				o    algos.Options
			}{a, o}
		}
	}
	cases["boft"] = struct {
		algo *algos.Algorithm
		o    algos.Options
	}{&algos.BOFT, algos.Options{Rank: 8}}
	cases["ia3 in"] = struct {
		algo *algos.Algorithm
		o    algos.Options
	}{&algos.IA3, algos.Options{OnInput: true}}
	cases["diag-oft rescaled"] = struct {
		algo *algos.Algorithm
		o    algos.Options
	}{&algos.DiagOFT, algos.Options{Rank: 4, Rescaled: true, Constraint: 0.01}}
	bases := map[string]string{"file F16": tiny(t, tinymodel.Options{}), "folder F32": tiny(t, tinymodel.Options{Layout: checkpoint.Folder, DType: tensor.F32})}
	for _, name := range slices.Sorted(maps.Keys(cases)) {
		c := cases[name]
		for kind, path := range bases {
			t.Run(name+"/"+kind, func(t *testing.T) {
				base := openBase(t, path)
				file := makeAdapter(t, base, c.algo, c.o)
				for _, as := range []string{merge.AsConsumer, merge.AsLycoris} {
					if as == merge.AsLycoris && c.o.DoRA == "" {
						continue
					}
					const weight = -0.7
					o := options(path, filepath.Join(t.TempDir(), "out.safetensors"), merge.Source{Path: file, Weight: weight})
					o.As = as
					run(t, o, ref.Open())
					strength, times := weight, 1.0
					if c.o.DoRA != "" && as == merge.AsConsumer {
						strength, times = 1, weight
					}
					slack := 1e-6
					wantTensors(t, base, openBase(t, o.Out), byDefinition(t, base, file, strength, times), slack)
				}
			})
		}
	}
}

// TestExact: float32 products give the very bits that float64 arithmetic gives, for LoRA and LoHa into F16 and BF16, on every number of goroutines.
func TestExact(t *testing.T) {
	b, err := cpu.Open(cpu.Options{})
	if err != nil {
		t.Skip(err)
	}
	defer b.Close()
	for _, d := range []tensor.DType{tensor.F16, tensor.BF16} {
		path := tiny(t, tinymodel.Options{DType: d})
		base := openBase(t, path)
		one, two := makeAdapter(t, base, &algos.LoRA, algos.Options{Rank: 16, Alpha: 4}), makeAdapter(t, base, &algos.LoHa, algos.Options{Rank: 8, Alpha: 2})
		out := filepath.Join(t.TempDir(), "out.safetensors")
		run(t, options(path, out, merge.Source{Path: one, Weight: 0.3}, merge.Source{Path: two, Weight: -2}), b)
		merged := openBase(t, out)
		first, second := testutil.Tensors(t, one), testutil.Tensors(t, two)
		checked := 0
		for _, target := range network.Targets(base) {
			if !slices.Contains(layers, target.Path) || target.IsNorm() {
				continue
			}
			c, rest, _ := strings.Cut(target.Path, ".")
			w, _ := base.Read(arch.Component(c), rest+".weight")
			values := w.Float32()
			got, err := merged.Read(arch.Component(c), rest+".weight")
			if err != nil {
				t.Fatal(err)
			}
			rows, cols := target.Shape[0], tensor.Elems(target.Shape[1:])
			dot := func(up, down []float32, r, o, j int) float64 {
				sum := 0.0
				for p := range r {
					sum += float64(up[o*r+p]) * float64(down[p*cols+j])
				}
				return sum
			}
			up, down := first[target.Name+".lora_up.weight"].Float32(), first[target.Name+".lora_down.weight"].Float32()
			var side [4][]float32
			for i, key := range []string{"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"} {
				side[i] = second[target.Name+"."+key].Float32()
			}
			for o := range rows {
				for j := range cols {
					i := o*cols + j
					v := float64(values[i]) + 0.3*(4./16)*dot(up, down, 16, o, j)
					v += -2 * (2. / 8) * (dot(side[0], side[1], 8, o, j) * dot(side[2], side[3], 8, o, j))
					want := tensor.Float64ToF16(v)
					if d == tensor.BF16 {
						want = tensor.Float64ToBF16(v)
					}
					if code := uint16(got.Data[2*i]) | uint16(got.Data[2*i+1])<<8; code != want {
						t.Fatalf("%s %s[%d,%d]: code %#x, want %#x of %v", d, target.Path, o, j, code, want, v)
					}
					checked++
				}
			}
		}
		if checked < 40000 {
			t.Errorf("%d values checked", checked)
		}
		again := filepath.Join(t.TempDir(), "out.safetensors")
		single, err := cpu.Open(cpu.Options{Threads: 1})
		if err != nil {
			t.Fatal(err)
		}
		run(t, options(path, again, merge.Source{Path: one, Weight: 0.3}, merge.Source{Path: two, Weight: -2}), single)
		single.Close()
		if x, y := hash(t, out), hash(t, again); x != y {
			t.Errorf("%s: other bytes with one thread", d)
		}
	}
}

func hash(t *testing.T, path string) string {
	t.Helper()
	h, err := tensor.HashFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// TestBackAgain: a merge and one at the opposite weight give the base back within two roundings.
func TestBackAgain(t *testing.T) {
	path := tiny(t, tinymodel.Options{DType: tensor.F32})
	base := openBase(t, path)
	for _, algo := range []*algos.Algorithm{&algos.LoRA, &algos.LoHa, &algos.LoKr, &algos.Full} {
		file := makeAdapter(t, base, algo, algos.Options{Rank: 4})
		there, back := filepath.Join(t.TempDir(), "there.safetensors"), filepath.Join(t.TempDir(), "back.safetensors")
		run(t, options(path, there, merge.Source{Path: file, Weight: 0.8}), ref.Open())
		run(t, options(there, back, merge.Source{Path: file, Weight: -0.8}), ref.Open())
		same, other := openBase(t, back), openBase(t, there)
		for _, p := range arch.Params(base.Modules(arch.UNet)) {
			before, _ := base.Read(arch.UNet, p.Name)
			after, err := same.Read(arch.UNet, p.Name)
			between, _ := other.Read(arch.UNet, p.Name)
			if err != nil {
				t.Fatal(err)
			}
			x, y, m := before.Float32(), after.Float32(), between.Float32()
			for i := range x {
				if d := math.Abs(float64(x[i]) - float64(y[i])); d > 0x1.1p-23*(math.Abs(float64(m[i]))+math.Abs(float64(x[i])))+1e-9 {
					t.Fatalf("%s: %s[%d]: %v became %v", algo.Name, p.Name, i, x[i], y[i])
				}
			}
		}
	}
}

// named makes the LoRA tensors of modules: names with output and input sizes.
func loraFor(sizes map[string][2]int) []tensor.Named {
	var all []tensor.Named
	for _, name := range slices.Sorted(maps.Keys(sizes)) {
		up, down := make([]float32, sizes[name][0]*2), make([]float32, 2*sizes[name][1])
		s := rng.New(1, name, 0, 0)
		s.FillNormal(up)
		s.FillNormal(down)
		all = append(all, tensor.Named{Name: name + ".lora_up.weight", Tensor: tensor.FromFloat32(tensor.F32, []int{sizes[name][0], 2}, up)},
			tensor.Named{Name: name + ".lora_down.weight", Tensor: tensor.FromFloat32(tensor.F32, []int{2, sizes[name][1]}, down)})
	}
	return all
}

func save(t *testing.T, tensors []tensor.Named) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.safetensors")
	if err := tensor.WriteFile(path, tensors, nil); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestFused: q and v of an OpenCLIP layer are rows of one matrix; k's rows and every other tensor, markers and strangers among them, stay byte for byte, in their order. SDXL
// takes names of both kinds.
func TestFused(t *testing.T) {
	for family, modules := range map[string]map[string][2]int{
		"sd2": {"lora_te_text_model_encoder_layers_1_self_attn_q_proj": {12, 12}, "lora_te_text_model_encoder_layers_1_self_attn_v_proj": {12, 12}, "lora_unet_mid_block_attentions_0_proj_in": {16, 16}},
		"sdxl": {"lora_te2_text_model_encoder_layers_1_self_attn_q_proj": {12, 12}, "lora_te2_text_model_encoder_layers_1_self_attn_v_proj": {12, 12}, "lora_te1_text_model_encoder_layers_0_mlp_fc1": {16, 8},
			"lora_unet_middle_block_1_proj_in": {16, 16}},
	} {
		t.Run(family, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "base.safetensors")
			if err := (tinymodel.Family{Name: family, DType: tensor.BF16, EMA: true}).Write(path); err != nil {
				t.Fatal(err)
			}
			a := save(t, loraFor(modules))
			out := filepath.Join(t.TempDir(), "out.safetensors")
			run(t, options(path, out, merge.Source{Path: a, Weight: 0.5}), ref.Open())
			before, after, lora := testutil.Tensors(t, path), testutil.Tensors(t, out), testutil.Tensors(t, a)
			fin, _ := tensor.OpenFile(path)
			fout, _ := tensor.OpenFile(out)
			defer fin.Close()
			defer fout.Close()
			if !slices.Equal(fin.Names(), fout.Names()) {
				t.Error("other names or order")
			}
			te := "lora_te"
			if family == "sdxl" {
				te = "lora_te2"
			}
			changed := 0
			for name, b := range before {
				if string(b.Data) == string(after[name].Data) {
					continue
				}
				changed++
				if !strings.HasSuffix(name, "resblocks.1.attn.in_proj_weight") {
					continue
				}
				w, got := b.Float32(), after[name].Float32()
				for o := range 36 {
					part := []string{"q", "k", "v"}[o/12]
					up, ok := lora[te+"_text_model_encoder_layers_1_self_attn_"+part+"_proj.lora_up.weight"]
					down := lora[te+"_text_model_encoder_layers_1_self_attn_"+part+"_proj.lora_down.weight"]
					for j := range 12 {
						want := float64(w[o*12+j])
						if ok {
							u, d := up.Float32(), down.Float32()
							want += 0.5 * (float64(u[o%12*2])*float64(d[j]) + float64(u[o%12*2+1])*float64(d[12+j]))
						}
						if want := tensor.BF16ToFloat32(tensor.Float64ToBF16(want)); got[o*12+j] != want {
							t.Fatalf("row %d (%s): %v, want %v", o, part, got[o*12+j], want)
						}
					}
				}
			}
			if want := len(modules) - 1; changed != want {
				t.Errorf("%d tensors changed, want %d", changed, want)
			}
			if fout.Metadata()["modelspec.prediction_type"] != "v" || fout.Metadata()["modelspec.merged_from"] != "lycoris tiny "+family+", a" {
				t.Errorf("metadata %v", fout.Metadata())
			}
			o := options(path, filepath.Join(t.TempDir(), "ema.safetensors"), merge.Source{Path: a, Weight: 0.5})
			o.EMA = merge.EMAMerge
			run(t, o, ref.Open())
			merged, now := "model_ema.diffusion_modelmiddle_block1proj_inweight", testutil.Tensors(t, o.Out)
			if string(now[merged].Data) == string(before[merged].Data) || now[merged].DType != tensor.F32 {
				t.Error("the average did not change")
			}
			o.EMA, o.Out, o.DType = merge.EMADrop, filepath.Join(t.TempDir(), "drop.safetensors"), tensor.F32
			run(t, o, ref.Open())
			now = testutil.Tensors(t, o.Out)
			if _, ok := now[merged]; ok || now["first_stage_model.encoder.conv_in.weight"].DType != tensor.BF16 || now["model.diffusion_model.out.2.weight"].DType != tensor.F32 {
				t.Error("averages left, the VAE cast, or the UNet not")
			}
		})
	}
}

// TestWeights: parts and blocks multiply; a block at 0 stays byte for byte.
func TestWeights(t *testing.T) {
	path := tiny(t, tinymodel.Options{DType: tensor.F32})
	base := openBase(t, path)
	file := makeAdapter(t, base, &algos.LoRA, algos.Options{Rank: 4})
	half := 0.5
	blocks, err := merge.ParseBlocks("IN02=0,IN01=0.5,MID=2")
	list, err2 := merge.ParseBlocks("17:1,0.5,0,1,1,1,1,2,1,1,1,1,1,1,1,1,1") // the same: BASE IN01 IN02 IN04 IN05 IN07 IN08 M00 …
	if err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
	o := options(path, filepath.Join(t.TempDir(), "out.safetensors"), merge.Source{Path: file, Weight: 0.5, Text: [2]*float64{&half, &half}, Blocks: blocks})
	o.Text = [2]float64{9, 9}
	run(t, o, ref.Open())
	want := map[string][]float64{}
	full := byDefinition(t, base, file, 1, 1)
	for name, v := range full {
		c, param, _ := strings.Cut(name, ".")
		w, _ := base.Read(arch.Component(c), param)
		times := 0.5
		switch {
		case strings.Contains(name, "mid_block"):
			times = 1
		case strings.Contains(name, "text_encoder"), strings.Contains(name, "down_blocks.0.attentions.0"):
			times = 0.25
		}
		for i, x := range w.Float32() {
			v[i] = float64(x) + times*(v[i]-float64(x))
		}
		want[name] = v
	}
	wantTensors(t, base, openBase(t, o.Out), want, 1e-6)
	o.Adapters[0].Blocks = list
	o.Out = filepath.Join(t.TempDir(), "out.safetensors")
	run(t, o, ref.Open())
	wantTensors(t, base, openBase(t, o.Out), want, 1e-6)

	for text, words := range map[string]string{"1,2,x": "is not a number", "3:1,2": "says 3 numbers", "a:1": "not a number of blocks", "1,IN01=1": "mixes", "[1,": "JSON", "NaN": "is not a number"} {
		if _, err := merge.ParseBlocks(text); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%q: %v, want %q", text, err, words)
		}
	}
}

// TestRefusals: what can't be merged is an input error that says why, and leaves nothing.
func TestRefusals(t *testing.T) {
	path := tiny(t, tinymodel.Options{})
	q := "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
	good := loraFor(map[string][2]int{q: {32, 32}})
	nan := loraFor(map[string][2]int{q: {32, 32}})
	nan[0].Tensor = tensor.FromFloat32(tensor.F32, []int{32, 2}, append(make([]float32, 63), float32(math.NaN())))
	huge := loraFor(map[string][2]int{q: {32, 32}})
	huge[0].Tensor = tensor.FromFloat32(tensor.F32, []int{32, 2}, slices.Repeat([]float32{1e6}, 64))
	broken := filepath.Join(t.TempDir(), "broken.safetensors")
	text, _ := os.ReadFile(path)
	if err := os.WriteFile(broken, text[:len(text)-100], 0o666); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		model   string
		tensors []tensor.Named
		kind    fault.Kind
		words   string
	}{
		"unknown":        {path, append(loraFor(map[string][2]int{"lora_unet_nothing": {4, 4}}), good...), fault.Input, "2 of 4 tensors belong to no layer of the model"},
		"SDXL":           {path, loraFor(map[string][2]int{"lora_te2_text_model_encoder_layers_0_mlp_fc1": {4, 4}, "lora_unet_input_blocks_4_1_proj_in": {4, 4}}), fault.Input, "an SDXL adapter's, the model is SD1"},
		"SD2":            {path, loraFor(map[string][2]int{"lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k": {96, 1024}}), fault.Input, ""},
		"half":           {path, good[:1], fault.Input, "have no partner"},
		"shape":          {path, loraFor(map[string][2]int{q: {32, 48}}), fault.Input, "want [2 32]"},
		"NaN":            {path, nan, fault.Input, "holds 1 NaN"},
		"overflow":       {path, huge, fault.Failed, "which F16 can't hold"},
		"damaged":        {broken, good, fault.Input, "is damaged"},
		"no adapter":     {path, []tensor.Named{{Name: "x", Tensor: good[0].Tensor}}, fault.Input, "is not an adapter"},
		"unknown suffix": {path, append([]tensor.Named{{Name: q + ".lora_extra", Tensor: good[0].Tensor}}, good...), fault.Input, "have a meaning that this version doesn't know"},
	} {
		out := filepath.Join(t.TempDir(), "out.safetensors")
		p, err := merge.Prepare(options(c.model, out, merge.Source{Path: save(t, c.tensors), Weight: 1}))
		if err == nil {
			_, err = p.Run(context.Background(), ref.Open(), nil)
			p.Close()
		}
		if err == nil || fault.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v (%v), want %v with %q", name, err, fault.KindOf(err), c.kind, c.words)
		}
		if left, _ := os.ReadDir(filepath.Dir(out)); len(left) > 0 {
			t.Errorf("%s: left %v", name, left)
		}
	}
	o := options(path, filepath.Join(t.TempDir(), "out.safetensors"), merge.Source{Path: save(t, append(loraFor(map[string][2]int{"lora_unet_nothing": {4, 4}}), good...)), Weight: 1})
	o.AllowUnmatched = true
	if res := run(t, o, ref.Open()); res.Touched != 1 {
		t.Errorf("%d tensors touched, want 1", res.Touched)
	}
}

// TestCancel: a merge that is stopped leaves nothing.
func TestCancel(t *testing.T) {
	path := tiny(t, tinymodel.Options{})
	file := makeAdapter(t, openBase(t, path), &algos.LoRA, algos.Options{Rank: 4})
	for _, layout := range []string{path, tiny(t, tinymodel.Options{Layout: checkpoint.Folder})} {
		out := filepath.Join(t.TempDir(), "out.safetensors")
		p, err := merge.Prepare(options(layout, out, merge.Source{Path: file, Weight: 1}))
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		if _, err := p.Run(ctx, ref.Open(), func(int64) { stop() }); err == nil {
			t.Error("it went on")
		}
		p.Close()
		stop()
		if left, _ := os.ReadDir(filepath.Dir(out)); len(left) > 0 {
			t.Errorf("left %v", left)
		}
	}
}
