package algostest

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"lycoris/internal/algos"
	"lycoris/internal/kernels"
	"lycoris/internal/kernels/ref"
	"lycoris/internal/rng"
	"lycoris/internal/tensor"
	"lycoris/internal/testutil"
)

// Bounds of the suite, relative to the largest value.
const (
	sameForm = 1e-5 // one form against the other, one backend against ref
	slope    = 2e-4 // gradients against differences of float32 values
	untouchd = 2e-6 // a new adapter against the frozen layer
)

// Layers returns the probes of the suite: every kind of layer that the models have.
func Layers(seed uint64) map[string]Probe {
	r := rand.New(rand.NewPCG(seed, 1))
	values := func(n int, size float64) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(size * r.NormFloat64())
		}
		return v
	}
	all := map[string]Probe{}
	add := func(name string, p Probe, bias, residual, perItem bool) {
		p.Target.Path, p.Target.Name, p.Target.Bias = "unet."+name, "lora_unet_"+name, bias
		p.W = tensor.FromFloat32(tensor.F32, p.Target.Shape, values(tensor.Elems(p.Target.Shape), 0.3))
		p.X = values(tensor.Elems(p.XShape), 1)
		out := tensor.Elems(p.outShape())
		p.DY = values(out, 1)
		if bias {
			p.Bias = values(p.Target.Out(), 1)
		}
		if residual {
			p.Add = values(out, 1)
		}
		if perItem {
			p.PerItem = values(p.XShape[0]*p.Target.Out(), 1)
		}
		all[name] = p
	}
	add("linear", Probe{Target: algos.Target{Shape: []int{16, 12}}, XShape: []int{2, 5, 12}}, true, false, false)
	add("linear_residual", Probe{Target: algos.Target{Shape: []int{8, 24}}, XShape: []int{1, 7, 24}}, false, true, false)
	add("conv1", Probe{Target: algos.Target{Shape: []int{16, 12, 1, 1}, Stride: 1}, XShape: []int{2, 3, 4, 12}}, true, true, false)
	add("conv3", Probe{Target: algos.Target{Shape: []int{8, 12, 3, 3}, Stride: 1, Pad: 1}, XShape: []int{2, 4, 5, 12}}, true, false, true)
	add("conv3_stride", Probe{Target: algos.Target{Shape: []int{16, 8, 3, 3}, Stride: 2, Pad: 1}, XShape: []int{1, 6, 4, 8}}, true, false, false)
	add("conv3_upsample", Probe{Target: algos.Target{Shape: []int{8, 8, 3, 3}, Stride: 1, Pad: 1}, XShape: []int{1, 3, 2, 8}, Upsample: true}, true, false, false)
	add("layer_norm", Probe{Target: algos.Target{Shape: []int{12}}, XShape: []int{2, 3, 12}}, true, false, false)
	add("group_norm", Probe{Target: algos.Target{Shape: []int{12}}, Groups: 3, XShape: []int{2, 4, 3, 12}}, true, false, false)
	return all
}

// Variants returns the options that the suite tries for an algorithm, by name, from what it takes.
func Variants(a *algos.Algorithm) map[string]algos.Options {
	plain := algos.Options{Rank: 4, Alpha: 2}
	all := map[string]algos.Options{"plain": plain}
	vary := func(name, key string, change func(*algos.Options)) {
		if slices.Contains(a.Takes, key) {
			o := plain
			change(&o)
			all[name] = o
		}
	}
	vary("rank 1", "dim", func(o *algos.Options) { o.Rank, o.Alpha = 1, 0 })
	vary("huge dim", "factor", func(o *algos.Options) { o.Rank = 100000 })
	vary("tucker", "tucker", func(o *algos.Options) { o.Tucker = true })
	vary("rs", "rs_lora", func(o *algos.Options) { o.RSLoRA = true })
	vary("scalar", "use_scalar", func(o *algos.Options) { o.UseScalar = true })
	vary("dora in", "dora", func(o *algos.Options) { o.DoRA = "in" })
	vary("dora out", "dora", func(o *algos.Options) { o.DoRA = "out" })
	vary("dora tucker", "dora", func(o *algos.Options) { o.DoRA, o.Tucker = "out", slices.Contains(a.Takes, "tucker") })
	vary("factor 2", "factor", func(o *algos.Options) { o.Rank, o.Factor = 1, 2 })
	vary("factor 4", "factor", func(o *algos.Options) { o.Rank, o.Factor = 1, 4 })
	vary("rank 1 tucker", "factor", func(o *algos.Options) { o.Rank, o.Tucker = 1, true })
	vary("decompose both", "decompose_both", func(o *algos.Options) { o.Rank, o.DecomposeBoth = 1, true })
	vary("full matrix", "full_matrix", func(o *algos.Options) { o.FullMatrix = true })
	vary("unbalanced", "unbalanced", func(o *algos.Options) { o.Rank, o.Unbalanced = 1, true })
	vary("block 2", "block_size", func(o *algos.Options) { o.BlockSize = 2 })
	vary("constraint", "constraint", func(o *algos.Options) { o.Constraint = 0.01 })
	vary("rescaled", "rescaled", func(o *algos.Options) { o.Rescaled = true })
	vary("rescaled constraint", "rescaled", func(o *algos.Options) { o.Rescaled, o.Constraint = true, 0.02 })
	vary("on input", "on_input", func(o *algos.Options) { o.OnInput = true })
	return all
}

// Run checks a on every layer with every variant: a new adapter changes nothing; both forms agree with each other, on ref and on backend, with and without
// recomputation, in a stack and at other strengths; gradients agree with differences; Change is what the forward does; what is saved loads as itself; dropouts
// leave out what they say; a bounded norm is bounded.
func Run(t *testing.T, a *algos.Algorithm, backend kernels.Backend) {
	variants := Variants(a)
	for name, p := range Layers(3) {
		if p.isNorm() != (a == &algos.Norm) {
			continue
		}
		for _, v := range slices.Sorted(maps.Keys(variants)) {
			t.Run(name+"/"+v, func(t *testing.T) {
				c := check{p, a, variants[v], backend}
				if made, err := a.New(p.Target, c.o, rng.New(1, "test", 0, 0)); err != nil {
					t.Skipf("not for this layer: %v", err)
				} else if made == nil {
					t.Skip("not for this layer")
				}
				c.startsUnchanged(t)
				c.forms(t)
				c.gradients(t)
				c.change(t)
				c.saves(t)
				c.dropouts(t)
				c.bound(t)
			})
		}
	}
}

type check struct {
	p       Probe
	a       *algos.Algorithm
	o       algos.Options
	backend kernels.Backend
}

// fresh returns a new adapter in its initial state.
func (c check) fresh(t testing.TB, o algos.Options) algos.Adapter {
	t.Helper()
	a, err := c.a.New(c.p.Target, o, rng.New(1, "test", 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	if s, ok := a.(algos.Starter); ok {
		if err := s.Start(c.p.W.Float32()); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// trained returns an adapter whose trained factors were moved, the same way for every o of one shape.
func (c check) trained(t testing.TB, o algos.Options) algos.Adapter {
	t.Helper()
	a := c.fresh(t, o)
	Move(a)
	return a
}

// Move changes everything that a trains at random, the same way each time.
func Move(a algos.Adapter) {
	r := rand.New(rand.NewPCG(7, 7))
	for _, f := range a.Factors() {
		if f.Frozen {
			continue
		}
		for i := range f.Host {
			f.Host[i] += float32(0.2 * r.NormFloat64())
		}
		if len(f.Host) == 1 {
			f.Host[0] += 0.8 // a scalar near 0 would leave nothing to measure
		}
	}
}

func (c check) with(change func(*algos.Options)) algos.Options {
	o := c.o
	change(&o)
	return o
}

func (c check) startsUnchanged(t *testing.T) {
	base := c.p.Run(t, ref.Open(), nil)
	new := c.p.Run(t, ref.Open(), nil, c.fresh(t, c.o))
	testutil.NearRel(t, "a new adapter's result", new.Y, base.Y, untouchd)
	testutil.NearRel(t, "a new adapter's input gradient", new.DX, base.DX, untouchd)
	moved := c.p.Run(t, ref.Open(), nil, c.trained(t, c.o))
	if e := testutil.MaxRel(moved.Y, base.Y); e < 1e-4 {
		t.Errorf("a trained adapter changes the result by %.1g: nothing was tested", e)
	}
}

func same(t testing.TB, what string, got, want Result) {
	t.Helper()
	testutil.NearRel(t, what+": result", got.Y, want.Y, sameForm)
	testutil.NearRel(t, what+": input gradient", got.DX, want.DX, sameForm)
	if len(got.Grads) != len(want.Grads) {
		t.Errorf("%s: %d gradients, want %d", what, len(got.Grads), len(want.Grads))
	}
	for k, g := range want.Grads {
		testutil.NearRel(t, what+": gradient of "+k, got.Grads[k], g, sameForm)
	}
}

// forms compares every form, backend, plan, stack and strength with the form by the weight on ref.
func (c check) forms(t *testing.T) {
	for _, mu := range []float64{1, 0.7} {
		byWeight := c.with(func(o *algos.Options) { o.Form, o.Strength = algos.FormWeight, mu })
		want := c.p.Run(t, ref.Open(), nil, c.trained(t, byWeight))
		for _, form := range []algos.Form{algos.FormWeight, algos.FormFactors, algos.FormAuto} {
			for _, b := range []kernels.Backend{ref.Open(), c.backend} {
				for _, again := range []bool{false, true} {
					o := byWeight
					o.Form = form
					p := c.p
					p.Recheck = again
					same(t, fmt.Sprintf("strength %v, form %d, %s, recompute %v", mu, form, b.Name(), again), p.Run(t, b, nil, c.trained(t, o)), want)
				}
			}
		}
		if mu != 1 {
			continue
		}
		other := c.trained(t, byWeight)
		for _, f := range other.Factors() {
			for i := range f.Host {
				f.Host[i] *= 0.5
			}
		}
		want = c.p.Run(t, ref.Open(), nil, c.trained(t, byWeight), Clone(t, other, byWeight))
		byFactors := byWeight
		byFactors.Form = algos.FormFactors
		got := c.p.Run(t, ref.Open(), nil, c.trained(t, byFactors), Clone(t, other, byFactors))
		testutil.NearRel(t, "two adapters, one above the other", got.Y, want.Y, sameForm)
	}
}

// gradients compares the gradients of Σ y·dy with differences.
func (c check) gradients(t *testing.T) {
	o := c.with(func(o *algos.Options) { o.Form = algos.FormFactors })
	a := c.trained(t, o)
	for _, added := range []*[]float32{&c.p.Bias, &c.p.Add, &c.p.PerItem} { // they would only round the slopes away
		if *added != nil {
			*added = make([]float32, len(*added))
		}
	}
	want := c.p.Run(t, ref.Open(), nil, a)
	loss := func() float64 {
		var sum float64
		for i, y := range c.p.Run(t, ref.Open(), nil, a).Y {
			sum += float64(y) * float64(c.p.DY[i])
		}
		return sum
	}
	for _, f := range a.Factors() {
		key := f.Param.Name[len(c.p.Target.Name)+1:]
		if g, ok := want.Grads[key]; ok {
			c.slopes(t, key, loss, f.Host, g)
		}
	}
	p := c.p
	c.p.X = slices.Clone(p.X)
	c.slopes(t, "the input", loss, c.p.X, want.DX)
}

// slopes checks a dozen elements spread over x.
func (c check) slopes(t *testing.T, what string, f func() float64, x, dx []float32) {
	t.Helper()
	const step = 1.0 / 32
	var got, want []float32
	for k := range min(12, len(x)) {
		i := k * len(x) / min(12, len(x))
		keep := x[i]
		at := func(d float64) float64 { x[i] = float32(float64(keep) + d); v := f(); x[i] = keep; return v }
		one, two := (at(step)-at(-step))/(2*step), (at(2*step)-at(-2*step))/(4*step)
		want = append(want, float32((4*one-two)/3))
		got = append(got, dx[i])
	}
	var largest float64
	for _, v := range dx {
		largest = max(largest, math.Abs(float64(v)))
	}
	if e := testutil.MaxRelFloor(got, want, largest); !(e <= slope) {
		t.Errorf("gradient of %s: error %.3g of the largest value, want at most %.3g", what, e, slope)
	}
}

// change merges the change into the frozen weight and compares.
func (c check) change(t *testing.T) {
	o := c.with(func(o *algos.Options) { o.Strength = 0.7 })
	a := c.trained(t, o)
	dw, err := algos.Change(ref.Open(), a, c.p.W)
	if err != nil {
		t.Fatal(err)
	}
	merged := c.p
	w := c.p.W.Float32()
	for i := range w {
		w[i] += dw[i]
	}
	merged.W = tensor.FromFloat32(tensor.F32, c.p.W.Shape, w)
	if bc, ok := a.(algos.BiasChanger); ok && c.p.Bias != nil {
		merged.Bias = slices.Clone(c.p.Bias)
		for i, d := range bc.BiasChange() {
			merged.Bias[i] += d
		}
	}
	testutil.NearRel(t, "the merged layer", merged.Run(t, ref.Open(), nil).Y, c.p.Run(t, ref.Open(), nil, a).Y, sameForm)
}

// saves writes and reads the file form.
func (c check) saves(t *testing.T) {
	a := c.trained(t, c.o)
	again := Clone(t, a, algos.Options{})
	if s, ok := again.(algos.Starter); ok {
		if err := s.Start(c.p.W.Float32()); err != nil {
			t.Fatal(err)
		}
	}
	if again.Algorithm() != c.a {
		t.Errorf("loads as %s", again.Algorithm().Name)
	}
	testutil.NearRel(t, "saved and loaded", c.p.Run(t, ref.Open(), nil, again).Y, c.p.Run(t, ref.Open(), nil, a).Y, sameForm)
	shapes := map[string][]int{}
	for _, f := range a.Tensors() {
		if !slices.Contains(c.a.Keys, f.Name) {
			t.Errorf("saves %q, which is not among its keys", f.Name)
		}
		shapes[f.Name] = append([]int{}, f.Shape...)
	}
	if !c.a.Is(func(k string) []int { return shapes[k] }) {
		t.Error("does not know its own file")
	}
	first, second := a.Tensors(), again.Tensors()
	if len(first) != len(second) {
		t.Fatalf("saves %d tensors, then %d", len(first), len(second))
	}
	for i, f := range first {
		if f.Name != second[i].Name || !slices.Equal(f.Shape, second[i].Shape) {
			t.Errorf("saves %s %v, then %s %v", f.Name, f.Shape, second[i].Name, second[i].Shape)
		}
		testutil.NearRel(t, "saved again: "+f.Name, second[i].Float32(), f.Float32(), 1e-6)
	}
	for drop := range shapes {
		left := map[string]tensor.Tensor{}
		for _, f := range first {
			if f.Name != drop {
				left[f.Name] = f.Tensor
			}
		}
		b, err := c.a.Load(c.p.Target, left, algos.Options{})
		if err == nil && b == nil {
			t.Errorf("loads without %s as nothing", drop)
		}
	}
}

// draw fills the inputs of a for a step.
func draw(a algos.Adapter) func(*algos.Network, func(string, []float32)) {
	return func(_ *algos.Network, put func(string, []float32)) {
		for _, in := range a.Inputs() {
			v := make([]float32, in.Size)
			in.Fill(v, rng.New(1, "test", 1, 1), algos.Step{Timesteps: []int{500}})
			put(in.Name, v)
		}
	}
}

// dropouts: with module dropout 1-ε the layer is the frozen one where the draw says so; with nothing drawn the result is the plain one; both forms drop the same.
func (c check) dropouts(t *testing.T) {
	plain := c.p.Run(t, ref.Open(), nil, c.trained(t, c.o))
	base := c.p.Run(t, ref.Open(), nil)
	for _, form := range []algos.Form{algos.FormWeight, algos.FormFactors} {
		o := c.with(func(o *algos.Options) { o.ModuleDropout, o.RankDropout, o.NeuronDropout, o.Form = 1, 0.1, 0.1, form })
		a := c.trained(t, o)
		same(t, "nothing dropped", c.p.Run(t, ref.Open(), nil, a), plain)
		off := c.p.Run(t, ref.Open(), draw(a), a)
		testutil.NearRel(t, "module dropped: result", off.Y, base.Y, untouchd)
		for k, g := range off.Grads {
			for _, v := range g {
				if v != 0 {
					t.Fatalf("module dropped: the gradient of %s is %v", k, v)
				}
			}
		}
	}
	var half [2]Result // half of the rows dropped
	for i, form := range []algos.Form{algos.FormWeight, algos.FormFactors} {
		a := c.trained(t, c.with(func(o *algos.Options) { o.RankDropout, o.Form = 0.5, form }))
		half[i] = c.p.Run(t, ref.Open(), draw(a), a)
	}
	same(t, "rows dropped", half[1], half[0])
}

// bound checks max-norm regularisation where the algorithm has it.
func (c check) bound(t *testing.T) {
	norm := func(a algos.Adapter) float64 {
		dw, err := algos.Change(ref.Open(), a, c.p.W)
		if err != nil {
			t.Fatal(err)
		}
		var sum float64
		for _, v := range dw {
			sum += float64(v) * float64(v)
		}
		return math.Sqrt(sum)
	}
	for _, limit := range []float64{0.05, 1e6} {
		a := c.trained(t, c.with(func(o *algos.Options) { o.MaxNorm = true }))
		bounded, ok := a.(algos.Bounded)
		if !ok {
			return
		}
		was := norm(a)
		if w, ok := a.(algos.Weighed); ok {
			w.Weigh(c.p.W.Float32())
		}
		before, after := bounded.BoundNorm(limit)
		is := norm(a)
		if before > limit && !(after <= limit*1.0001) || before <= limit && after != before {
			t.Errorf("limit %v: norm %v to %v", limit, before, after)
		}
		if c.o.Constraint == 0 && (before > limit) != (is < was*0.9999) { // what a constraint holds doesn't shrink with the values behind it
			t.Errorf("limit %v: norm %v to %v by its word, %v to %v of the change", limit, before, after, was, is)
		}
	}
}
