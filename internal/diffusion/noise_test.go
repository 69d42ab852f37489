package diffusion

import (
	"slices"
	"testing"
)

func TestNoiseGolden(t *testing.T) {
	latents := readGolden(t, "diffusion", "latents").Float32()
	noise := readGolden(t, "diffusion", "noise").Float32()
	noisy := readGolden(t, "diffusion", "noisy").Float32()
	velocity := readGolden(t, "diffusion", "velocity").Float32()
	s := NewSchedule(false)
	timesteps := readGolden(t, "diffusion", "timesteps").Int64()
	per := len(latents) / len(timesteps)
	for i, timestep := range timesteps {
		item := func(x []float32) []float32 { return x[i*per : (i+1)*per] }
		got := make([]float32, per)
		s.AddNoise(got, item(latents), item(noise), int(timestep))
		checkClose(t, "noisy", got, item(noisy), roundings)
		s.Target(got, item(latents), item(noise), int(timestep), VPrediction)
		checkClose(t, "velocity", got, item(velocity), roundings)
		s.Target(got, item(latents), item(noise), int(timestep), Epsilon)
		if !slices.Equal(got, item(noise)) {
			t.Errorf("epsilon target at %d isn't the noise", timestep)
		}
	}
}

// Without signal the noisy latents are the noise, and the velocity is minus the latents.
func TestPureNoise(t *testing.T) {
	s := NewSchedule(true)
	latents, noise, got := []float32{1, -2}, []float32{0.5, 3}, make([]float32, 2)
	if s.AddNoise(got, latents, noise, 999); !slices.Equal(got, noise) {
		t.Errorf("noisy = %v, want %v", got, noise)
	}
	if s.Target(got, latents, noise, 999, VPrediction); !slices.Equal(got, []float32{-1, 2}) {
		t.Errorf("velocity = %v, want [-1 2]", got)
	}
}

func TestNoiseInPlace(t *testing.T) {
	s := NewSchedule(false)
	latents, noise := []float32{1, -2, 0.25}, []float32{0.5, 3, -1}
	want := make([]float32, 3)
	s.AddNoise(want, latents, noise, 300)
	got := slices.Clone(latents)
	if s.AddNoise(got, got, noise, 300); !slices.Equal(got, want) {
		t.Errorf("in place of the latents: %v, want %v", got, want)
	}
	s.Target(want, latents, noise, 300, VPrediction)
	got = slices.Clone(noise)
	if s.Target(got, latents, got, 300, VPrediction); !slices.Equal(got, want) {
		t.Errorf("in place of the noise: %v, want %v", got, want)
	}
}

// highest draws the largest number that it may.
type highest struct{}

func (highest) IntN(n int) int { return n - 1 }

// lowest draws 0.
type lowest struct{}

func (lowest) IntN(int) int { return 0 }

func TestTimestepRange(t *testing.T) {
	for _, c := range []struct {
		r         TimestepRange
		low, high int
	}{{FullRange, 0, 999}, {TimestepRange{200, 201}, 200, 200}, {TimestepRange{100, 600}, 100, 599}} {
		if low, high := c.r.Sample(lowest{}), c.r.Sample(highest{}); low != c.low || high != c.high {
			t.Errorf("%v gives %d to %d, want %d to %d", c.r, low, high, c.low, c.high)
		}
	}
}

func TestPredictionNames(t *testing.T) {
	if Epsilon.String() != "eps" || VPrediction.String() != "v" {
		t.Errorf("names are %v and %v, want eps and v", Epsilon, VPrediction)
	}
}
