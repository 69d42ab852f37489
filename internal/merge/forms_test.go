package merge_test

import (
	"context"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lycoris/internal/algos"
	"lycoris/internal/checkpoint"
	"lycoris/internal/fault"
	"lycoris/internal/kernels/ref"
	"lycoris/internal/merge"
	"lycoris/internal/tensor"
	"lycoris/internal/testutil"
	"lycoris/internal/testutil/tinymodel"
)

const (
	toQ    = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
	toQLDM = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
)

// refused wants a merge to end with an error of the kind that says words, and to leave nothing.
func refused(t *testing.T, name string, o merge.Options, kind fault.Kind, words string) {
	t.Helper()
	o.Out = filepath.Join(t.TempDir(), "out.safetensors")
	p, err := merge.Prepare(o)
	if err == nil {
		_, err = p.Run(context.Background(), ref.Open(), nil)
		p.Close()
	}
	if err == nil || fault.KindOf(err) != kind || !strings.Contains(err.Error(), words) {
		t.Errorf("%s: %v (%v), want %v with %q", name, err, fault.KindOf(err), kind, words)
	}
	if left, _ := os.ReadDir(filepath.Dir(o.Out)); len(left) > 0 {
		t.Errorf("%s: left %v", name, left)
	}
}

// TestVariant: of a folder with two forms of its weights the one that is named is merged and is all that the new folder has; a component without it takes the usual one, the UNet must have it.
func TestVariant(t *testing.T) {
	path := tiny(t, tinymodel.Options{Layout: checkpoint.Folder})
	weights := testutil.Tensors(t, filepath.Join(path, "unet", "diffusion_pytorch_model.safetensors"))
	var other []tensor.Named
	for name, v := range weights {
		x := v.Float32()
		for i := range x {
			x[i] *= 0.5
		}
		other = append(other, tensor.Named{Name: name, Tensor: tensor.FromFloat32(v.DType, v.Shape, x)})
	}
	if err := tensor.WriteFile(filepath.Join(path, "unet", "diffusion_pytorch_model.fp16.safetensors"), other, nil); err != nil {
		t.Fatal(err)
	}
	a := save(t, loraFor(map[string][2]int{toQ: {32, 32}, "lora_te_text_model_encoder_layers_0_mlp_fc1": {64, 32}}))
	if got := testutil.Tensors(t, filepath.Join(path, "text_encoder", "model.safetensors"))["text_model.encoder.layers.0.mlp.fc1.weight"].Shape; got[0] != 64 || got[1] != 32 {
		a = save(t, loraFor(map[string][2]int{toQ: {32, 32}, "lora_te_text_model_encoder_layers_0_mlp_fc1": {got[0], got[1]}}))
	}
	o := options(path, filepath.Join(t.TempDir(), "out"), merge.Source{Path: a, Weight: 0.5})
	o.Variant = "fp16"
	run(t, o, ref.Open())
	files, _ := filepath.Glob(filepath.Join(o.Out, "unet", "*.safetensors"))
	if len(files) != 1 || filepath.Base(files[0]) != "diffusion_pytorch_model.fp16.safetensors" {
		t.Fatalf("the new UNet has %v", files)
	}
	if _, err := os.Stat(filepath.Join(o.Out, "text_encoder", "model.safetensors")); err != nil {
		t.Error(err)
	}
	got, lora := testutil.Tensors(t, files[0]), testutil.Tensors(t, a)
	name := "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight"
	up, down, w := lora[toQ+".lora_up.weight"].Float32(), lora[toQ+".lora_down.weight"].Float32(), weights[name].Float32()
	for i, v := range got[name].Float32() {
		half := float64(tensor.F16ToFloat32(tensor.Float32ToF16(w[i] * 0.5)))
		want := half + 0.5*(float64(up[i/32*2])*float64(down[i%32])+float64(up[i/32*2+1])*float64(down[32+i%32]))
		if want := tensor.F16ToFloat32(tensor.Float64ToF16(want)); v != want {
			t.Fatalf("[%d]: %g, want %g", i, v, want)
		}
	}
	o.Variant = "bf16"
	refused(t, "no such variant", o, fault.Input, `has no files of the variant "bf16"; it has: fp16`)
	o.Variant = "../x"
	refused(t, "no name", o, fault.Usage, "is not a name")
	o.Model, o.Variant = tiny(t, tinymodel.Options{}), "fp16"
	refused(t, "a file", o, fault.Usage, "has no variants")
}

// TestVAEDType: the VAE changes its type by its own option alone, in a file and in a folder.
func TestVAEDType(t *testing.T) {
	a := save(t, loraFor(map[string][2]int{toQ: {32, 32}}))
	for _, path := range []string{tiny(t, tinymodel.Options{}), tiny(t, tinymodel.Options{Layout: checkpoint.Folder})} {
		o := options(path, filepath.Join(t.TempDir(), "out.safetensors"), merge.Source{Path: a, Weight: 0.5})
		o.VAEDType, o.DType = tensor.BF16, tensor.F32
		run(t, o, ref.Open())
		files := []string{o.Out}
		if stat, _ := os.Stat(o.Out); stat.IsDir() {
			files, _ = filepath.Glob(filepath.Join(o.Out, "*", "*.safetensors"))
		}
		vae, rest := 0, 0
		for _, file := range files {
			for name, v := range testutil.Tensors(t, file) {
				switch {
				case strings.HasPrefix(name, "first_stage_model.") || filepath.Base(filepath.Dir(file)) == "vae":
					if vae++; v.DType != tensor.BF16 {
						t.Fatalf("%s is %s", name, v.DType)
					}
				case v.DType == tensor.BF16:
					t.Fatalf("%s is %s", name, v.DType)
				default:
					rest++
				}
			}
		}
		if vae < 50 || rest < 100 {
			t.Errorf("%d tensors of the VAE, %d others", vae, rest)
		}
	}
}

// TestSaturate: values beyond the element type's end become its largest and are counted; all others are what they are without it.
func TestSaturate(t *testing.T) {
	path := tiny(t, tinymodel.Options{})
	huge := loraFor(map[string][2]int{toQ: {32, 32}})
	up := huge[0].Float32()
	for i := range up {
		up[i] *= 30000
	}
	huge[0].Tensor = tensor.FromFloat32(tensor.F32, huge[0].Shape, up)
	o := options(path, filepath.Join(t.TempDir(), "out.safetensors"), merge.Source{Path: save(t, huge), Weight: 1})
	refused(t, "overflow", o, fault.Failed, "which F16 can't hold")
	o.Saturate = true
	res := run(t, o, ref.Open())
	w, got, down := testutil.Tensors(t, path)[toQLDM].Float32(), testutil.Tensors(t, o.Out)[toQLDM].Float32(), huge[1].Float32()
	clamped := 0
	for i := range got {
		v := float64(w[i]) + float64(up[i/32*2])*float64(down[i%32]) + float64(up[i/32*2+1])*float64(down[32+i%32])
		want := tensor.F16ToFloat32(tensor.Float64ToF16(v))
		if math.IsInf(float64(want), 0) {
			clamped++
			want = float32(math.Copysign(65504, v))
		}
		if got[i] != want {
			t.Fatalf("[%d]: %g, want %g", i, got[i], want)
		}
	}
	if clamped == 0 || clamped == len(got) || res.Clamped != clamped {
		t.Errorf("%d values clamped, told %d", clamped, res.Clamped)
	}
}

// TestEightBit: weights of eight bits, with scales or without, are read exactly and written in the type that is named; without one they are refused.
func TestEightBit(t *testing.T) {
	path := tiny(t, tinymodel.Options{})
	a := save(t, loraFor(map[string][2]int{toQ: {32, 32}}))
	lora := testutil.Tensors(t, a)
	up, down := lora[toQ+".lora_up.weight"].Float32(), lora[toQ+".lora_down.weight"].Float32()
	for _, d := range []tensor.DType{tensor.F8E4M3, tensor.F8E5M2} {
		for _, scale := range []float64{1, 0.0625, 0.7} {
			var all []tensor.Named
			codes := map[string][]byte{}
			factor := float64(float32(scale))
			model := testutil.Tensors(t, path)
			for i, name := range sortedNames(model) {
				v := model[name]
				if strings.HasPrefix(name, "model.diffusion_model.") && len(v.Shape) == 2 {
					code := make([]byte, tensor.Elems(v.Shape))
					for n := range code {
						code[n] = byte((n*37 + i) % 0x70)
						if n%3 == 0 {
							code[n] |= 0x80
						}
					}
					v, codes[name] = tensor.Tensor{DType: d, Shape: v.Shape, Data: code}, code
					if scale != 1 {
						all = append(all, tensor.Named{Name: strings.TrimSuffix(name, "weight") + "scale_weight", Tensor: tensor.FromFloat32(tensor.F32, nil, []float32{float32(scale)})})
					}
				}
				all = append(all, tensor.Named{Name: name, Tensor: v})
			}
			if scale != 1 {
				all = append(all, tensor.Named{Name: "scaled_fp8", Tensor: tensor.Tensor{DType: d, Shape: []int{2}, Data: []byte{0, 0}}})
			}
			base := filepath.Join(t.TempDir(), "eight.safetensors")
			write(t, base, all)
			o := options(base, filepath.Join(t.TempDir(), "out.safetensors"), merge.Source{Path: a, Weight: 0.5})
			words := "in which most changes vanish"
			if scale != 1 {
				words = "eight-bit codes with scales"
			}
			refused(t, d.String()+" kept", o, fault.Input, words)
			o.DType = tensor.F16
			if d == tensor.F8E5M2 { // whose largest are beyond half of F16's
				o.DType = tensor.F32
			}
			run(t, o, ref.Open())
			got := testutil.Tensors(t, o.Out)
			for name, v := range got {
				if strings.Contains(name, "scale") && strings.Contains(name, "weight") || name == "scaled_fp8" || v.DType.IsF8() {
					t.Fatalf("%s is still there (%s)", name, v.DType)
				}
			}
			for name, code := range codes {
				values := got[name].Float32()
				for i, c := range code {
					want := float64(tensor.F8Values(d)[c]) * factor
					if name == toQLDM {
						want += 0.5 * (float64(up[i/32*2])*float64(down[i%32]) + float64(up[i/32*2+1])*float64(down[32+i%32]))
					}
					stored := float32(want)
					if o.DType == tensor.F16 {
						stored = tensor.F16ToFloat32(tensor.Float64ToF16(want))
					}
					if off := math.Abs(float64(values[i] - stored)); off > 0 && (name != toQLDM || off > math.Abs(want)*0x1p-22+1e-6) {
						t.Fatalf("%s %s[%d]: %g, want %g", d, name, i, values[i], stored)
					}
				}
			}
		}
	}
}

func sortedNames(m map[string]tensor.Tensor) []string {
	var names []string
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// write writes tensors of any type, eight-bit ones too.
func write(t *testing.T, path string, all []tensor.Named) {
	t.Helper()
	var slots []tensor.Slot
	var data []byte
	for _, v := range all {
		slots, data = append(slots, tensor.Slot{Name: v.Name, DType: v.DType, Shape: v.Shape}), append(data, v.Data...)
	}
	err := tensor.WritePlaced(path, slots, nil, func(w io.WriterAt) error { _, err := w.WriteAt(data, 0); return err })
	if err != nil {
		t.Fatal(err)
	}
}

// TestEmbeddings: what is bundled with an adapter is written out under its names; nothing is overwritten.
func TestEmbeddings(t *testing.T) {
	path := tiny(t, tinymodel.Options{})
	vector := tensor.FromFloat32(tensor.F32, []int{2, 4}, []float32{1, 2, 3, 4, 5, 6, 7, 8})
	tensors := append(loraFor(map[string][2]int{toQ: {32, 32}}), tensor.Named{Name: "bundle_emb.cat.string_to_param.*", Tensor: vector}, tensor.Named{Name: "bundle_emb.dog.clip_l", Tensor: vector},
		tensor.Named{Name: "bundle_emb.dog.clip_g", Tensor: vector})
	folder := filepath.Join(t.TempDir(), "emb")
	o := options(path, filepath.Join(t.TempDir(), "out.safetensors"), merge.Source{Path: save(t, tensors), Weight: 1})
	o.Embeddings = folder
	if res := run(t, o, ref.Open()); len(res.Emitted) != 2 {
		t.Errorf("wrote %v", res.Emitted)
	}
	for file, keys := range map[string][]string{"cat": {"emb_params"}, "dog": {"clip_g", "clip_l"}} {
		got := testutil.Tensors(t, filepath.Join(folder, file+".safetensors"))
		if !slices.Equal(sortedNames(got), keys) || string(got[keys[0]].Data) != string(vector.Data) {
			t.Errorf("%s holds %v", file, sortedNames(got))
		}
	}
	refused(t, "there already", o, fault.Output, "exists already")
	for _, name := range []string{"bundle_emb...x", "bundle_emb.a/b.x", "bundle_emb.a"} {
		o.Adapters[0].Path = save(t, append(loraFor(map[string][2]int{toQ: {32, 32}}), tensor.Named{Name: name, Tensor: vector}))
		refused(t, name, o, fault.Input, "is not the name of a bundled embedding")
	}
}

// TestLoss: what storing takes of a change is told as it is: little in F16, much in BF16 where the change is small.
func TestLoss(t *testing.T) {
	for _, c := range []struct {
		d        tensor.DType
		size     float64 // of the change, by the weights'
		min, max float64
	}{{tensor.F16, 0.1, 0.001, 0.004}, {tensor.BF16, 0.01, 0.1, 0.25}, {tensor.BF16, 0.003, 0.35, 0.6}, {tensor.F32, 0.01, 0, 1e-5}} {
		path := tiny(t, tinymodel.Options{DType: c.d})
		w := testutil.Tensors(t, path)[toQLDM].Float32()
		lora := loraFor(map[string][2]int{toQ: {32, 32}})
		up, down := lora[0].Float32(), lora[1].Float32()
		var size, change float64
		for i, v := range w {
			x := float64(up[i/32*2])*float64(down[i%32]) + float64(up[i/32*2+1])*float64(down[32+i%32])
			size, change = size+float64(v)*float64(v), change+x*x
		}
		weight := c.size * math.Sqrt(size/change)
		o := options(path, filepath.Join(t.TempDir(), "out.safetensors"), merge.Source{Path: save(t, lora), Weight: weight})
		res := run(t, o, ref.Open())
		var lost float64
		for i, v := range testutil.Tensors(t, o.Out)[toQLDM].Float32() {
			exact := float64(w[i]) + weight*(float64(up[i/32*2])*float64(down[i%32])+float64(up[i/32*2+1])*float64(down[32+i%32]))
			lost += (float64(v) - exact) * (float64(v) - exact)
		}
		truth := math.Sqrt(lost/change) / weight
		if truth < c.min || truth > c.max || math.Abs(res.Loss-truth) > 0.3*truth+1e-7 { // told from two rows of 32
			t.Errorf("%s, change %g: told %g, true %g, want %g to %g", c.d, c.size, res.Loss, truth, c.min, c.max)
		}
		if math.Abs(res.Change-c.size) > 0.5*c.size {
			t.Errorf("%s: told a change of %g, it is %g", c.d, res.Change, c.size)
		}
	}
}

// TestPeers: what other programs' merges do wrong (the reference tools page, 1.8), each by its number there.
func TestPeers(t *testing.T) {
	path := tiny(t, tinymodel.Options{DType: tensor.F32})
	base := openBase(t, path)
	// 1, 3: the scale acts once; no algorithm is passed over.
	for name, c := range map[string]struct {
		algo *algos.Algorithm
		o    algos.Options
	}{"loha": {&algos.LoHa, algos.Options{Rank: 4, Alpha: 2}}, "lokr": {&algos.LoKr, algos.Options{Rank: 2, Alpha: 1, Factor: 2}}, "tucker": {&algos.LoRA, algos.Options{Rank: 4, Alpha: 2, Tucker: true}}, "full": {&algos.Full, algos.Options{}},
		"dora": {&algos.LoRA, algos.Options{Rank: 4, Alpha: 2, DoRA: "out"}}, "ia3": {&algos.IA3, algos.Options{}}} {
		file := makeAdapter(t, base, c.algo, c.o)
		o := options(path, filepath.Join(t.TempDir(), "out.safetensors"), merge.Source{Path: file, Weight: 1})
		if res := run(t, o, ref.Open()); res.Touched == 0 {
			t.Errorf("%s: nothing is merged", name)
		}
		wantTensors(t, base, openBase(t, o.Out), byDefinition(t, base, file, 1, 1), 1e-6)
	}
	// 5, 6, 9: the element types, the order, metadata, markers, strangers and the VAE stay; the prediction type is the base's, or that of its mark, and else isn't said.
	stranger := tensor.Named{Name: "my.own.tensor", Tensor: tensor.FromFloat32(tensor.F32, []int{3}, []float32{1, 2, 3})}
	ids := tensor.Named{Name: "cond_stage_model.transformer.text_model.embeddings.position_ids", Tensor: tensor.FromInt64([]int{1, 3}, []int64{0, 1, 2})}
	var all []tensor.Named
	half := tiny(t, tinymodel.Options{})
	tensors := testutil.Tensors(t, half)
	for _, name := range sortedNames(tensors) {
		all = append(all, tensor.Named{Name: name, Tensor: tensors[name]})
	}
	with := filepath.Join(t.TempDir(), "with.safetensors")
	for _, c := range []struct {
		meta map[string]string
		mark []tensor.Named
		want string
	}{{map[string]string{"modelspec.prediction_type": "v", "mine": "kept"}, nil, "v"}, {map[string]string{"mine": "kept"}, nil, ""},
		{map[string]string{"mine": "kept"}, []tensor.Named{{Name: "v_pred", Tensor: tensor.FromFloat32(tensor.F32, []int{0}, nil)}, {Name: "ztsnr", Tensor: tensor.FromFloat32(tensor.F32, []int{0}, nil)}}, "v"}} {
		if err := tensor.WriteFile(with, slices.Concat(all, []tensor.Named{stranger, ids}, c.mark), c.meta); err != nil {
			t.Fatal(err)
		}
		o := options(with, filepath.Join(t.TempDir(), "out.safetensors"), merge.Source{Path: save(t, loraFor(map[string][2]int{toQ: {32, 32}})), Weight: 1})
		run(t, o, ref.Open())
		before, _ := tensor.OpenFile(with)
		after, err := tensor.OpenFile(o.Out)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(before.Names(), after.Names()) || after.Metadata()["mine"] != "kept" || after.Metadata()["modelspec.prediction_type"] != c.want || after.Metadata()["lycoris.history"] == "" {
			t.Errorf("%v: %d names, metadata %v", c.meta, len(after.Names()), after.Metadata())
		}
		changed := []string{}
		old, now := testutil.Tensors(t, with), testutil.Tensors(t, o.Out)
		for _, name := range before.Names() {
			x, y := old[name], now[name]
			if x.DType != y.DType || !slices.Equal(x.Shape, y.Shape) {
				t.Errorf("%s became %s %v", name, y.DType, y.Shape)
			}
			if string(x.Data) != string(y.Data) {
				changed = append(changed, name)
			}
		}
		if !slices.Equal(changed, []string{toQLDM}) {
			t.Errorf("changed %v", changed)
		}
		before.Close()
		after.Close()
	}
	// 2: no module that fits is an error, with --allow-unmatched too.
	o := options(path, "", merge.Source{Path: save(t, loraFor(map[string][2]int{"lora_unet_nothing": {4, 4}})), Weight: 1})
	refused(t, "nothing fits", o, fault.Input, "belong to no layer")
	o.AllowUnmatched = true
	refused(t, "nothing fits, allowed", o, fault.Input, "")
	// 10: an adapter's hash is that of the bytes as stored (TestJoinMetadata), in another type too.
	j := joinOptions(filepath.Join(t.TempDir(), "half.safetensors"), merge.Source{Path: makeAdapter(t, base, &algos.LoRA, algos.Options{Rank: 4}), Weight: 0.5})
	j.DType = tensor.F16
	join(t, j)
	f, err := tensor.OpenFile(j.Out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if hash, err := tensor.HashFileData(f); err != nil || f.Metadata()["sshs_model_hash"] != hash {
		t.Errorf("hash %s, stored %s (%v)", hash, f.Metadata()["sshs_model_hash"], err)
	}
}
