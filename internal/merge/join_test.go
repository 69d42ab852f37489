package merge_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lycoris/internal/algos"
	"lycoris/internal/checkpoint"
	"lycoris/internal/fault"
	"lycoris/internal/kernels/ref"
	"lycoris/internal/linalg"
	"lycoris/internal/merge"
	"lycoris/internal/network"
	"lycoris/internal/tensor"
	"lycoris/internal/testutil"
	"lycoris/internal/testutil/tinymodel"
)

// joinOptions returns options with everything at its default.
func joinOptions(out string, adapters ...merge.Source) merge.JoinOptions {
	return merge.JoinOptions{Adapters: adapters, Out: out, UNet: 1, Text: [2]float64{1, 1}, Method: merge.Auto, As: merge.AsConsumer, MaxError: 0.01, Metadata: merge.MetadataMerge, Version: "test"}
}

func join(t testing.TB, o merge.JoinOptions) *merge.JoinReport {
	t.Helper()
	r, err := merge.Join(context.Background(), o, ref.Open(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// changes returns ΔW of an adapter's layers by algos.Change, biases too, times c; to sum it adds what is there already. start is the weight that the first of several adapters left.
func changes(t testing.TB, base *checkpoint.Model, path string, c float64, sum map[string][]float64) map[string][]float64 {
	t.Helper()
	n, err := network.Load(path, base, "", algos.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Start(network.Frozen(base), func() {}); err != nil {
		t.Fatal(err)
	}
	if sum == nil {
		sum = map[string][]float64{}
	}
	add := func(name string, delta []float32) {
		if sum[name] == nil {
			sum[name] = make([]float64, len(delta))
		}
		for i, x := range delta {
			sum[name][i] += c * float64(x)
		}
	}
	eachChange(t, n, base, add)
	return sum
}

// distance returns ‖got − want‖ and ‖want‖ over all layers.
func distance(t testing.TB, got, want map[string][]float64) (d, size float64) {
	t.Helper()
	for name, w := range want {
		g := got[name]
		if g == nil {
			g = make([]float64, len(w))
		}
		for i, x := range w {
			d, size = d+(x-g[i])*(x-g[i]), size+x*x
		}
	}
	for name, g := range got {
		if want[name] == nil && slices.ContainsFunc(g, func(x float64) bool { return x != 0 }) {
			t.Errorf("%s changes and shouldn't", name)
		}
	}
	return math.Sqrt(d), math.Sqrt(size)
}

// forms are modules whose change doesn't depend on the weight, in every form that files have.
func forms(t testing.TB, base *checkpoint.Model) map[string]string {
	files := map[string]string{}
	for name, c := range map[string]struct {
		algo *algos.Algorithm
		o    algos.Options
	}{"lora": {&algos.LoRA, algos.Options{Rank: 4, Alpha: 2}}, "lora wide": {&algos.LoRA, algos.Options{Rank: 13}}, "tucker": {&algos.LoRA, algos.Options{Rank: 3, Alpha: 1, Tucker: true}},
		"loha": {&algos.LoHa, algos.Options{Rank: 2, Alpha: 1}}, "loha tucker": {&algos.LoHa, algos.Options{Rank: 2, Tucker: true}}, "lokr": {&algos.LoKr, algos.Options{Rank: 2, Alpha: 1}},
		"lokr both": {&algos.LoKr, algos.Options{Rank: 1, Alpha: 3, DecomposeBoth: true, Factor: 4}}, "lokr whole": {&algos.LoKr, algos.Options{Rank: 2, FullMatrix: true}},
		"lokr tucker": {&algos.LoKr, algos.Options{Rank: 1, Tucker: true, Factor: 2}}, "full": {&algos.Full, algos.Options{}}, "norm": {&algos.Norm, algos.Options{}}} {
		files[name] = makeAdapter(t, base, c.algo, c.o)
	}
	return files
}

// TestJoinPairs: for every two forms, and each alone, the new adapter's change is the weighted sum of theirs, to the rounding of its float32 factors.
func TestJoinPairs(t *testing.T) {
	path := tiny(t, tinymodel.Options{DType: tensor.F32})
	base := openBase(t, path)
	files := forms(t, base)
	want := map[string]map[string][]float64{}
	for name, file := range files {
		want[name] = changes(t, base, file, 1, nil)
	}
	plus := func(x map[string][]float64, a float64, y map[string][]float64, b float64) map[string][]float64 {
		sum := map[string][]float64{}
		for _, of := range []struct {
			v map[string][]float64
			c float64
		}{{x, a}, {y, b}} {
			for name, v := range of.v {
				if sum[name] == nil {
					sum[name] = make([]float64, len(v))
				}
				for i, e := range v {
					sum[name][i] += of.c * e
				}
			}
		}
		return sum
	}
	for x := range files {
		for y := range files {
			if x > y {
				continue
			}
			o := joinOptions(filepath.Join(t.TempDir(), "out.safetensors"), merge.Source{Path: files[x], Weight: 0.7}, merge.Source{Path: files[y], Weight: -1.3})
			o.Method = merge.Concat
			r := join(t, o)
			d, size := distance(t, changes(t, base, o.Out, 1, nil), plus(want[x], 0.7, want[y], -1.3))
			if d > 1e-6*size {
				t.Errorf("%s and %s: off by %g of %g", x, y, d, size)
			}
			for _, l := range r.Layers {
				if l.Error != 0 {
					t.Errorf("%s and %s: %s lacks %g", x, y, l.Name, l.Error)
				}
			}
		}
		for _, c := range []float64{1, -0.4} {
			o := joinOptions(filepath.Join(t.TempDir(), "out.safetensors"), merge.Source{Path: files[x], Weight: c})
			r := join(t, o)
			if d, size := distance(t, changes(t, base, o.Out, 1, nil), plus(want[x], c, nil, 0)); d > 1e-6*size {
				t.Errorf("%s alone at %g: off by %g of %g", x, c, d, size)
			}
			if n := r.Count(merge.DidKeep); n != len(r.Layers) {
				t.Errorf("%s alone: %d of %d layers kept", x, n, len(r.Layers))
			}
		}
	}
	// Three at once, one of them with layers of its own.
	o := joinOptions(filepath.Join(t.TempDir(), "out.safetensors"), merge.Source{Path: files["lora"], Weight: 1}, merge.Source{Path: files["loha"], Weight: 2}, merge.Source{Path: files["norm"], Weight: -1})
	join(t, o)
	if d, size := distance(t, changes(t, base, o.Out, 1, nil), plus(plus(want["lora"], 1, want["loha"], 2), 1, want["norm"], -1)); d > 1e-6*size {
		t.Errorf("three: off by %g of %g", d, size)
	}
}

// TestJoinRanks: side by side while there are few ranks, never more than the layer has, else the nearest of fewer, whose told error is the true one and the least there is.
func TestJoinRanks(t *testing.T) {
	path := tiny(t, tinymodel.Options{DType: tensor.F32})
	base := openBase(t, path)
	one, two := makeAdapter(t, base, &algos.LoRA, algos.Options{Rank: 24, Alpha: 24}), makeAdapter(t, base, &algos.LoRA, algos.Options{Rank: 20, Alpha: 5})
	sources := []merge.Source{{Path: one, Weight: 0.5}, {Path: two, Weight: -2}}
	want := changes(t, base, two, -2, changes(t, base, one, 0.5, nil))
	o := joinOptions(filepath.Join(t.TempDir(), "out.safetensors"), sources...)
	for _, l := range join(t, o).Layers {
		if l.Rank > 44 || l.Rank < 12 || l.Error != 0 {
			t.Errorf("%s: rank %d, error %g", l.Name, l.Rank, l.Error)
		}
	}
	for name, tensors := range testutil.Tensors(t, o.Out) { // [O,R]
		if strings.HasSuffix(name, "lora_up.weight") && tensors.Shape[1] > tensors.Shape[0] {
			t.Errorf("%s has shape %v: more ranks than outputs", name, tensors.Shape)
		}
		if strings.HasSuffix(name, "alpha") && !strings.HasPrefix(name, "bundle") {
			up := testutil.Tensors(t, o.Out)[strings.TrimSuffix(name, "alpha")+"lora_up.weight"]
			if float64(tensors.Float32()[0]) != float64(up.Shape[1]) {
				t.Errorf("%s is %v beside rank %d", name, tensors.Float32(), up.Shape[1])
			}
		}
	}
	if d, size := distance(t, changes(t, base, o.Out, 1, nil), want); d > 1e-6*size {
		t.Errorf("off by %g of %g", d, size)
	}
	for name, set := range map[string]func(*merge.JoinOptions){"dim": func(o *merge.JoinOptions) { o.Dim = 5 }, "svd": func(o *merge.JoinOptions) { o.Method, o.Dim = merge.SVD, 3 },
		"error": func(o *merge.JoinOptions) { o.Method, o.MaxError = merge.SVD, 0.2 }, "auto": func(o *merge.JoinOptions) { o.MaxDim, o.MaxError = 30, 0.3 }} {
		o := joinOptions(filepath.Join(t.TempDir(), "out.safetensors"), sources...)
		set(&o)
		r := join(t, o)
		got := changes(t, base, o.Out, 1, nil)
		d, size := distance(t, got, want)
		total, worst, most := r.Error()
		if math.Abs(d-total*size) > 1e-5*size || total == 0 {
			t.Errorf("%s: told error %g, true %g", name, total, d/size)
		}
		if o.Dim == 0 && (most > o.MaxError || most < o.MaxError/4) {
			t.Errorf("%s: the worst layer lacks %g", name, most)
		}
		for _, l := range r.Layers {
			if o.Dim > 0 && l.Rank != o.Dim {
				t.Errorf("%s: %s has rank %d", name, l.Name, l.Rank)
			}
		}
		// The least that a matrix of that rank can lack (Eckart and Young, 1936).
		for path, w := range want {
			target := network.Targets(base)
			for _, x := range target {
				if x.Path+".weight" != path || x.Name != worst.Name {
					continue
				}
				_, s, _ := linalg.SVD(append([]float64(nil), w...), x.Shape[0], tensor.Elems(x.Shape[1:]))
				var rest float64
				for _, v := range s[min(worst.Rank, len(s)):] {
					rest += v * v
				}
				if least := math.Sqrt(rest); math.Abs(least-worst.Error) > 1e-5*worst.Norm {
					t.Errorf("%s: %s lacks %g, the least is %g", name, worst.Name, worst.Error, least)
				}
			}
		}
	}
	// A whole difference as the nearest LoRA: the told error is the true one, by rank and by error.
	full := makeAdapter(t, base, &algos.LoKr, algos.Options{Rank: 4, FullMatrix: true})
	for _, set := range []func(*merge.JoinOptions){func(o *merge.JoinOptions) { o.Dim = 6 }, func(o *merge.JoinOptions) { o.Method, o.MaxError = merge.SVD, 0.5 }} {
		o := joinOptions(filepath.Join(t.TempDir(), "out.safetensors"), merge.Source{Path: full, Weight: 1}, merge.Source{Path: two, Weight: 0.3})
		set(&o)
		r := join(t, o)
		d, size := distance(t, changes(t, base, o.Out, 1, nil), changes(t, base, two, 0.3, changes(t, base, full, 1, nil)))
		if total, _, _ := r.Error(); math.Abs(d-total*size) > 1e-5*size || total == 0 {
			t.Errorf("whole: told error %g, true %g", total, d/size)
		}
	}
}

// TestJoinKron: products with the same left factor, bit for bit, stay Kronecker products.
func TestJoinKron(t *testing.T) {
	path := tiny(t, tinymodel.Options{DType: tensor.F32})
	base := openBase(t, path)
	for name, o := range map[string]algos.Options{"whole": {Rank: 2, FullMatrix: true}, "split": {Rank: 2, Alpha: 1, Factor: 2}} {
		one := makeAdapter(t, base, &algos.LoKr, o)
		var again []tensor.Named
		for n, v := range testutil.Tensors(t, one) {
			if !strings.HasSuffix(n, "lokr_w1") && !strings.HasSuffix(n, "alpha") {
				x := v.Float32()
				for i := range x {
					x[i] = x[i]*x[i] - 0.1
				}
				v = tensor.FromFloat32(tensor.F32, v.Shape, x)
			}
			again = append(again, tensor.Named{Name: n, Tensor: v})
		}
		two := save(t, again)
		j := joinOptions(filepath.Join(t.TempDir(), "out.safetensors"), merge.Source{Path: one, Weight: 2}, merge.Source{Path: two, Weight: -0.5})
		r := join(t, j)
		kron := 0
		for _, l := range r.Layers {
			if l.Algorithm == "lokr" {
				kron++
			}
		}
		if kron < 4 {
			t.Errorf("%s: %d layers are Kronecker products", name, kron)
		}
		if d, size := distance(t, changes(t, base, j.Out, 1, nil), changes(t, base, two, -0.5, changes(t, base, one, 2, nil))); d > 1e-6*size {
			t.Errorf("%s: off by %g of %g", name, d, size)
		}
	}
}

// TestJoinOnBase: what depends on the weight is kept alone at weight 1, needs the model else, and with it acts as the adapters do one after the other.
func TestJoinOnBase(t *testing.T) {
	path := tiny(t, tinymodel.Options{DType: tensor.F32})
	base := openBase(t, path)
	lora := makeAdapter(t, base, &algos.LoRA, algos.Options{Rank: 4})
	for name, c := range map[string]struct {
		algo *algos.Algorithm
		o    algos.Options
	}{"dora": {&algos.LoRA, algos.Options{Rank: 4, DoRA: "out"}}, "diag-oft": {&algos.DiagOFT, algos.Options{Rank: 4}}, "boft": {&algos.BOFT, algos.Options{Rank: 8}}, "glora": {&algos.GLoRA, algos.Options{Rank: 4}},
		"ia3": {&algos.IA3, algos.Options{}}, "tlora": {&algos.TLoRA, algos.Options{Rank: 4}}} {
		file := makeAdapter(t, base, c.algo, c.o)
		alone := joinOptions(filepath.Join(t.TempDir(), "out.safetensors"), merge.Source{Path: file, Weight: 1})
		join(t, alone)
		if d, size := distance(t, changes(t, base, alone.Out, 1, nil), changes(t, base, file, 1, nil)); d != 0 || size == 0 {
			t.Errorf("%s alone: off by %g of %g", name, d, size)
		}
		o := joinOptions(filepath.Join(t.TempDir(), "out.safetensors"), merge.Source{Path: file, Weight: 0.6}, merge.Source{Path: lora, Weight: 0.5})
		if _, err := merge.Join(context.Background(), o, ref.Open(), nil); fault.KindOf(err) != fault.Usage || !strings.Contains(err.Error(), "depends on what their weight is") {
			t.Errorf("%s without a model: %v", name, err)
		}
		o.Method, o.Model = merge.OnBase, path
		join(t, o)
		there, both := filepath.Join(t.TempDir(), "there.safetensors"), filepath.Join(t.TempDir(), "both.safetensors")
		run(t, options(path, there, merge.Source{Path: o.Out, Weight: 1}), ref.Open())
		run(t, options(path, both, o.Adapters...), ref.Open())
		x, y, before := testutil.Tensors(t, there), testutil.Tensors(t, both), testutil.Tensors(t, path)
		var d, size float64
		for n := range y {
			a, b, w := x[n].Float32(), y[n].Float32(), before[n].Float32()
			for i := range a {
				d, size = d+math.Pow(float64(a[i])-float64(b[i]), 2), size+math.Pow(float64(b[i])-float64(w[i]), 2)
			}
		}
		if d = math.Sqrt(d / size); d > 2e-6 || size == 0 {
			t.Errorf("%s: off by %g", name, d)
		}
	}
}

// TestJoinIA3: factors of one axis multiply.
func TestJoinIA3(t *testing.T) {
	base := openBase(t, tiny(t, tinymodel.Options{DType: tensor.F32}))
	file := makeAdapter(t, base, &algos.IA3, algos.Options{})
	o := joinOptions(filepath.Join(t.TempDir(), "out.safetensors"), merge.Source{Path: file, Weight: 0.5}, merge.Source{Path: file, Weight: -2})
	join(t, o)
	got, one := testutil.Tensors(t, o.Out), testutil.Tensors(t, file)
	checked := 0
	for name, v := range one {
		if !strings.HasSuffix(name, ".weight") {
			continue
		}
		x, y := v.Float32(), got[name].Float32()
		for i := range x {
			w := float64(x[i])
			if want := (1+0.5*w)*(1-2*w) - 1; math.Abs(float64(y[i])-want) > 1e-7*math.Abs(want)+1e-9 {
				t.Fatalf("%s[%d]: %g, want %g", name, i, y[i], want)
			}
			checked++
		}
	}
	if checked == 0 {
		t.Error("nothing checked")
	}
	in := makeAdapter(t, base, &algos.IA3, algos.Options{OnInput: true})
	o.Adapters[1].Path, o.Out = in, filepath.Join(t.TempDir(), "out.safetensors")
	if _, err := merge.Join(context.Background(), o, ref.Open(), nil); err == nil || !strings.Contains(err.Error(), "scales inputs in one adapter and outputs in another") {
		t.Errorf("two axes: %v", err)
	}
}

// TestJoinWeights: parts, blocks and an adapter's own weights multiply; names of diffusers and kohya meet; the finest element type is kept.
func TestJoinWeights(t *testing.T) {
	path := tiny(t, tinymodel.Options{DType: tensor.F32})
	base := openBase(t, path)
	file := makeAdapter(t, base, &algos.LoRA, algos.Options{Rank: 2, Alpha: 1})
	var dotted []tensor.Named
	for _, x := range network.Targets(base) {
		tensors := testutil.Tensors(t, file)
		down, ok := tensors[x.Name+".lora_down.weight"]
		if !ok {
			continue
		}
		up := tensors[x.Name+".lora_up.weight"]
		dotted = append(dotted, tensor.Named{Name: x.Path + ".lora_A.weight", Tensor: tensor.FromFloat32(tensor.F16, down.Shape, down.Float32())},
			tensor.Named{Name: x.Path + ".lora_B.weight", Tensor: tensor.FromFloat32(tensor.F16, up.Shape, up.Float32())})
	}
	two := save(t, dotted) // no alpha: twice the scale
	blocks, err := merge.ParseBlocks("IN01=0.5,MID=0")
	if err != nil {
		t.Fatal(err)
	}
	half := 0.5
	o := joinOptions(filepath.Join(t.TempDir(), "out.safetensors"), merge.Source{Path: file, Weight: 2, Blocks: blocks}, merge.Source{Path: two, Weight: 1, Text: [2]*float64{&half, &half}})
	r := join(t, o)
	if r.Adapters[0].LeftOut != 1 || r.Adapters[1].LeftOut != 0 {
		t.Errorf("left out %d and %d, want 1 and 0", r.Adapters[0].LeftOut, r.Adapters[1].LeftOut)
	}
	want := map[string][]float64{}
	second := changes(t, base, two, 1, nil)
	for name, v := range changes(t, base, file, 1, nil) {
		c1, c2 := 2.0, 1.0
		switch {
		case strings.Contains(name, "mid_block"):
			c1 = 0
		case strings.Contains(name, "down_blocks.0.attentions.0"):
			c1 = 1
		case strings.HasPrefix(name, "text_encoder"):
			c2 = 0.5
		}
		want[name] = make([]float64, len(v))
		for i := range v {
			want[name][i] = c1*v[i] + c2*second[name][i]
		}
	}
	if d, size := distance(t, changes(t, base, o.Out, 1, nil), want); d > 1e-6*size {
		t.Errorf("off by %g of %g", d, size)
	}
	for name, v := range testutil.Tensors(t, o.Out) {
		if !strings.HasPrefix(name, "lora_") || v.DType != tensor.F32 && !strings.Contains(name, "mid_block") {
			t.Errorf("%s is %s", name, v.DType)
		}
	}
	o.Parts, o.Out = []string{"unet"}, filepath.Join(t.TempDir(), "out.safetensors")
	for _, l := range join(t, o).Layers {
		if strings.HasPrefix(l.Name, "lora_te") {
			t.Errorf("%s is there", l.Name)
		}
	}
}

// TestJoinMetadata: what adapters agree on stays, tags are added up, the form and the hashes are the new ones, and the history tells how.
func TestJoinMetadata(t *testing.T) {
	modules := loraFor(map[string][2]int{"lora_unet_mid_block_attentions_0_proj_in": {16, 16}})
	files := make([]string, 2)
	for i := range files {
		files[i] = filepath.Join(t.TempDir(), fmt.Sprintf("a%d.safetensors", i))
		meta := map[string]string{"ss_v2": "False", "ss_sd_model_name": "base", "ss_seed": fmt.Sprint(i), "ss_tag_frequency": fmt.Sprintf(`{"cat":{"cat":%d,"red %d":1}}`, 2+i, i), "ss_network_dim": "99",
			"ss_dataset_dirs": `{"1_cat":{"n_repeats":1,"img_count":4}}`, "modelspec.sai_model_spec": "1.0.1", "modelspec.hash_sha256": "0xold"}
		if err := tensor.WriteFile(files[i], modules, meta); err != nil {
			t.Fatal(err)
		}
	}
	o := joinOptions(filepath.Join(t.TempDir(), "both.safetensors"), merge.Source{Path: files[0], Weight: 1}, merge.Source{Path: files[1], Weight: 0.5})
	join(t, o)
	f, err := tensor.OpenFile(o.Out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	meta := f.Metadata()
	hash, err := tensor.HashFileData(f)
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"ss_sd_model_name": "base", "ss_seed": "", "ss_tag_frequency": `{"cat":{"cat":5,"red 0":1,"red 1":1}}`, "ss_dataset_dirs": `{"1_cat":{"img_count":8,"n_repeats":1}}`,
		"ss_network_dim": "4", "ss_network_alpha": "4", "ss_network_module": "networks.lora", "ss_network_args": "{}", "ss_base_model_version": "sd_v1", "ss_output_name": "both", "modelspec.title": "both",
		"modelspec.merged_from": "a0, a1", "sshs_model_hash": hash, "modelspec.hash_sha256": "0x" + hash} {
		if meta[key] != want {
			t.Errorf("%s is %q, want %q", key, meta[key], want)
		}
	}
	var history []map[string]any
	if err := json.Unmarshal([]byte(meta["lycoris.history"]), &history); err != nil || len(history) != 1 || strings.Contains(meta["lycoris.history"], filepath.Dir(files[0])) {
		t.Errorf("history %s (%v)", meta["lycoris.history"], err)
	}
	o.Metadata, o.Out = merge.MetadataFirst, filepath.Join(t.TempDir(), "both.safetensors")
	join(t, o)
	first, _ := tensor.OpenFile(o.Out)
	defer first.Close()
	if m := first.Metadata(); m["ss_seed"] != "0" || m["ss_network_dim"] != "4" {
		t.Errorf("metadata of the first: %v", m)
	}
	o.Metadata, o.Out = merge.MetadataNone, filepath.Join(t.TempDir(), "both.safetensors")
	join(t, o)
	none, _ := tensor.OpenFile(o.Out)
	defer none.Close()
	if len(none.Metadata()) != 0 {
		t.Errorf("metadata %v, want none", none.Metadata())
	}
}

// TestJoinRefusals: adapters that don't fit each other are input errors that say why, and leave nothing.
func TestJoinRefusals(t *testing.T) {
	q := "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
	sd1, sd2 := save(t, loraFor(map[string][2]int{q: {320, 768}})), save(t, loraFor(map[string][2]int{q: {320, 1024}}))
	xl := save(t, loraFor(map[string][2]int{"lora_te2_text_model_encoder_layers_0_mlp_fc1": {4, 4}}))
	text1, text2 := save(t, loraFor(map[string][2]int{"lora_te_text_model_encoder_layers_0_mlp_fc1": {8, 8}})), save(t, loraFor(map[string][2]int{"lora_te_text_model_encoder_layers_0_mlp_fc1": {8, 12}}))
	v2 := filepath.Join(t.TempDir(), "v2.safetensors")
	if err := tensor.WriteFile(v2, loraFor(map[string][2]int{q: {320, 768}}), map[string]string{"ss_v2": "True"}); err != nil {
		t.Fatal(err)
	}
	v1 := filepath.Join(t.TempDir(), "v1.safetensors")
	if err := tensor.WriteFile(v1, loraFor(map[string][2]int{q: {320, 768}}), map[string]string{"ss_v2": "False"}); err != nil {
		t.Fatal(err)
	}
	huge := loraFor(map[string][2]int{q: {320, 768}})
	for i := range huge {
		x := huge[i].Float32()
		for n := range x {
			x[n] *= 1e6
		}
		huge[i].Tensor = tensor.FromFloat32(tensor.F32, huge[i].Shape, x)
	}
	for name, c := range map[string]struct {
		one, two string
		d        tensor.DType
		kind     fault.Kind
		words    string
	}{"SD1 and SD2": {sd1, sd2, 0, fault.Input, "is for Stable Diffusion 2.x (1 modules)"}, "SD1 and SDXL": {sd1, xl, 0, fault.Input, "is for Stable Diffusion XL (1 modules)"},
		"widths": {text1, text2, 0, fault.Input, "is made for a weight of shape [8 12]"}, "metadata": {v1, v2, 0, fault.Input, "say ss_v2 True"}, "overflow": {save(t, huge), sd1, tensor.F16, fault.Failed, "which F16 can't hold"}} {
		out := filepath.Join(t.TempDir(), "out.safetensors")
		o := joinOptions(out, merge.Source{Path: c.one, Weight: 1}, merge.Source{Path: c.two, Weight: 1})
		o.DType = c.d
		_, err := merge.Join(context.Background(), o, ref.Open(), nil)
		if err == nil || fault.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v (%v), want %v with %q", name, err, fault.KindOf(err), c.kind, c.words)
		}
		if left, _ := filepath.Glob(filepath.Join(filepath.Dir(out), "*")); len(left) > 0 {
			t.Errorf("%s: left %v", name, left)
		}
	}
	o := joinOptions(filepath.Join(t.TempDir(), "out.safetensors"), merge.Source{Path: sd1, Weight: 0})
	if _, err := merge.Join(context.Background(), o, ref.Open(), nil); err == nil || !strings.Contains(err.Error(), "nothing is left") {
		t.Errorf("weight 0: %v", err)
	}
}
