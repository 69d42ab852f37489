package optim

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"lycoris/internal/fault"
	"lycoris/internal/kernels/ref"
)

// newOptimizer returns an optimizer of two groups of parameters with 1, 17, 0 and 33 elements, and its groups.
func newOptimizer(t *testing.T) (*AdamW, []Group) {
	t.Helper()
	groups := []Group{{Name: "unet", LR: 1e-2}, {Name: "text_encoder", LR: 5e-3}}
	for i, n := range []int{1, 17, 0, 33} {
		p := &Param{Name: fmt.Sprint("p", i), Value: make([]float32, n), Grad: make([]float32, n)}
		for j := range p.Value {
			p.Value[j] = float32(math.Sin(float64(10*i + j)))
		}
		groups[i/2].Params = append(groups[i/2].Params, p)
	}
	o, err := NewAdamW(ref.Open(), groups, DefaultOptions())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Close)
	return o, groups
}

// train makes updates from..to-1 with gradients that depend on the number of the update alone.
func train(o *AdamW, groups []Group, from, to int) {
	for step := from; step < to; step++ {
		for i, p := range Params(groups) {
			for j := range p.Grad {
				p.Grad[j] = float32(math.Cos(float64(100*step + 10*i + j)))
			}
		}
		o.Step([]float64{groups[0].LR, groups[1].LR}, 0.5)
	}
}

func TestMomentsAreAlignedAndApart(t *testing.T) {
	_, groups := newOptimizer(t)
	for _, p := range Params(groups) {
		if len(p.M) != len(p.Value) || len(p.V) != len(p.Value) {
			t.Fatalf("%s has %d values and moments of %d and %d", p.Name, len(p.Value), len(p.M), len(p.V))
		}
		for j := range p.M {
			if p.M[j] != 0 || p.V[j] != 0 {
				t.Fatalf("%s starts with moments that aren't 0", p.Name)
			}
			p.M[j], p.V[j] = 1, 2 // an overlap would show below
		}
		if len(p.M) > 0 && (uintptr(unsafe.Pointer(&p.M[0]))%64 != 0 || uintptr(unsafe.Pointer(&p.V[0]))%64 != 0) {
			t.Errorf("%s has moments off a 64-byte boundary", p.Name)
		}
	}
	for _, p := range Params(groups) {
		if slices.ContainsFunc(p.M, func(x float32) bool { return x != 1 }) || slices.ContainsFunc(p.V, func(x float32) bool { return x != 2 }) {
			t.Errorf("moments of %s overlap others", p.Name)
		}
	}
	if got := SlabFloats([]int{1, 17, 0, 33}); got != 2*(16+32+0+48) {
		t.Errorf("SlabFloats = %d, want 192", got)
	}
}

// The first update of Adam moves every value by its group's rate against the sign of the gradient, after decay.
func TestFirstUpdate(t *testing.T) {
	o, groups := newOptimizer(t)
	var before [][]float32
	for _, p := range Params(groups) {
		before = append(before, slices.Clone(p.Value))
	}
	train(o, groups, 1, 2)
	for i, p := range Params(groups) {
		lr := groups[i/2].LR
		for j, got := range p.Value {
			want := float64(before[i][j])*(1-lr*0.01) - lr*math.Copysign(1, float64(p.Grad[j]))
			if math.Abs(float64(got)-want) > 1e-6 {
				t.Errorf("%s[%d] = %v, want %v", p.Name, j, got, want)
			}
		}
	}
}

func TestRestoreIsExact(t *testing.T) {
	unbroken, groups := newOptimizer(t)
	train(unbroken, groups, 0, 10)

	first, firstGroups := newOptimizer(t)
	train(first, firstGroups, 0, 5)
	state := first.State()
	train(first, firstGroups, 5, 6) // the state is a copy: this doesn't reach it

	second, secondGroups := newOptimizer(t)
	train(second, secondGroups, 0, 5) // for the values, which a checkpoint keeps elsewhere
	for _, p := range Params(secondGroups) {
		clear(p.M)
		clear(p.V)
	}
	slices.Reverse(state.Arrays)
	if err := second.Restore(state); err != nil {
		t.Fatal(err)
	}
	train(second, secondGroups, 5, 10)
	for i, p := range Params(secondGroups) {
		if want := Params(groups)[i]; !slices.Equal(p.Value, want.Value) || !slices.Equal(p.M, want.M) || !slices.Equal(p.V, want.V) {
			t.Errorf("%s differs from that of the unbroken run", p.Name)
		}
	}
	if second.Steps() != 10 {
		t.Errorf("Steps() = %d, want 10", second.Steps())
	}
}

func TestRestoreRefuses(t *testing.T) {
	o, groups := newOptimizer(t)
	train(o, groups, 0, 2)
	for _, c := range []struct {
		name   string
		damage func(*State)
		want   string
	}{
		{"missing", func(s *State) { s.Arrays = s.Arrays[1:] }, `no array "m/p0"`},
		{"length", func(s *State) { s.Arrays[3].Data = s.Arrays[3].Data[:16] }, `array "v/p1" has 16 numbers, want 17`},
		{"extra", func(s *State) { s.Arrays = append(s.Arrays, Array{"m/p9", nil}) }, `array "m/p9" that no trained parameter owns`},
	} {
		state := o.State()
		for i := range state.Arrays {
			for j := range state.Arrays[i].Data {
				state.Arrays[i].Data[j] = 99
			}
		}
		state.Steps = 99
		c.damage(&state)
		err := o.Restore(state)
		if err == nil || !strings.Contains(err.Error(), c.want) || fault.KindOf(err) != fault.Resume {
			t.Errorf("%s: error %v, want %q", c.name, err, c.want)
		}
		if o.Steps() != 2 || Params(groups)[0].M[0] == 99 {
			t.Errorf("%s: the optimizer was changed", c.name)
		}
	}
}

func TestStepRefusesOtherRates(t *testing.T) {
	o, _ := newOptimizer(t)
	defer func() {
		if recover() == nil {
			t.Error("one rate for two groups doesn't panic")
		}
	}()
	o.Step([]float64{1}, 1)
}
