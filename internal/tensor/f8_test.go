package tensor

import (
	"math"
	"testing"
)

// TestF8: values of the two types by the table of the paper (Micikevicius and others, 2022, table 1).
func TestF8(t *testing.T) {
	for _, c := range []struct {
		d    DType
		code byte
		want float32
	}{{F8E4M3, 0, 0}, {F8E4M3, 1, 0x1p-9}, {F8E4M3, 7, 7 * 0x1p-9}, {F8E4M3, 8, 0x1p-6}, {F8E4M3, 0x38, 1}, {F8E4M3, 0xb9, -1.125}, {F8E4M3, 0x7e, 448}, {F8E4M3, 0xfe, -448},
		{F8E5M2, 1, 0x1p-16}, {F8E5M2, 4, 0x1p-14}, {F8E5M2, 0x3c, 1}, {F8E5M2, 0xbd, -1.25}, {F8E5M2, 0x7b, 57344}, {F8E5M2, 0x7c, float32(math.Inf(1))}} {
		if got := F8Values(c.d)[c.code]; got != c.want {
			t.Errorf("%s %#x: %g, want %g", c.d, c.code, got, c.want)
		}
		if got := (Tensor{DType: c.d, Shape: []int{1}, Data: []byte{c.code}}).Float32(); got[0] != c.want {
			t.Errorf("%s %#x as a tensor: %g, want %g", c.d, c.code, got[0], c.want)
		}
	}
	for _, c := range []struct {
		d    DType
		code byte
	}{{F8E4M3, 0x7f}, {F8E4M3, 0xff}, {F8E5M2, 0x7d}, {F8E5M2, 0xff}} {
		if v := F8Values(c.d)[c.code]; v == v {
			t.Errorf("%s %#x: %g, want NaN", c.d, c.code, v)
		}
	}
	if math.Signbit(float64(F8Values(F8E4M3)[0x80])) != true {
		t.Error("E4M3 0x80 is not -0")
	}
}
