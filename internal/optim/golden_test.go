package optim

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"testing"

	"lycoris/internal/kernels/ref"
	"lycoris/internal/tensor"
)

const goldens = "../../testdata/golden/" // made by scripts/goldens/training.py

// updateTolerance allows torch's float32 arithmetic: some six roundings for each of five updates, relative to the tensor's largest value.
const updateTolerance = 1e-6

// Five updates by torch.optim.AdamW, the first at rate 0, of three tensors whose gradients differ by powers of ten.
func TestAdamWGolden(t *testing.T) {
	f, err := tensor.OpenFile(goldens + "adamw.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	read := func(format string, args ...any) []float32 {
		v, err := f.Read(fmt.Sprintf(format, args...))
		if err != nil {
			t.Fatal(err)
		}
		return v.Float32()
	}
	var hyper struct {
		Betas       [2]float64
		Eps         float64
		WeightDecay float64 `json:"weight_decay"`
		LR          []float64
	}
	if err := json.Unmarshal([]byte(f.Metadata()["hyper"]), &hyper); err != nil {
		t.Fatal(err)
	}

	// Two groups, to see that both are reached.
	var groups []Group
	for i := range 3 {
		value := read("p%d.0", i)
		p := &Param{Name: fmt.Sprint("p", i), Value: value, Grad: make([]float32, len(value))}
		if i < 2 {
			groups = append(groups, Group{Name: fmt.Sprint("group", i)})
		}
		last := &groups[len(groups)-1]
		last.Params = append(last.Params, p)
	}
	o, err := NewAdamW(ref.Open(), groups, Options{hyper.Betas[0], hyper.Betas[1], hyper.Eps, hyper.WeightDecay})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if len(hyper.LR) != 5 {
		t.Fatalf("golden has %d updates, want 5", len(hyper.LR))
	}
	for step, lr := range hyper.LR {
		for i, p := range Params(groups) {
			// Half of the gradient, doubled by the scale: exact, and the scale is used.
			for j, g := range read("g%d.%d", i, step+1) {
				p.Grad[j] = g / 2
			}
		}
		o.Step([]float64{lr, lr}, 2)
		for i, p := range Params(groups) {
			checkClose(t, fmt.Sprintf("p%d after %d", i, step+1), p.Value, read("p%d.%d", i, step+1))
		}
	}
	for i, p := range Params(groups) {
		checkClose(t, p.Name+" first moment", p.M, read("m%d", i))
		checkClose(t, p.Name+" second moment", p.V, read("v%d", i))
	}
	if o.Steps() != 5 {
		t.Errorf("Steps() = %d, want 5", o.Steps())
	}
}

// The factors of diffusers' get_scheduler for constant, linear and cosine, one step beyond the last included.
func TestScheduleGolden(t *testing.T) {
	text, err := os.ReadFile(goldens + "schedules.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Name          string
		Steps, Warmup int
		Factors       []float64
	}
	if err := json.Unmarshal(text, &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) < 15 {
		t.Fatalf("golden has %d cases, want 15", len(cases))
	}
	for _, c := range cases {
		s, err := NewSchedule(c.Name, c.Steps, float64(c.Warmup), 0)
		if err != nil {
			t.Fatal(err)
		}
		for step, want := range c.Factors {
			if got := s.LR(1, step); math.Abs(got-want) > 1e-15 {
				t.Errorf("%s, %d steps, %d warmup, step %d: %v, want %v", c.Name, c.Steps, c.Warmup, step, got, want)
			}
		}
	}
}

// checkClose fails where got differs from want by more than updateTolerance of want's largest value.
func checkClose(t *testing.T, what string, got, want []float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d elements, want %d", what, len(got), len(want))
	}
	var largest float64
	for _, w := range want {
		largest = max(largest, math.Abs(float64(w)))
	}
	for i := range want {
		if diff := math.Abs(float64(got[i]) - float64(want[i])); !(diff <= updateTolerance*largest) {
			t.Errorf("%s[%d] = %v, want %v within %.1e", what, i, got[i], want[i], updateTolerance*largest)
			return
		}
	}
}
