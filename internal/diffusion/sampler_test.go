package diffusion

import (
	"fmt"
	"math"
	"slices"
	"testing"
)

func TestSamplersGolden(t *testing.T) {
	for _, name := range SamplerNames() {
		for _, p := range []Prediction{Epsilon, VPrediction} {
			kind := name + "-" + p.String()
			t.Run(kind, func(t *testing.T) {
				read := func(format string, args ...any) []float32 {
					return readGolden(t, "samplers", kind+"."+fmt.Sprintf(format, args...)).Float32()
				}
				s, err := NewSampler(name, NewSchedule(false), p, 10)
				if err != nil {
					t.Fatal(err)
				}
				want := []int{901, 801, 701, 601, 501, 401, 301, 201, 101, 1}
				if !slices.Equal(s.Timesteps(), want) {
					t.Fatalf("timesteps %v, want %v", s.Timesteps(), want)
				}
				sample := read("start")
				for i := range want {
					input := make([]float32, len(sample))
					s.ScaleInput(input, sample)
					checkClose(t, fmt.Sprintf("input of step %d", i), input, read("model_input.%d", i), samplerTolerance)
					s.Step(sample, read("model_output.%d", i))
					checkClose(t, fmt.Sprintf("sample after step %d", i), sample, read("sample.%d", i), samplerTolerance)
				}
			})
		}
	}
}

// samplerTolerance allows ten steps of some eight float32 roundings each, relative to the largest value.
const samplerTolerance = 5e-6

func TestSamplerTimesteps(t *testing.T) {
	for _, c := range []struct {
		steps            int
		first, next, end int
	}{{7, 853, 711, 1}, {30, 958, 925, 1}, {600, 600, 599, 1}, {999, 999, 998, 1}, {1000, 999, 999, 1}} {
		for _, name := range SamplerNames() {
			s, err := NewSampler(name, NewSchedule(false), Epsilon, c.steps)
			if err != nil {
				t.Fatal(err)
			}
			got := s.Timesteps()
			if len(got) != c.steps || got[0] != c.first || got[1] != c.next || got[len(got)-1] != c.end {
				t.Errorf("%s: %d steps are %d, %d … %d (%d), want %d, %d … %d", name, c.steps, got[0], got[1], got[len(got)-1], len(got), c.first, c.next, c.end)
			}
		}
	}
}

// Euler's first noise is √(sigma²+1) strong: diffusers' init_noise_sigma.
func TestInitNoise(t *testing.T) {
	for steps, want := range map[int]float32{1: 1.0008530616760254, 7: 6.6463117599487305, 30: 11.520334243774414, 999: 14.648818969726562} {
		s, err := NewSampler("euler", NewSchedule(false), Epsilon, steps)
		if err != nil {
			t.Fatal(err)
		}
		checkClose(t, "InitNoise", []float32{s.InitNoise()}, []float32{want}, roundings)
	}
	s, err := NewSampler("ddim", NewSchedule(false), Epsilon, 30)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.InitNoise(); got != 1 {
		t.Errorf("DDIM's InitNoise = %v, want 1", got)
	}
}

// A model that knows the latents is led to them, whatever it predicts and however it is sampled: exactly by Euler, which ends at sigma 0, and up to the
// noise of timestep 0 by DDIM, which ends there.
func TestSamplersReachTheLatents(t *testing.T) {
	latents := []float32{0.5, -1.25, 2}
	schedule := NewSchedule(false)
	for _, name := range SamplerNames() {
		for _, p := range []Prediction{Epsilon, VPrediction} {
			s, err := NewSampler(name, schedule, p, 20)
			if err != nil {
				t.Fatal(err)
			}
			sample := []float32{0.3, -0.7, 1.1}
			for i := range sample {
				sample[i] *= s.InitNoise()
			}
			for _, timestep := range s.Timesteps() {
				x, pred := make([]float32, 3), make([]float32, 3)
				s.ScaleInput(x, sample)
				a := schedule.AlphaCumprod(timestep)
				for i := range x {
					noise := (float64(x[i]) - math.Sqrt(a)*float64(latents[i])) / math.Sqrt(1-a)
					pred[i] = float32(noise)
					if p == VPrediction {
						pred[i] = float32(math.Sqrt(a)*noise - math.Sqrt(1-a)*float64(latents[i]))
					}
				}
				s.Step(sample, pred)
			}
			tol := 1e-5
			if name == "ddim" {
				tol = 0.05 // noise of standard deviation √(1-ᾱ(0)) = 0.029
			}
			checkClose(t, name+" "+p.String(), sample, latents, tol)
		}
	}
}

// A zero-terminal-SNR schedule has no infinite sigma.
func TestSamplersZeroSNR(t *testing.T) {
	for _, name := range SamplerNames() {
		s, err := NewSampler(name, NewSchedule(true), VPrediction, 999)
		if err != nil {
			t.Fatal(err)
		}
		sample := []float32{s.InitNoise()}
		for range s.Timesteps() {
			input := make([]float32, 1)
			s.ScaleInput(input, sample)
			s.Step(sample, input)
			if math.IsNaN(float64(sample[0])) || math.IsInf(float64(sample[0]), 0) {
				t.Fatalf("%s: sample is %v", name, sample[0])
			}
		}
	}
}

func TestNewSamplerErrors(t *testing.T) {
	for _, c := range []struct {
		name  string
		steps int
		want  string
	}{
		{"ddim", 0, "0 sampling steps, want 1 to 1000"},
		{"euler", 1001, "1001 sampling steps, want 1 to 1000"},
		{"heun", 20, `unknown sampler "heun", want one of ["ddim" "euler"]`},
	} {
		if _, err := NewSampler(c.name, NewSchedule(false), Epsilon, c.steps); err == nil || err.Error() != c.want {
			t.Errorf("%s, %d steps: error %v, want %s", c.name, c.steps, err, c.want)
		}
	}
}

func TestGuide(t *testing.T) {
	pred := make([]float32, 2)
	Guide(pred, []float32{1, -1}, []float32{2, -3}, 7.5)
	if want := []float32{8.5, -16}; !slices.Equal(pred, want) {
		t.Errorf("Guide = %v, want %v", pred, want)
	}
	cond := []float32{2, -3}
	if Guide(cond, []float32{1, -1}, cond, 1); !slices.Equal(cond, []float32{2, -3}) {
		t.Errorf("Guide at scale 1 = %v, want cond", cond)
	}
}
