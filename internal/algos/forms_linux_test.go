package algos_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"

	"lycoris/internal/algos"
	"lycoris/internal/graph"
	"lycoris/internal/kernels"
	"lycoris/internal/kernels/cpu"
	"lycoris/internal/nn"
	"lycoris/internal/rng"
	"lycoris/internal/tensor"
)

// formShape is a layer of SD1.5 at 512×512 with the activation that it sees.
type formShape struct {
	name   string
	weight []int // [O,I] or [O,I,kh,kw]
	x      []int
	stride int
}

var formShapes = []formShape{
	{"4096x320x320", []int{320, 320}, []int{1, 4096, 320}, 0},
	{"1024x640x640", []int{640, 640}, []int{1, 1024, 640}, 0},
	{"256x1280x1280", []int{1280, 1280}, []int{1, 256, 1280}, 0},
	{"1024x5120x640", []int{5120, 640}, []int{1, 1024, 640}, 0},
	{"77x768x768", []int{768, 768}, []int{1, 77, 768}, 0},
	{"conv64x320", []int{320, 320, 3, 3}, []int{1, 64, 64, 320}, 1},
	{"conv16x1280", []int{1280, 1280, 3, 3}, []int{1, 16, 16, 1280}, 1},
}

// formOptions are settings that people use.
var formOptions = []struct {
	name string
	algo *algos.Algorithm
	o    algos.Options
}{
	{"lokr-4", &algos.LoKr, algos.Options{Rank: 4}},
	{"lokr-full", &algos.LoKr, algos.Options{FullMatrix: true, Rank: 4}},
	{"lokr-full-f8", &algos.LoKr, algos.Options{FullMatrix: true, Rank: 4, Factor: 8}},
	{"lokr-16-f4", &algos.LoKr, algos.Options{Rank: 16, Factor: 4}},
	{"glokr-4", &algos.GLoKr, algos.Options{Rank: 4}},
	{"glokr-full-f8", &algos.GLoKr, algos.Options{FullMatrix: true, Rank: 4, Factor: 8}},
	{"glora-4", &algos.GLoRA, algos.Options{Rank: 4}},
	{"glora-64", &algos.GLoRA, algos.Options{Rank: 64}},
	{"ia3", &algos.IA3, algos.Options{}},
	{"ia3-input", &algos.IA3, algos.Options{OnInput: true}},
	{"dylora-16", &algos.DyLoRA, algos.Options{Rank: 16}},
	{"full", &algos.Full, algos.Options{}},
	{"diag-oft-8", &algos.DiagOFT, algos.Options{Rank: 8}},
	{"diag-oft-16", &algos.DiagOFT, algos.Options{Rank: 16}},
	{"boft-16", &algos.BOFT, algos.Options{Rank: 16}},
	{"boft-32", &algos.BOFT, algos.Options{Rank: 32}},
}

// BenchmarkForms times forward and gradient of one layer, frozen, by each form and by the one that FormAuto takes, in milliseconds of one thread. It is
// processor time and the best of all runs, the forms in turn, so that a busy machine doesn't decide.
func BenchmarkForms(b *testing.B) {
	backend, err := cpu.Open(cpu.Options{Threads: 1})
	if err != nil {
		b.Fatal(err)
	}
	defer backend.Close()
	for _, s := range formShapes {
		for _, v := range formOptions {
			b.Run(fmt.Sprintf("%s/%s", s.name, v.name), func(b *testing.B) {
				var steps []func()
				for _, f := range []algos.Form{0, algos.FormWeight, algos.FormFactors, algos.FormAuto} {
					o := v.o
					o.Form = f
					step, free := s.step(b, backend, v.algo, o, len(steps) == 0)
					defer free()
					steps = append(steps, step)
				}
				best := []float64{1e9, 1e9, 1e9, 1e9}
				for b.Loop() {
					for i, step := range steps {
						t := processorTime()
						step()
						best[i] = min(best[i], processorTime()-t)
					}
				}
				b.ReportMetric(0, "ns/op")
				for i, form := range []string{"frozen-ms", "weight-ms", "factors-ms", "auto-ms"} {
					b.ReportMetric(best[i], form)
				}
			})
		}
	}
}

// processorTime returns the milliseconds that the process has used.
func processorTime() float64 {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		panic(err)
	}
	return float64(r.Utime.Nano()+r.Stime.Nano()) / 1e6
}

// step returns a function that runs forward and gradient of the layer once, without an adapter where frozen is set.
func (s formShape) step(b *testing.B, k kernels.Backend, a *algos.Algorithm, o algos.Options, frozen bool) (run func(), free func()) {
	target := algos.Target{Path: "unet.x", Name: "lora_unet_x", Shape: s.weight, Stride: s.stride}
	if len(s.weight) == 4 {
		target.Pad = s.weight[2] / 2
	}
	var adapters []algos.Adapter
	if !frozen {
		adapter, err := a.New(target, o, rng.New(1, "bench", 0, 0))
		if err != nil {
			b.Fatal(err)
		}
		adapters = append(adapters, adapter)
	}
	n := algos.NewNetwork(adapters)
	if err := n.Allocate(k); err != nil {
		b.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	random := func(shape []int) []float32 {
		v := make([]float32, tensor.Elems(shape))
		for i := range v {
			v[i] = r.Float32() - 0.5
		}
		return v
	}
	packed, err := k.Pack(tensor.FromFloat32(tensor.F16, s.weight, random(s.weight)))
	if err != nil {
		b.Fatal(err)
	}
	g := &graph.Graph{}
	leaves := nn.NewLeaves(g)
	x := leaves.Input("x", s.x...)
	layer := &nn.Layer{Path: target.Path, W: &graph.Weight{Name: "W", Shape: s.weight, Packed: packed}, IsConv: target.IsConv(),
		Conv: graph.ConvOptions{Stride: s.stride, Pad: graph.SamePad(target.Pad)}}
	wrt := []*graph.Node{x}
	var out *graph.Node
	if frozen {
		out = layer.Base(g, x, nn.Extra{})
	} else {
		builder := nn.NewBuilder(leaves, nil, "unet", nil)
		out = adapters[0].Forward(builder, layer, x, nn.Extra{})
		for _, f := range n.Factors() {
			if !f.Frozen {
				wrt = append(wrt, leaves.Param(f.Param))
			}
		}
	}
	outputs := append([]*graph.Node{out}, g.Grad([]*graph.Node{out}, []*graph.Node{leaves.Input("dy", out.Shape()...)}, wrt)...)
	plan := graph.NewPlan(g, outputs, graph.PlanOptions{})
	arena, err := k.Alloc(plan.Floats())
	if err != nil {
		b.Fatal(err)
	}
	p, err := plan.Bind(k, arena)
	if err != nil {
		b.Fatal(err)
	}
	p.Set("x", random(s.x))
	p.Set("dy", random(out.Shape()))
	n.KeepAll(p.Set)
	run = func() {
		if err := p.Run(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
	return run, func() { k.Free(arena); k.Release(packed); n.Free(k) }
}
