package diffusion

import (
	"math"
	"testing"
)

// The check values of the training reference, section 2.2; ᾱ and the zero-terminal-SNR ᾱ are given to nine digits.
func TestSchedule(t *testing.T) {
	plain, zero := NewSchedule(false), NewSchedule(true)
	for _, c := range []struct {
		timestep int
		ab, snr  float64
		zeroAB   float64
		snrTol   float64
	}{
		{0, .999150000, 1175.47, .999150000, 5e-3},
		{100, .894223478, 8.45389, .886761285, 5e-6},
		{250, .673792625, 2.06553, .652457015, 5e-6},
		{500, .276332684, .381850, .241018783, 5e-7},
		{750, .056169848, .0595127, .032799118, 5e-8},
		{999, .004660099, .00468192, 0, 5e-9},
	} {
		if got := plain.AlphaCumprod(c.timestep); math.Abs(got-c.ab) > 5e-10 {
			t.Errorf("AlphaCumprod(%d) = %.10f, want %.9f", c.timestep, got, c.ab)
		}
		if got := plain.SNR(c.timestep); math.Abs(got-c.snr) > c.snrTol {
			t.Errorf("SNR(%d) = %v, want %v", c.timestep, got, c.snr)
		}
		if got := zero.AlphaCumprod(c.timestep); math.Abs(got-c.zeroAB) > 5e-10 {
			t.Errorf("zero-SNR AlphaCumprod(%d) = %.10f, want %.9f", c.timestep, got, c.zeroAB)
		}
	}
	if got := zero.SNR(999); got != 0 {
		t.Errorf("zero-SNR SNR(999) = %v, want 0", got)
	}
	if plain.ZeroTerminalSNR() || !zero.ZeroTerminalSNR() {
		t.Error("ZeroTerminalSNR is mixed up")
	}
}

// The float32 table is torch's, bit for bit.
func TestScheduleFloat32(t *testing.T) {
	want := readGolden(t, "diffusion", "alphas_cumprod").Float32()
	s := NewSchedule(false)
	for i, w := range want {
		if got := s.AlphaCumprod32(i); got != w {
			t.Errorf("AlphaCumprod32(%d) = %v, want %v", i, got, w)
		}
	}
}

// Torch's own figures for rescale_betas_zero_snr, which makes four more float32 roundings for each of up to 1000 factors.
func TestZeroSNRFloat32(t *testing.T) {
	s := NewSchedule(true)
	for timestep, want := range map[int]float64{0: 0.99915, 100: 0.88676107, 250: 0.65245676, 500: 0.24101864, 750: 0.03279908, 999: 0} {
		if got := float64(s.AlphaCumprod32(timestep)); math.Abs(got-want) > 5e-7 {
			t.Errorf("AlphaCumprod32(%d) = %v, want %v", timestep, got, want)
		}
	}
}

func TestTimestepOutside(t *testing.T) {
	for _, timestep := range []int{-1, TrainTimesteps} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("AlphaCumprod(%d) doesn't panic", timestep)
				}
			}()
			NewSchedule(false).AlphaCumprod(timestep)
		}()
	}
}
