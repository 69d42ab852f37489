package algos

import (
	"testing"

	"lycoris/internal/kernels/ref"
	"lycoris/internal/rng"
	"lycoris/internal/tensor"
	"lycoris/internal/testutil"
)

// gloraFile returns a file's tensors of rank 3 with normal values.
func gloraFile(t Target, old, tucker bool) map[string]tensor.Tensor {
	shapes := map[string][]int{keyGLoRAA1: {t.In(), 3}, keyGLoRAA2: {3, t.In()}, keyGLoRAB1: {t.Out(), 3}, keyGLoRAB2: append([]int{3}, t.Shape[1:]...)}
	if tucker {
		shapes[keyGLoRAB2], shapes[keyGLoRABM] = []int{3, t.In(), 1, 1}, []int{3, 3, t.Shape[2], t.Shape[3]}
	}
	file := map[string]tensor.Tensor{keyAlpha: tensor.FromFloat32(tensor.F32, nil, []float32{2})}
	swapped := map[string]string{keyGLoRAA1: keyGLoRAA2, keyGLoRAA2: keyGLoRAA1, keyGLoRAB1: keyGLoRAB2, keyGLoRAB2: keyGLoRAB1}
	for i, key := range []string{keyGLoRAA1, keyGLoRAA2, keyGLoRAB1, keyGLoRAB2, keyGLoRABM} {
		if shape, ok := shapes[key]; ok {
			v := make([]float32, tensor.Elems(shape))
			rng.New(1, "glora", 0, uint64(i)).FillNormal(v)
			name := key
			if old && swapped[key] != "" {
				name = swapped[key]
			}
			file[name] = tensor.FromFloat32(tensor.F32, shape, v)
		}
	}
	return file
}

// A file of the old form, with the factors of each pair the other way round, is the same adapter.
func TestGLoRAOldForm(t *testing.T) {
	for _, shape := range [][]int{{8, 6}, {6, 6}, {4, 6, 3, 3}} {
		target := Target{Path: "unet.x", Name: "lora_unet_x", Shape: shape, Stride: 1, Pad: 1}
		frozen := make([]float32, tensor.Elems(shape))
		rng.New(1, "frozen", 0, 0).FillNormal(frozen)
		w := tensor.FromFloat32(tensor.F32, shape, frozen)
		var changes [2][]float32
		for i, old := range []bool{false, true} {
			a, err := GLoRA.Load(target, gloraFile(target, old, false), Options{})
			if err == nil {
				changes[i], err = Change(ref.Open(), a, w)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		testutil.NearRel(t, "change by the old form", changes[1], changes[0], 0)
	}
}

// A core bm is a Tucker LoRA's: with A = 0 the change is LoRA's own.
func TestGLoRACore(t *testing.T) {
	target := Target{Path: "unet.x", Name: "lora_unet_x", Shape: []int{4, 6, 3, 3}, Stride: 1, Pad: 1}
	w := tensor.FromFloat32(tensor.F32, target.Shape, make([]float32, tensor.Elems(target.Shape)))
	file := gloraFile(target, false, true)
	a, err := GLoRA.Load(target, file, Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := LoRA.Load(target, map[string]tensor.Tensor{keyUp: file[keyGLoRAB1], keyDown: file[keyGLoRAB2], keyMid: file[keyGLoRABM], keyAlpha: file[keyAlpha]}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := Change(ref.Open(), a, w)
	if err != nil {
		t.Fatal(err)
	}
	want, err := Change(ref.Open(), l, w)
	if err != nil {
		t.Fatal(err)
	}
	testutil.NearRel(t, "change with a core", got, want, 1e-6)
}
