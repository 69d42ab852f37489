package algos

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"lycoris/internal/fault"
	"lycoris/internal/kernels/ref"
	"lycoris/internal/rng"
	"lycoris/internal/tensor"
	"lycoris/internal/testutil"
)

// Block size × blocks of BOFT by width and limit, "-" where there is none: power2factorization of lycoris-lora 4.1.3 (algorithms.md, 11.1).
func TestPowerOfTwoBlocks(t *testing.T) {
	limits := []int{2, 4, 8, 12, 16, 32, 64, 128, -1}
	for width, row := range map[int]string{
		320:  "- - - 10x32 10x32 20x16 40x8 80x4 320x1",
		640:  "- - - 10x64 10x64 20x32 40x16 80x8 640x1",
		768:  "- - 6x128 12x64 12x64 24x32 48x16 96x8 768x1",
		1024: "2x512 4x256 8x128 8x128 16x64 32x32 64x16 128x8 1024x1",
		1280: "- - - 10x128 10x128 20x64 40x32 80x16 1280x1",
		2560: "- - - 10x256 10x256 20x128 40x64 80x32 2560x1",
		3072: "- - 6x512 12x256 12x256 24x128 48x64 96x32 3072x1",
		4:    "2x2 4x1 4x1 4x1 4x1 4x1 4x1 4x1 4x1",
		6:    "- - 6x1 6x1 6x1 6x1 6x1 6x1 6x1",
		36:   "- - - - - 18x2 36x1 36x1 36x1",
		96:   "- - 6x16 12x8 12x8 24x4 48x2 96x1 96x1",
		1:    "- - - - - - - - -",
		15:   "- - - - - - - - -",
		321:  "- - - - - - - - -",
	} {
		var got []string
		for _, limit := range limits {
			size, count, ok := powerOfTwoBlocks(width, limit)
			if !ok {
				got = append(got, "-")
				continue
			}
			got = append(got, fmt.Sprintf("%dx%d", size, count))
		}
		if s := strings.Join(got, " "); s != row {
			t.Errorf("%d outputs: %s, want %s", width, s, row)
		}
	}
}

// Shapes of the blocks (algorithms.md 10.1 and 11.2), and what can't be split says where, how wide it is and what would do.
func TestRotationShapes(t *testing.T) {
	for _, c := range []struct {
		a       *Algorithm
		out     int
		dim     int
		want    string
		message string
	}{
		{a: &DiagOFT, out: 16, dim: 4, want: "[4 4 4]"},
		{a: &DiagOFT, out: 16, dim: 8, want: "[8 2 2]"},
		{a: &DiagOFT, out: 8, dim: 4, want: "[4 2 2]"},
		{a: &DiagOFT, out: 320, dim: 64, want: "[64 5 5]"},
		{a: &DiagOFT, out: 320, dim: 128, want: "[20 16 16]"},
		{a: &DiagOFT, out: 7, dim: 4, want: "[7 1 1]"},
		{a: &DiagOFT, out: 320, dim: 1, message: "dim: 1 leaves diag-oft nothing to rotate: a block has 2 outputs or more"},
		{a: &BOFT, out: 16, dim: 4, want: "[3 4 4 4]"},
		{a: &BOFT, out: 16, dim: 2, want: "[4 8 2 2]"},
		{a: &BOFT, out: 16, dim: 16, want: "[1 1 16 16]"},
		{a: &BOFT, out: 24, dim: 6, want: "[3 4 6 6]"},
		{a: &BOFT, out: 8, dim: 4, want: "[2 2 4 4]"},
		{a: &BOFT, out: 320, dim: 4, message: "dim: 4 is too small for boft to split the 320 outputs of unet.x into blocks whose number is a power of two | the smallest dim that works there is 10"},
		{a: &BOFT, out: 7, dim: 4, message: "dim: boft can't split the 7 outputs of unet.x: the number is odd | leave the layer out with exclude, or give it another algorithm"},
	} {
		a, err := c.a.New(Target{Path: "unet.x", Name: "lora_unet_x", Shape: []int{c.out, 4}}, Options{Rank: c.dim}, rng.New(1, "test", 0, 0))
		if err != nil {
			e := err.(*fault.Error)
			got := e.Error()
			if e.Advice != "" {
				got += " | " + e.Advice
			}
			if got != c.message {
				t.Errorf("%s, dim %d: %s, want %s%s", c.a.Name, c.dim, got, c.message, c.want)
			}
			continue
		}
		if got := fmt.Sprint(a.Factors()[0].Param.Shape); got != c.want {
			t.Errorf("%s, dim %d of %d: %s, want %s%s", c.a.Name, c.dim, c.out, got, c.want, c.message)
		}
	}
}

// Without rescale, and with the strength at 1, columns of the weight keep their length.
func TestRotationKeepsLengths(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	random := func(n int) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(r.NormFloat64())
		}
		return v
	}
	const out, in = 24, 5
	for _, a := range []*Algorithm{&DiagOFT, &BOFT} {
		ad, err := a.New(Target{Path: "unet.x", Name: "x", Shape: []int{out, in}}, Options{Rank: 6}, nil)
		if err != nil {
			t.Fatal(err)
		}
		f := ad.Factors()[0]
		copy(f.Host, random(len(f.Host)))
		w := random(out * in)
		dw, err := Change(ref.Open(), ad, tensor.FromFloat32(tensor.F32, []int{out, in}, w))
		if err != nil {
			t.Fatal(err)
		}
		for i := range in {
			var before, after float64
			for o := range out {
				x := float64(w[o*in+i])
				y := x + float64(dw[o*in+i])
				before, after = before+x*x, after+y*y
			}
			if math.Abs(after/before-1) > 1e-6 {
				t.Errorf("%s: a column of length %v comes to %v", a.Name, math.Sqrt(before), math.Sqrt(after))
			}
		}
	}
}

// Of the oldest files blocks are R itself, used as they are; kohya's have blocks of any size, larger than their number too.
func TestOldOFTFiles(t *testing.T) {
	target := Target{Path: "unet.x", Name: "x", Shape: []int{4, 1}}
	w := tensor.FromFloat32(tensor.F32, target.Shape, []float32{1, 2, 3, 4})
	r := []float32{0, -1, 1, 0, 0.6, 0.5, 0, 2} // two blocks, the second not orthogonal
	load := func(key string, shape []int, values []float32, o Options) Adapter {
		t.Helper()
		a, err := DiagOFT.Load(target, map[string]tensor.Tensor{key: tensor.FromFloat32(tensor.F32, shape, values)}, o)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for mu, want := range map[float64][]float32{
		1:   {2 - 1, -1 - 2, 0.6*3 - 3, 0.5*3 + 2*4 - 4}, // W'[m] = Σ R[n,m]·W[n]
		0.5: {0.5 * (2 - 1), 0.5 * (-1 - 2), 0.5 * (0.6*3 - 3), 0.5 * (0.5*3 + 2*4 - 4)},
	} {
		a := load(keyOldOFT, []int{2, 2, 2}, r, Options{Strength: mu})
		got, err := Change(ref.Open(), a, w)
		if err != nil {
			t.Fatal(err)
		}
		testutil.NearRel(t, "R as it is", got, want, 1e-6)
		if f := a.Tensors()[0]; f.Name != keyOldOFT {
			t.Errorf("is saved as %s", f.Name)
		}
	}
	// One block of four: W' = Rᵀ·W for the rotation by the angle 2·atan(2·0.25) in the plane of the first two outputs.
	a := make([]float32, 16)
	a[1] = 0.5
	got, err := Change(ref.Open(), load(keyOFT, []int{1, 4, 4}, a, Options{}), w)
	if err != nil {
		t.Fatal(err)
	}
	sin, cos := math.Sincos(2 * math.Atan(0.5))
	testutil.NearRel(t, "one block", got, []float32{float32(cos - 2*sin - 1), float32(sin + 2*cos - 2), 0, 0}, 1e-6)
}
