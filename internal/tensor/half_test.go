package tensor

import (
	"math"
	"testing"
)

// halfFormat describes a 16-bit float type by its definition, independently of the bit tricks in half.go.
type halfFormat struct {
	name           string
	expBits        uint
	fracBits       uint
	widen          func(uint16) float32
	narrow         func(float32) uint16
	quiet          uint16
	expAll, allMag uint16
}

var halfFormats = []halfFormat{
	{"F16", 5, 10, F16ToFloat32, Float32ToF16, 0x200, 0x7c00, 0x7fff},
	{"BF16", 8, 7, BF16ToFloat32, Float32ToBF16, 0x40, 0x7f80, 0x7fff},
}

// value is the textbook value of a finite code: (-1)^s · 2^(e-bias) · 1.f, or 2^(1-bias) · 0.f for e = 0. Infinity's code gives 2^(emax+1).
func (h halfFormat) value(code uint16) float64 {
	bias := 1<<(h.expBits-1) - 1
	exp := int(code&h.allMag) >> h.fracBits
	frac := float64(code & (1<<h.fracBits - 1))
	scale := math.Ldexp(1, -int(h.fracBits))
	v := math.Ldexp(1+frac*scale, exp-bias)
	if exp == 0 {
		v = math.Ldexp(frac*scale, 1-bias)
	}
	if code&0x8000 != 0 {
		v = math.Copysign(v, -1)
	}
	return v
}

// TestHalfEveryCode widens all 65536 codes, compares with the definition, and narrows back to the same code.
func TestHalfEveryCode(t *testing.T) {
	for _, h := range halfFormats {
		for c := 0; c < 1<<16; c++ {
			code := uint16(c)
			got := h.widen(code)
			switch mag := code & h.allMag; {
			case mag > h.expAll:
				if got == got {
					t.Fatalf("%s: code %#04x widens to %v, want NaN", h.name, code, got)
				}
				if back := h.narrow(got); back != code|h.quiet {
					t.Fatalf("%s: NaN %#04x narrows to %#04x, want %#04x", h.name, code, back, code|h.quiet)
				}
				continue
			case mag == h.expAll:
				if !math.IsInf(float64(got), 1-2*int(code>>15)) {
					t.Fatalf("%s: code %#04x widens to %v, want infinity", h.name, code, got)
				}
			default:
				if want := h.value(code); float64(got) != want || math.Signbit(float64(got)) != math.Signbit(want) {
					t.Fatalf("%s: code %#04x widens to %v, want %v", h.name, code, got, want)
				}
			}
			if back := h.narrow(got); back != code {
				t.Fatalf("%s: %#04x -> %v -> %#04x", h.name, code, got, back)
			}
		}
	}
}

// TestHalfRounding narrows, for each pair of neighbouring codes, the midpoint and the float32 values beside it.
func TestHalfRounding(t *testing.T) {
	for _, h := range halfFormats {
		for low := uint16(0); low < h.expAll; low++ { // the last high is infinity: overflow rounds as if the exponent went on
			high, even := low+1, low+low&1
			mid := (h.value(low) + h.value(high)) / 2
			m := float32(mid)
			if float64(m) != mid {
				t.Fatalf("%s: midpoint above %#04x is not a float32", h.name, low)
			}
			for sign, f := range map[uint16]float32{0: 1, 0x8000: -1} {
				below, above := math.Float32frombits(math.Float32bits(m)-1), math.Float32frombits(math.Float32bits(m)+1)
				for _, c := range []struct {
					in   float32
					want uint16
				}{{f * below, low | sign}, {f * m, even | sign}, {f * above, high | sign}} {
					if got := h.narrow(c.in); got != c.want {
						t.Fatalf("%s: %v (%#08x) narrows to %#04x, want %#04x", h.name, c.in, math.Float32bits(c.in), got, c.want)
					}
				}
			}
		}
	}
}

func TestHalfExtremes(t *testing.T) {
	for _, c := range []struct {
		name      string
		in        float32
		f16, bf16 uint16
	}{
		{"least float32 subnormal", math.SmallestNonzeroFloat32, 0, 0},
		{"minus least", -math.SmallestNonzeroFloat32, 0x8000, 0x8000},
		{"largest float32", math.MaxFloat32, 0x7c00, 0x7f80},
		{"minus infinity", float32(math.Inf(-1)), 0xfc00, 0xff80},
		{"one", 1, 0x3c00, 0x3f80},
		{"65504", 65504, 0x7bff, 0x4780},
		{"signalling NaN", math.Float32frombits(0x7f800001), 0x7e00, 0x7fc0},
	} {
		if got := Float32ToF16(c.in); got != c.f16 {
			t.Errorf("%s: F16 %#04x, want %#04x", c.name, got, c.f16)
		}
		if got := Float32ToBF16(c.in); got != c.bf16 {
			t.Errorf("%s: BF16 %#04x, want %#04x", c.name, got, c.bf16)
		}
	}
}
