package rng

import (
	"fmt"
	"math"
	"slices"
	"testing"
)

// TestPhiloxKnownAnswers: the vectors for philox4x32 with 10 rounds that Random123 publishes (examples/kat_vectors).
func TestPhiloxKnownAnswers(t *testing.T) {
	for _, c := range []struct {
		ctr  [4]uint32
		key  [2]uint32
		want [4]uint32
	}{
		{[4]uint32{}, [2]uint32{}, [4]uint32{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
		{[4]uint32{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, [2]uint32{0xffffffff, 0xffffffff}, [4]uint32{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
		{[4]uint32{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, [2]uint32{0xa4093822, 0x299f31d0}, [4]uint32{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
	} {
		if got := Philox4x32(c.ctr, c.key); got != c.want {
			t.Errorf("Philox4x32(%08x, %08x) = %08x, want %08x", c.ctr, c.key, got, c.want)
		}
	}
}

// TestAddress writes the addressing of the package comment out. FNV-1a 64 of "a" is 0xaf63dc4c8601ec8c (Fowler, Noll and Vo's test vectors).
func TestAddress(t *testing.T) {
	s := New(0x1111222233334444, "a", 0x123456789abc, 0xdef012345678)
	key := uint64(0xaf63dc4c8601ec8c ^ 0x1111222233334444)
	for block := uint32(0); block < 3; block++ {
		want := Philox4x32([4]uint32{block, 0x56789abc, 0xdef01234, 0x12345678}, [2]uint32{uint32(key), uint32(key >> 32)})
		for i, w := range want {
			if got := s.Uint32(); got != w {
				t.Errorf("block %d word %d = %08x, want %08x", block, i, got, w)
			}
		}
	}
	for _, bad := range [][2]uint64{{1 << 48, 0}, {0, 1 << 48}} {
		if !panics(func() { New(1, "x", bad[0], bad[1]) }) {
			t.Errorf("step %d, item %d: no panic", bad[0], bad[1])
		}
	}
}

func panics(f func()) (did bool) {
	defer func() { did = recover() != nil }()
	f()
	return false
}

// TestRecorded pins the numbers down: a change of any of them changes every run.
func TestRecorded(t *testing.T) {
	s := New(42, "noise", 7, 3)
	got := fmt.Sprintf("%08x %016x %.17g %d %v", s.Uint32(), s.Uint64(), s.Float64(), s.IntN(1000), s.Perm(8))
	if want := recordedInts; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	s = New(42, "noise", 7, 4)
	got = ""
	for range 6 {
		got += fmt.Sprintf("%08x ", math.Float32bits(s.NormFloat32()))
	}
	if want := recordedNormals; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestStreamsDiffer: no word of one stream's first blocks appears at the same place, nor a block anywhere, in a stream with another address.
func TestStreamsDiffer(t *testing.T) {
	seen := map[[4]uint32]string{}
	for _, seed := range []uint64{0, 1, 42, 1 << 32} {
		for _, purpose := range []string{"noise", "noise ", "timesteps", "shuffle", "augment", ""} {
			for _, step := range []uint64{0, 1, 2, 1 << 32, 1 << 40} {
				for _, item := range []uint64{0, 1, 2, 1 << 32, 1 << 40} {
					name := fmt.Sprintf("%d %q %d %d", seed, purpose, step, item)
					s := New(seed, purpose, step, item)
					for range 8 {
						block := [4]uint32{s.Uint32(), s.Uint32(), s.Uint32(), s.Uint32()}
						if other, ok := seen[block]; ok {
							t.Fatalf("streams %s and %s share block %08x", name, other, block)
						}
						seen[block] = name
					}
				}
			}
		}
	}
}

// TestIndependence: uniform numbers of neighbouring streams are uncorrelated. A correlation of n pairs has a deviation of 1/√n; five are allowed.
func TestIndependence(t *testing.T) {
	const n = 20000
	base := New(1, "noise", 5, 5)
	for name, other := range map[string]*Stream{
		"purpose": New(1, "timesteps", 5, 5), "seed": New(2, "noise", 5, 5), "step": New(1, "noise", 6, 5), "item": New(1, "noise", 5, 6),
	} {
		a, b := *base, *other
		var sum float64
		for range n {
			sum += (a.Float64() - 0.5) * (b.Float64() - 0.5)
		}
		if r := sum / n * 12; math.Abs(r) > 5/math.Sqrt(n) {
			t.Errorf("another %s: correlation %.4f", name, r)
		}
	}
}

// TestReproducible: streams don't depend on each other, and mixed draws repeat.
func TestReproducible(t *testing.T) {
	draw := func(s *Stream) string {
		return fmt.Sprint(s.NormFloat32(), s.IntN(7), s.Float64(), s.NormFloat32(), s.Perm(5), s.Uint32())
	}
	want := draw(New(9, "p", 1, 2))
	s := New(9, "p", 1, 2)
	New(9, "p", 1, 3).FillNormal(make([]float32, 100))
	if got := draw(s); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	filled, one := make([]float32, 7), New(9, "p", 1, 2)
	New(9, "p", 1, 2).FillNormal(filled)
	for i, v := range filled {
		if w := one.NormFloat32(); v != w {
			t.Errorf("FillNormal element %d is %v, NormFloat32 gives %v", i, v, w)
		}
	}
}

// TestUsedUp: the last block of a stream can be drawn, and nothing after it.
func TestUsedUp(t *testing.T) {
	s := New(1, "x", 0, 0)
	s.ctr[0] = math.MaxUint32
	for range 4 {
		s.Uint32()
	}
	if !panics(func() { s.Uint32() }) {
		t.Error("no panic after 2^34 words")
	}
}

// TestUniform: chi-square over 64 cells of n draws has mean 63 and deviation √126; five deviations are allowed. The moments likewise.
func TestUniform(t *testing.T) {
	const n, cells = 200000, 64
	s := New(3, "uniform", 0, 0)
	var floats, ints [cells]float64
	var sum, squares float64
	for range n {
		f := s.Float64()
		if f < 0 || f >= 1 {
			t.Fatalf("Float64 = %v", f)
		}
		floats[int(f*cells)]++
		ints[s.IntN(cells)]++
		sum += f
		squares += f * f
	}
	for name, counts := range map[string][cells]float64{"Float64": floats, "IntN": ints} {
		var chi float64
		for _, c := range counts {
			chi += (c - n/cells) * (c - n/cells) / (n / cells)
		}
		if math.Abs(chi-(cells-1)) > 5*math.Sqrt(2*(cells-1)) {
			t.Errorf("%s: chi-square %.1f over %d cells", name, chi, cells)
		}
	}
	if d := math.Abs(sum/n - 0.5); d > 5*math.Sqrt(1.0/12/n) {
		t.Errorf("mean off by %.5f", d)
	}
	if d := math.Abs(squares/n - 1.0/3); d > 5*math.Sqrt(4.0/45/n) {
		t.Errorf("second moment off by %.5f", d)
	}
}

// TestIntN: the whole range comes, also for n where a plain remainder would be biased, and rubbish is refused.
func TestIntN(t *testing.T) {
	s := New(4, "ints", 0, 0)
	for _, n := range []int{1, 2, 3, 5, 7} {
		counts := make([]int, n)
		for range 1000 * n {
			counts[s.IntN(n)]++
		}
		for v, c := range counts {
			if math.Abs(float64(c)-1000) > 5*math.Sqrt(1000) {
				t.Errorf("IntN(%d) = %d came %d times of %d", n, v, c, 1000*n)
			}
		}
	}
	// n = 3·2^61: the low third of a 64-bit remainder would come twice as often. The rejection keeps it at one third.
	const n = 3 << 61
	low := 0
	for range 9000 {
		if s.IntN(n) < n/3 {
			low++
		}
	}
	if math.Abs(float64(low)-3000) > 5*math.Sqrt(2000) {
		t.Errorf("IntN(3·2^61): the lowest third came %d times of 9000", low)
	}
	for _, n := range []int{0, -1} {
		if !panics(func() { s.IntN(n) }) {
			t.Errorf("IntN(%d): no panic", n)
		}
	}
}

// TestNormal: the first four moments of n samples, each within five deviations (1, 2, 15 and 96 are the moments' variances), tails and largest value.
func TestNormal(t *testing.T) {
	const n = 400000
	v := make([]float32, n)
	New(5, "normal", 0, 0).FillNormal(v)
	var m [4]float64
	var pairs float64
	beyond2 := 0
	for i, x := range v {
		f := float64(x)
		m[0] += f
		m[1] += f * f
		m[2] += f * f * f
		m[3] += f * f * f * f
		if math.Abs(f) > 2 {
			beyond2++
		}
		if math.Abs(f) > 8.6 {
			t.Fatalf("sample %v", f)
		}
		if i%2 == 1 {
			pairs += f * float64(v[i-1])
		}
	}
	for i, c := range []struct{ want, variance float64 }{{0, 1}, {1, 2}, {0, 15}, {3, 96}} {
		if d := m[i]/n - c.want; math.Abs(d) > 5*math.Sqrt(c.variance/n) {
			t.Errorf("moment %d is %.5f, want %v", i+1, m[i]/n, c.want)
		}
	}
	if r := pairs / (n / 2); math.Abs(r) > 5/math.Sqrt(n/2) {
		t.Errorf("the two samples of a pair have correlation %.5f", r)
	}
	const share = 0.0455002638963584 // 1 - erf(√2)
	if d := float64(beyond2)/n - share; math.Abs(d) > 5*math.Sqrt(share*(1-share)/n) {
		t.Errorf("%d of %d samples beyond 2", beyond2, n)
	}
}

// TestSeries compares the package's own logarithm, sine and cosine with package math.
func TestSeries(t *testing.T) {
	s := New(6, "series", 0, 0)
	values := []float64{0x1p-53, 0x1p-52, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1 - 0x1p-53, math.Sqrt2 / 2}
	for _, v := range values { // the borders of the quarters, from both sides
		values = append(values, math.Nextafter(v, 0), math.Nextafter(v, 1))
	}
	for range 100000 {
		values = append(values, s.Float64())
	}
	for _, v := range values {
		if got, want := logUnit(v), math.Log(v); v > 0 && math.Abs(got-want) > 2e-16+2*math.Abs(want)*0x1p-52 {
			t.Fatalf("log %v = %v, want %v", v, got, want)
		}
		sin, cos := sinCosTurn(v)
		wantSin, wantCos := math.Sincos(2 * math.Pi * v)
		// 2π·v itself is off by up to half an ulp of 6.28, which math.Sincos is given.
		if math.Abs(sin-wantSin) > 1.2e-15 || math.Abs(cos-wantCos) > 1.2e-15 {
			t.Fatalf("turn %v: sin %v cos %v, want %v %v", v, sin, cos, wantSin, wantCos)
		}
	}
	if got := logUnit(1); got != 0 {
		t.Errorf("log 1 = %v", got)
	}
}

// TestShuffle: each of the six orders of three things comes equally often, within five deviations.
func TestShuffle(t *testing.T) {
	const n = 12000
	s := New(7, "orders", 0, 0)
	counts := map[string]int{}
	for range n {
		counts[fmt.Sprint(s.Perm(3))]++
	}
	if len(counts) != 6 {
		t.Errorf("%d orders of 3", len(counts))
	}
	for order, c := range counts {
		if math.Abs(float64(c)-n/6) > 5*math.Sqrt(n/6.0*5/6) {
			t.Errorf("order %s came %d times of %d", order, c, n)
		}
	}
	p := s.Perm(1000)
	slices.Sort(p)
	for i, v := range p {
		if v != i {
			t.Fatalf("Perm(1000) lacks %d", i)
		}
	}
}
