package algos_test

import (
	"math"
	"testing"

	"lycoris/internal/algos"
	"lycoris/internal/algos/algostest"
	"lycoris/internal/kernels/ref"
	"lycoris/internal/rng"
	"lycoris/internal/tensor"
	"lycoris/internal/testutil"
)

// Rank dropout of diag-oft leaves out elements of R, those of its diagonal too, and scales up the others, the same ones in both forms; boft knows none.
func TestRotationDropout(t *testing.T) {
	const width, p = 32, 0.25
	eye := make([]float32, width*width)
	for i := range width {
		eye[i*width+i] = 1
	}
	target := algos.Target{Path: "unet.x", Name: "lora_unet_x", Shape: []int{width, width}}
	probe := algostest.Probe{Target: target, W: tensor.FromFloat32(tensor.F32, target.Shape, eye), XShape: []int{width, width}, X: eye, DY: eye}
	run := func(a *algos.Algorithm, form algos.Form) []float32 {
		ad, err := a.New(target, algos.Options{Rank: 4, RankDropout: p, Form: form}, rng.New(1, "test", 0, 0))
		if err != nil {
			t.Fatal(err)
		}
		return probe.Run(t, ref.Open(), func(_ *algos.Network, put func(string, []float32)) {
			put(algos.SeedInput, []float32{math.Float32frombits(123), math.Float32frombits(456), 1})
		}, ad).Y
	}
	testutil.NearRel(t, "boft", run(&algos.BOFT, algos.FormWeight), eye, 0)
	y := run(&algos.DiagOFT, algos.FormWeight)
	testutil.NearRel(t, "the other form", run(&algos.DiagOFT, algos.FormFactors), y, 1e-6)
	dropped := 0
	for i, v := range y { // an untrained R is the identity
		on := i%(width+1) == 0
		switch {
		case on && v == 0:
			dropped++
		case on && math.Abs(float64(v)-1/(1-p)) > 1e-6, !on && v != 0:
			t.Errorf("element %d is %v", i, v)
		}
	}
	if dropped == 0 || dropped > width/2 {
		t.Errorf("%d of %d are left out, p = %v", dropped, width, p)
	}
}
