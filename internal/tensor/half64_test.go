package tensor

import (
	"math"
	"testing"

	"lycoris/internal/rng"
)

// nearest returns the code among all finite positive codes and infinity whose value is nearest to |f|, of two the even one: the definition.
func nearest(f float64, value func(uint16) float32, infinity uint16, limit float64) uint16 {
	f = math.Abs(f)
	if f >= limit {
		return infinity
	}
	lo, hi := uint16(0), infinity // value(lo) <= f < value(hi)
	for hi-lo > 1 {
		if mid := lo + (hi-lo)/2; float64(value(mid)) <= f {
			lo = mid
		} else {
			hi = mid
		}
	}
	if hi == infinity {
		return lo // below limit, so nearer to the largest finite value
	}
	below, above := f-float64(value(lo)), float64(value(hi))-f // exact: neighbours of f
	if below < above || below == above && lo%2 == 0 {
		return lo
	}
	return hi
}

// TestFloat64Narrowing: float64 goes to 16 bits in one rounding, at ties, just beside them, in the subnormals and at the end of the range.
func TestFloat64Narrowing(t *testing.T) {
	var cases []float64
	for _, f := range []float64{0, 1, 1 + 0x1p-11, 1 + 0x1p-11 + 0x1p-40, 1 + 3*0x1p-11, 65504, 65519.99999999, 65520, 1e6, 1e300, 0x1p-14, 0x1p-24, 0x1p-25, 0x1.0000000001p-25, 3 * 0x1p-25,
		0x1.ffffffffffp-15, 1e-300, 0x1p-133, 0x1p-134, 0x1.0000000001p-134, 0x1.fep127, 0x1.ff7p127, 0x1.ff8p127, 0x1.ffp127, math.MaxFloat32, math.MaxFloat64, math.Inf(1), 1 + 0x1p-8, 1 + 0x1p-8 + 0x1p-40} {
		cases = append(cases, f, -f)
	}
	s := rng.New(1, "half64", 0, 0)
	for range 20000 {
		f := math.Ldexp(1+s.Float64(), int(s.Uint32()%44)-26)
		code := float64(F16ToFloat32(Float32ToF16(float32(f))))
		cases = append(cases, f, code, code*(1+0x1p-11), code*(1+0x1p-11)+code*0x1p-45) // and near ties
	}
	for _, f := range cases {
		sign := uint16(0)
		if math.Signbit(f) {
			sign = 0x8000
		}
		if got, want := Float64ToF16(f), sign|nearest(f, F16ToFloat32, 0x7c00, 65520); got != want {
			t.Fatalf("Float64ToF16(%x) = %#04x, want %#04x", f, got, want)
		}
		if got, want := Float64ToBF16(f), sign|nearest(f, BF16ToFloat32, 0x7f80, 0x1.ffp127); got != want {
			t.Fatalf("Float64ToBF16(%x) = %#04x, want %#04x", f, got, want)
		}
	}
	for _, nan := range []uint16{Float64ToF16(math.NaN()), Float64ToF16(-math.NaN())} {
		if nan&0x7c00 != 0x7c00 || nan&0x3ff == 0 {
			t.Errorf("NaN becomes %#04x as F16", nan)
		}
	}
	if nan := Float64ToBF16(math.NaN()); nan&0x7f80 != 0x7f80 || nan&0x7f == 0 {
		t.Errorf("NaN becomes %#04x as BF16", nan)
	}
}
