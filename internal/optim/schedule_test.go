package optim

import (
	"math"
	"testing"

	"lycoris/internal/fault"
)

func TestWarmup(t *testing.T) {
	for _, c := range []struct {
		warmup float64
		steps  int
		want   int
	}{{0, 1600, 0}, {0.05, 1600, 80}, {0.05, 19, 0}, {0.5, 3, 1}, {1, 1600, 1}, {100, 1600, 100}} {
		s, err := NewSchedule("cosine", c.steps, c.warmup, 0)
		if err != nil {
			t.Fatal(err)
		}
		if s.Warmup != c.want {
			t.Errorf("warmup %v of %d steps is %d updates, want %d", c.warmup, c.steps, s.Warmup, c.want)
		}
	}
}

// From 2 to 0.5 in eight updates after two of warmup. Cosine at a quarter of the way has ½(1+√½) of the fall left.
func TestMinLR(t *testing.T) {
	quarter := 0.5 + 1.5*0.5*(1+math.Sqrt2/2)
	for _, c := range []struct {
		name string
		want []float64 // at steps 0, 1, 2, 4, 6, 10, 11
	}{
		{"constant", []float64{0, 1, 2, 2, 2, 2, 2}},
		{"linear", []float64{0, 1, 2, 1.625, 1.25, 0.5, 0.5}},
		{"cosine", []float64{0, 1, 2, quarter, 1.25, 0.5, 0.5}},
	} {
		s, err := NewSchedule(c.name, 10, 2, 0.5)
		if err != nil {
			t.Fatal(err)
		}
		for i, step := range []int{0, 1, 2, 4, 6, 10, 11} {
			if got := s.LR(2, step); math.Abs(got-c.want[i]) > 1e-15 {
				t.Errorf("%s, step %d: %v, want %v", c.name, step, got, c.want[i])
			}
		}
	}
}

// A rate below the minimum stays as it is: a minimum never raises it.
func TestMinLRAboveRate(t *testing.T) {
	s, err := NewSchedule("linear", 10, 0, 0.5)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []int{0, 5, 10} {
		if got := s.LR(0.25, step); got != 0.25 {
			t.Errorf("step %d: %v, want 0.25", step, got)
		}
	}
}

func TestUnknownSchedule(t *testing.T) {
	_, err := NewSchedule("cosin", 10, 0, 0)
	if want := `scheduler.name: unknown schedule "cosin", want one of ["constant" "linear" "cosine"]`; err == nil || err.Error() != want || fault.KindOf(err) != fault.Usage {
		t.Errorf("error %v, want %s", err, want)
	}
	if got := (Schedule{}).LR(3, 7); got != 3 {
		t.Errorf("the zero schedule gives %v, want 3", got)
	}
}
