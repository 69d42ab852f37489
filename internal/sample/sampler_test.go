package sample

import (
	"context"
	"errors"
	"image"
	"path/filepath"
	"slices"
	"testing"

	"lycoris/internal/adapter"
	"lycoris/internal/algos"
	"lycoris/internal/checkpoint"
	"lycoris/internal/diffusion"
	"lycoris/internal/fault"
	"lycoris/internal/kernels"
	"lycoris/internal/kernels/cpu"
	"lycoris/internal/kernels/ref"
	"lycoris/internal/network"
	"lycoris/internal/pipeline"
	"lycoris/internal/rng"
	"lycoris/internal/tensor"
	"lycoris/internal/testutil/tinymodel"
)

// studio is the tiny model on the CPU engine.
type studio struct {
	t       *testing.T
	base    *checkpoint.Model
	backend kernels.Backend
	model   *pipeline.Model
}

func newStudio(t *testing.T, path string, threads int) *studio {
	t.Helper()
	base, err := checkpoint.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := cpu.Open(cpu.Options{Threads: threads})
	if err != nil {
		t.Skip("no C engine: ", err)
	}
	s := &studio{t, base, b, pipeline.New(base, nil, b)}
	t.Cleanup(func() { s.model.Close(); base.Close(); b.Close() })
	return s
}

func writeModel(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "m.safetensors")
	if err := tinymodel.WriteTiny(path, 1, checkpoint.SingleFile); err != nil {
		t.Fatal(err)
	}
	return path
}

// network returns adapters of rank 2 on every layer whose up factors aren't zero, times strength.
func (s *studio) network(seed uint64, strength float32, o algos.Options) *algos.Network {
	s.t.Helper()
	o.Rank = 2
	var all []algos.Adapter
	for i, target := range network.Targets(s.base) {
		if target.IsNorm() {
			continue
		}
		stream := rng.New(seed, "test", 0, uint64(i))
		a, err := algos.LoRA.New(target.Target, o, stream)
		if err != nil {
			s.t.Fatal(err)
		}
		up := a.Factors()[0].Host
		stream.FillNormal(up)
		for i := range up {
			up[i] *= 0.1 * strength
		}
		all = append(all, a)
	}
	n := algos.NewNetwork(all)
	if err := n.Allocate(s.backend); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { n.Free(s.backend) })
	return n
}

func (s *studio) sampler(networks ...*algos.Network) *Sampler {
	return New(s.model, pipeline.TextOptions{ClipSkip: 1, MaxTokens: 75}, diffusion.Epsilon, networks...)
}

func (s *studio) picture(from *Sampler, p Prompt) []uint8 {
	s.t.Helper()
	steps := 0
	img, err := from.Picture(context.Background(), p, func(step, of int) {
		if steps++; step != steps || of != p.Steps {
			s.t.Errorf("progress says %d of %d after %d steps", step, of, steps)
		}
	})
	if err != nil {
		s.t.Fatal(err)
	}
	if img.Bounds() != image.Rect(0, 0, p.W, p.H) || steps != p.Steps {
		s.t.Fatalf("%v in %d steps, want %dx%d in %d", img.Bounds(), steps, p.W, p.H, p.Steps)
	}
	return img.(*image.NRGBA).Pix
}

// most returns the largest difference of two pictures, in steps of 8 bits.
func most(a, b []uint8) int {
	d := 0
	for i := range a {
		d = max(d, int(a[i])-int(b[i]), int(b[i])-int(a[i]))
	}
	return d
}

// small is quick to make; its latents are 11×8, so that the UNet meets odd sizes.
var small = Prompt{Text: "a cat", Negative: "a dog", W: 64, H: 88, Seed: 7, Steps: 3, CFG: 4, Sampler: "ddim"}

// The same prompt gives the same bytes on any number of threads, whatever was made before; anything that it says makes a difference.
func TestDeterministic(t *testing.T) {
	path := writeModel(t)
	two := newStudio(t, path, 2)
	sampler := two.sampler(two.network(1, 1, algos.Options{}))
	want := two.picture(sampler, small)
	for name, change := range map[string]func(*Prompt){
		"seed": func(p *Prompt) { p.Seed++ }, "sampler": func(p *Prompt) { p.Sampler = "euler" }, "steps": func(p *Prompt) { p.Steps++ },
		"guidance": func(p *Prompt) { p.CFG = 1 }, "text": func(p *Prompt) { p.Text = "a house" }, "negative": func(p *Prompt) { p.Negative = "" },
	} {
		p := small
		change(&p)
		if got := two.picture(sampler, p); slices.Equal(got, want) {
			t.Errorf("another %s makes no difference", name)
		}
	}
	other := small
	other.W = 72
	two.picture(sampler, other)
	if got := two.picture(sampler, small); !slices.Equal(got, want) {
		t.Error("the second time, the picture differs")
	}
	one := newStudio(t, path, 1)
	if got := one.picture(one.sampler(one.network(1, 1, algos.Options{})), small); !slices.Equal(got, want) {
		t.Errorf("with one thread the picture differs by %d", most(got, want))
	}
}

// Guidance of scale 1 asks once; scale 1+tiny asks twice and must say the same: cond and uncond are in their places.
func TestGuidanceOfOne(t *testing.T) {
	s := newStudio(t, writeModel(t), 2)
	sampler := s.sampler()
	p := small
	p.CFG = 1
	once := s.picture(sampler, p)
	p.CFG = 1.000001
	if d := most(once, s.picture(sampler, p)); d > 1 {
		t.Errorf("the picture differs by %d", d)
	}
}

// Two halves of an adapter one on another are the adapter; dropouts, a trainer's matter, drop nothing here.
func TestAdapters(t *testing.T) {
	s := newStudio(t, writeModel(t), 2)
	plain := s.picture(s.sampler(), small)
	want := s.picture(s.sampler(s.network(1, 1, algos.Options{})), small)
	if most(plain, want) < 10 {
		t.Fatalf("the adapter changes the picture by %d only", most(plain, want))
	}
	half := s.picture(s.sampler(s.network(1, 0.5, algos.Options{}), s.network(1, 0.5, algos.Options{})), small)
	if d := most(half, want); d > 1 {
		t.Errorf("two halves differ from the whole by %d", d)
	}
	dropped := s.picture(s.sampler(s.network(1, 1, algos.Options{RankDropout: 0.5, ModuleDropout: 0.5, NeuronDropout: 0.5})), small)
	if d := most(dropped, want); d > 1 {
		t.Errorf("with dropouts the picture differs by %d", d)
	}
}

func TestPictureErrors(t *testing.T) {
	s := newStudio(t, writeModel(t), 2)
	p := small
	p.W = 100
	if _, err := s.sampler().Picture(context.Background(), p, nil); fault.KindOf(err) != fault.Usage {
		t.Errorf("%v, want a usage error", err)
	}
	cause := errors.New("enough")
	ctx, stop := context.WithCancelCause(context.Background())
	_, err := s.sampler().Picture(ctx, small, func(int, int) { stop(cause) })
	if !errors.Is(err, cause) {
		t.Errorf("%v, want the cause of the stop", err)
	}
}

// An adapter read with a strength changes its layers by as much of what its file says.
func TestStrength(t *testing.T) {
	s := newStudio(t, writeModel(t), 2)
	path := filepath.Join(t.TempDir(), "a.safetensors")
	if err := adapter.Save(path, s.network(1, 1, algos.Options{}).Tensors(), nil, tensor.F32); err != nil {
		t.Fatal(err)
	}
	load := func(strength float64) []float32 {
		n, err := network.Load(path, s.base, "", algos.Options{Strength: strength})
		if err != nil {
			t.Fatal(err)
		}
		a := n.Adapters[0]
		change, err := algos.Change(ref.Open(), a, tensor.FromFloat32(tensor.F32, a.Target().Shape, make([]float32, tensor.Elems(a.Target().Shape))))
		if err != nil {
			t.Fatal(err)
		}
		return change
	}
	whole, same, minusHalf := load(0), load(1), load(-0.5)
	if !slices.Equal(whole, same) {
		t.Error("strength 0 isn't the file's own")
	}
	for i, v := range whole {
		if v == 0 || minusHalf[i] != -0.5*v {
			t.Fatalf("element %d is %v, want -0.5 times %v", i, minusHalf[i], v)
		}
	}
}
