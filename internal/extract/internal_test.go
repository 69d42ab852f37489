package extract

import (
	"math"
	"slices"
	"testing"

	"lycoris/internal/kernels/ref"
	"lycoris/internal/tensor"
)

func TestRank(t *testing.T) {
	s := []float64{8, 4, 2, 1, 0.5}
	fro := math.Sqrt(64 + 16 + 4 + 1 + 0.25)
	for _, c := range []struct {
		rule   Rule
		s      []float64
		rank   int
		enough bool
	}{
		{Rule{}, s, 5, true},
		{Rule{Ratio: 4}, s, 3, true},
		{Rule{Ratio: 0.25}, s, 2, true}, // above a quarter of the largest
		{Rule{Ratio: 100}, s, 5, false},
		{Rule{Threshold: 1}, s, 3, true},
		{Rule{Threshold: 100}, s, 1, true},
		{Rule{Threshold: 0.1}, s, 5, false},
		{Rule{Fro: 0.9}, s, 2, true},
		{Rule{Fro: 0.8}, s, 1, true},
		{Rule{Fro: 1}, s, 5, true},
		{Rule{Fro: 1}, s[:2], 2, false},
		{Rule{Quantile: 0.8}, s, 2, true}, // 12 of 15.5 is below 0.8, 14 isn't: LyCORIS stops short
		{Rule{Quantile: 1}, s, 4, true},
		{Rule{Fro: 0.5}, nil, 0, true},
	} {
		if rank, enough := c.rule.rank(c.s, fro); rank != c.rank || enough != c.enough {
			t.Errorf("%+v of %v: %d %t, want %d %t", c.rule, c.s, rank, enough, c.rank, c.enough)
		}
	}
}

// inMemory is a tensor to compare.
func inMemory(x tensor.Tensor) values {
	return values{dtype: x.DType, shape: x.Shape, read: func(dst []byte, at int) error {
		copy(dst, x.Data[at*x.DType.Size():])
		return nil
	}}
}

func compare(t *testing.T, base, tuned tensor.Tensor, w want) difference {
	t.Helper()
	d := differ{squares: func(x []float32) float64 { return ref.Open().SumSquares(x) }}
	r, err := d.of(inMemory(base), inMemory(tuned), w, func(n int) []float32 { return make([]float32, n) })
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestDiffer(t *testing.T) {
	differ := func(base, tuned tensor.Tensor, w want) difference { return compare(t, base, tuned, w) }
	values := []float32{1, -2, 0.3, 1e-3, 0, 65000, 3e-6}
	all := want{change: true, base: true}
	of := func(d tensor.DType, v ...float32) tensor.Tensor { return tensor.FromFloat32(d, []int{len(v)}, v) }

	if d := differ(of(tensor.F16, values...), of(tensor.F16, values...), all); !d.equal || d.change != nil {
		t.Errorf("equal bytes: %+v", d)
	}
	f16 := of(tensor.F16, values...)
	if d := differ(f16, of(tensor.F32, f16.Float32()...), all); !d.equal {
		t.Errorf("equal values in two types: %+v", d)
	}
	if d := differ(of(tensor.F32, values...), f16, all); d.equal || !d.noise {
		t.Errorf("rounded to F16: %+v", d)
	}
	if d := differ(of(tensor.F32, values...), f16, want{keepNoise: true}); d.equal || d.noise || d.change != nil {
		t.Errorf("rounding kept: %+v", d)
	}
	moved := slices.Clone(values)
	moved[0] += 0.25
	d := differ(of(tensor.F64, values...), of(tensor.F32, moved...), all)
	if d.equal || d.noise || d.total != 0.0625 || d.change[0] != 0.25 || d.base[1] != -2 {
		t.Errorf("moved: %+v", d)
	}
	// values of BF16 in an F16 file, against the F16 ones
	coarse := make([]float32, 4000)
	fine := make([]float32, 4000)
	for i := range fine {
		fine[i] = float32(i%97)*0.013 + 0.11
		coarse[i] = tensor.BF16ToFloat32(tensor.Float32ToBF16(fine[i]))
	}
	if d := differ(of(tensor.F16, fine...), of(tensor.F16, coarse...), all); !d.noise {
		t.Errorf("rounded to BF16 before: %v of %v", d.total, d.frozen)
	}
	for i := range coarse {
		coarse[i] += 0.25
	}
	if d := differ(of(tensor.F16, fine...), of(tensor.F16, coarse...), all); d.noise {
		t.Errorf("trained and rounded to BF16: %v of %v", d.total, d.frozen)
	}
}

func TestRounding(t *testing.T) {
	var e [256]int
	count(&e, []float32{1.5, -1, 0, 0x1p-20})
	// steps: 2^-10 twice; 0 lost nothing; F16's least step 2^-24
	want := (2*0x1p-20 + 0x1p-48) / 12
	if got := rounding(tensor.F16, &e); math.Abs(got-want) > 1e-12*want {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := rounding(tensor.F32, &e); got != 0 {
		t.Errorf("F32 counts as exact, got %v", got)
	}
}

// Rearranged blocks are the Kronecker factors' places.
func TestRearranged(t *testing.T) {
	k := kronSizes{o1: 2, i1: 3, o2: 2, i2: 2, pixels: 2}
	w1 := []float32{1, 2, 3, 4, 5, 6}
	w2 := []float32{1, 10, 2, 20, 3, 30, 4, 40} // [u,v,t]
	delta := make([]float32, 4*6*2)
	for p := range 2 {
		for q := range 3 {
			for u := range 2 {
				for v := range 2 {
					for x := range 2 {
						delta[((p*2+u)*6+q*2+v)*2+x] = w1[p*3+q] * w2[(u*2+v)*2+x]
					}
				}
			}
		}
	}
	r := rearranged(delta, k)
	for i, f := range w1 {
		for j, g := range w2 {
			if r[i*8+j] != f*g {
				t.Fatalf("element %d %d is %v, want %v", i, j, r[i*8+j], f*g)
			}
		}
	}
	if left, worst := kronMiss(delta, w1, w2, k); left != 0 || worst != 0 {
		t.Errorf("missing %v, %v", left, worst)
	}
}

func TestBudget(t *testing.T) {
	b := newBudget(10)
	if got := b.take(25); got != 10 {
		t.Fatalf("took %d of 10", got)
	}
	done := make(chan struct{})
	go func() { b.give(b.take(4)); close(done) }()
	select {
	case <-done:
		t.Fatal("took more than there is")
	default:
	}
	b.give(10)
	<-done
	if b.free != 10 {
		t.Errorf("%d of 10 came back", b.free)
	}
}
