package algos

import (
	"slices"
	"testing"
)

// Plain LoRA is read alike everywhere; every other row belongs to an algorithm and to options that call for it.
func TestReadings(t *testing.T) {
	if got := Readings("lora", Options{Rank: 4}); got != nil {
		t.Errorf("plain LoRA: %q", got)
	}
	if got := Readings("loha", Options{DoRA: "out"}); !slices.Equal(got, []string{doraOut}) {
		t.Errorf("LoHa with output magnitudes: %q", got)
	}
	if got := Readings("boft", Options{Constraint: 0.1}); !slices.Equal(got, []string{constrained}) {
		t.Errorf("BOFT with a constraint: %q", got)
	}
	for _, r := range readings {
		if _, err := ByName(r.algorithm); err != nil || r.Text == "" {
			t.Errorf("%+v is of no algorithm", r)
		}
	}
}
