package optim

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"lycoris/internal/fault"
	"lycoris/internal/kernels"
	"lycoris/internal/kernels/ref"
	"lycoris/internal/tensor"
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

// A parameter that is idle in some updates moves as if they had not been: value, moments and the count that corrects the moments.
func TestIdle(t *testing.T) {
	o, groups := newOptimizer(t)
	now, then := Params(groups)[1], Params(groups)[3]
	for step := range 6 {
		now.Idle, then.Idle = false, step%3 != 1
		train(o, groups, step, step+1)
	}
	all, allGroups := newOptimizer(t)
	train(all, allGroups, 0, 6)
	some, someGroups := newOptimizer(t)
	train(some, someGroups, 1, 2)
	train(some, someGroups, 4, 5)
	for _, c := range []struct{ got, want *Param }{{now, Params(allGroups)[1]}, {then, Params(someGroups)[3]}} {
		if !slices.Equal(c.got.Value, c.want.Value) || !slices.Equal(c.got.M, c.want.M) || !slices.Equal(c.got.V, c.want.V) {
			t.Errorf("%s differs", c.got.Name)
		}
	}
	names := map[string][]float32{}
	for _, a := range o.State().Arrays {
		names[a.Name] = a.Data
	}
	if len(names) != 9 || !slices.Equal(names["steps/p3"], []float32{2}) {
		t.Errorf("the state has %d arrays and steps/p3 = %v, want 9 and 2", len(names), names["steps/p3"])
	}
}

// The decay of a difference to a weight or an array is that of the sum: training the sum gives the same.
func TestOrigin(t *testing.T) {
	whole, wholeGroups := newOptimizer(t)
	_, groups := newOptimizer(t)
	var origins [][]float32
	for i, p := range Params(groups) {
		origin := slices.Clone(p.Value)
		origins = append(origins, origin)
		p.Origin = func() (kernels.Weight, []float32) { return nil, origin }
		if i%2 == 1 {
			w, err := ref.Open().Pack(tensor.FromFloat32(tensor.F32, []int{len(origin), 1}, origin))
			if err != nil {
				t.Fatal(err)
			}
			p.Origin = func() (kernels.Weight, []float32) { return w, nil }
		}
		clear(p.Value)
	}
	options := DefaultOptions()
	options.WeightDecay = 0.5
	whole.options = options
	o, err := NewAdamW(ref.Open(), groups, options)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	train(whole, wholeGroups, 0, 10)
	train(o, groups, 0, 10)
	for i, p := range Params(groups) {
		want := Params(wholeGroups)[i].Value
		for j, d := range p.Value {
			if got := origins[i][j] + d; math.Abs(float64(got-want[j])) > 1e-6 {
				t.Errorf("%s[%d] = %v, want %v", p.Name, j, got, want[j])
			}
		}
	}
}

func TestRestoreIsExact(t *testing.T) {
	for _, idle := range []bool{false, true} {
		t.Run(fmt.Sprint("idle ", idle), func(t *testing.T) { restoreIsExact(t, idle) })
	}
}

func restoreIsExact(t *testing.T, idle bool) {
	train := func(o *AdamW, groups []Group, from, to int) {
		for step := from; step < to; step++ {
			Params(groups)[3].Idle = idle && step%4 < 2
			train(o, groups, step, step+1)
		}
	}
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
		p.steps = 0
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
		{"steps", func(s *State) { s.Arrays = append(s.Arrays, Array{"steps/p1", []float32{100}}) }, `array "steps/p1" is not a number of updates up to 99`},
		{"steps of nothing", func(s *State) { s.Arrays = append(s.Arrays, Array{"steps/p9", []float32{1}}) }, `array "steps/p9" that no trained parameter owns`},
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
