package diffusion

import (
	"math"
	"testing"

	"lycoris/internal/tensor"
)

// readGolden returns a tensor from testdata/golden/<file>.safetensors, which scripts/goldens/training.py made with diffusers.
func readGolden(t *testing.T, file, name string) tensor.Tensor {
	t.Helper()
	f, err := tensor.OpenFile("../../testdata/golden/" + file + ".safetensors")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	v, err := f.Read(name)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// checkClose fails where got differs from want by more than tol times the largest of want (or 1, if that is larger).
func checkClose(t *testing.T, what string, got, want []float32, tol float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d elements, want %d", what, len(got), len(want))
	}
	largest := 1.0
	for _, w := range want {
		largest = max(largest, math.Abs(float64(w)))
	}
	for i := range want {
		if diff := math.Abs(float64(got[i]) - float64(want[i])); !(diff <= tol*largest) {
			t.Errorf("%s[%d] = %v, want %v within %.1e", what, i, got[i], want[i], tol*largest)
			return
		}
	}
}

// roundings allows two float32 roundings of the largest value, which differ by the order of a sum or a fused multiply-add.
const roundings = 2.4e-7
