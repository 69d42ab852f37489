package graph

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"lycoris/internal/kernels"
	"lycoris/internal/kernels/ref"
	"lycoris/internal/tensor"
	"lycoris/internal/testutil"
)

// world makes leaves with fixed random values.
type world struct {
	b   kernels.Backend
	r   *rand.Rand
	g   *Graph
	in  map[string][]float32
	all []*Param
}

func newWorld() *world {
	return &world{b: ref.Open(), r: rand.New(rand.NewPCG(1, 2)), g: &Graph{}, in: map[string][]float32{}}
}

func (w *world) values(n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(w.r.NormFloat64()) * 0.2
	}
	return v
}

func (w *world) input(name string, shape ...int) *Node {
	w.in[name] = w.values(tensor.Elems(shape))
	return w.g.Input(name, shape...)
}

func (w *world) weight(shape ...int) *Weight {
	packed, err := w.b.Pack(tensor.FromFloat32(tensor.F32, shape, w.values(tensor.Elems(shape))))
	if err != nil {
		panic(err)
	}
	return &Weight{Name: "w", Shape: shape, Packed: packed}
}

func (w *world) vector(shape ...int) *Node {
	return w.g.Vector(&Vector{Name: "v", Shape: shape, Data: w.values(tensor.Elems(shape))})
}

func (w *world) param(shape ...int) *Node {
	n := tensor.Elems(shape)
	p := &Param{Name: "p", Shape: shape, Value: w.values(n), Grad: make([]float32, n)}
	w.all = append(w.all, p)
	return w.g.Param(p)
}

// run sets the inputs, clears the gradients and runs.
func (w *world) run(t *testing.T, p *Program) {
	t.Helper()
	for name, v := range w.in {
		p.Set(name, v)
	}
	for _, q := range w.all {
		clear(q.Grad)
	}
	if err := p.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// block builds something with every op of the engine: x [2,4,4,8] to a loss [2].
func block(w *world) (loss *Node, params []*Node) {
	g := w.g
	x := w.input("x", 2, 4, 4, 8)
	emb := w.input("emb", 2, 8)
	p1, p2, p3 := w.param(4, 8), w.param(8, 4), w.param(8, 8, 3, 3)
	scale, row := w.param(1), w.param(8)
	wl, wc, ws := w.weight(8, 8), w.weight(8, 8, 3, 3), w.weight(16, 16)
	gamma, beta := w.vector(8), w.vector(8)
	var h, skip *Node
	g.Segment(func() {
		n := g.GroupNorm(x, gamma, beta, 4, 1e-5, true)
		h = g.Conv2d(n, wc, beta, g.Activate(emb, kernels.SiLU), x, ConvOptions{Pad: SamePad(1)})
		down := g.MatMul(h, p1, MatMulOptions{TransB: true})
		h = g.MatMul(down, p2, MatMulOptions{TransB: true, Alpha: 0.7, Add: g.Linear(h, wl, beta, nil)})
		skip = h
	})
	g.Segment(func() {
		t := g.LayerNorm(g.MulBlocks(h, row, 1), gamma, beta, 1e-5)
		q := g.Linear(t, wl, nil, nil)
		a := g.Attention(q, g.Linear(t, wl, beta, nil), t, 2, false)
		h = g.Add(h, g.MulBlocks(a, scale, a.Elems()))
	})
	g.Segment(func() {
		c := g.Linear(g.Concat(h, skip), ws, nil, nil)
		e := g.GEGLU(c)
		f := g.ConvFree(e, p3, beta, nil, nil, ConvOptions{Stride: 2, Pad: [4]int{0, 0, 1, 1}})
		u := g.Upsample(f)
		h = g.Combine(u, 0.5, g.Permute(g.Reshape(h, 2, 16, 8), 0, 1, 2), 2)
	})
	loss = g.SquaredError(h, w.input("target", 2, 4, 4, 8))
	return loss, []*Node{p1, p2, p3, scale, row}
}

// build compiles block with gradients; every parameter's gradient is accumulated.
func build(t *testing.T, recompute, separate bool) (*world, *Program) {
	t.Helper()
	w := newWorld()
	loss, params := block(w)
	seed := w.input("seed", 2)
	outputs := []*Node{loss}
	for i, d := range w.g.Grad([]*Node{loss}, []*Node{seed}, params) {
		if d == nil {
			t.Fatalf("parameter %d has no gradient", i)
		}
		outputs = append(outputs, w.g.Accumulate(w.all[i], d))
	}
	plan := NewPlan(w.g, outputs, PlanOptions{Recompute: recompute})
	bind := func() (*Program, error) { return plan.Bind(w.b, nil) }
	if separate {
		bind = func() (*Program, error) { return plan.BindSeparately(w.b) }
	}
	p, err := bind()
	if err != nil {
		t.Fatal(err)
	}
	return w, p
}

func TestGradientOfEveryOp(t *testing.T) {
	w, p := build(t, false, false)
	w.run(t, p)
	value := func() float64 {
		w.run(t, p)
		l, seed := p.Output(0), w.in["seed"]
		return float64(l[0])*float64(seed[0]) + float64(l[1])*float64(seed[1])
	}
	grads := make([][]float32, len(w.all))
	for i, q := range w.all {
		grads[i] = append([]float32(nil), q.Grad...)
	}
	const step = 1e-2 // central differences of float32 values: rounding 1e-7/step, curvature step²
	for i, q := range w.all {
		for _, j := range []int{0, len(q.Value) / 2, len(q.Value) - 1} {
			old := q.Value[j]
			q.Value[j] = old + step
			up := value()
			q.Value[j] = old - step
			down := value()
			q.Value[j] = old
			want := (up - down) / (2 * step)
			if got := float64(grads[i][j]); math.Abs(got-want) > 2e-3*math.Max(1, math.Abs(want)) {
				t.Errorf("parameter %d element %d: gradient %g, differences give %g", i, j, got, want)
			}
		}
	}
}

// The arena, recomputation and one allocation per buffer are three ways to the same bytes.
func TestMemoryModesAgree(t *testing.T) {
	w, p := build(t, false, false)
	w.run(t, p)
	for _, mode := range []struct {
		name                string
		recompute, separate bool
	}{{"recompute", true, false}, {"separate", false, true}, {"recompute separate", true, true}} {
		w2, p2 := build(t, mode.recompute, mode.separate)
		for range 2 {
			w2.run(t, p2)
		}
		for i, q := range w.all {
			for j, want := range q.Grad {
				if got := w2.all[i].Grad[j]; got != want {
					t.Fatalf("%s: gradient of parameter %d, element %d: %g, want %g", mode.name, i, j, got, want)
				}
			}
		}
		if mode.recompute && !mode.separate {
			if p2.plan.floats >= p.plan.floats || p2.plan.Steps() <= p.plan.Steps() {
				t.Errorf("recomputation: %d floats in %d steps, without %d in %d", p2.plan.floats, p2.plan.Steps(), p.plan.floats, p.plan.Steps())
			}
		}
	}
}

func TestBuffersThatLiveTogetherDontOverlap(t *testing.T) {
	_, p := build(t, false, false)
	all := p.plan.buffers
	for i, a := range all {
		for _, b := range all[:i] {
			if a.first <= b.last && b.first <= a.last && a.offset < b.offset+b.size && b.offset < a.offset+a.size {
				t.Errorf("buffers [%d,%d) of steps %d–%d and [%d,%d) of steps %d–%d overlap", a.offset, a.offset+a.size, a.first, a.last,
					b.offset, b.offset+b.size, b.first, b.last)
			}
		}
	}
}

func TestFrozenBranchesHaveNoGradient(t *testing.T) {
	w := newWorld()
	g := w.g
	x := w.input("x", 2, 8)
	frozen := g.Linear(x, w.weight(8, 8), nil, nil)
	p := w.param(8, 8)
	loss := g.SquaredError(g.MatMul(frozen, p, MatMulOptions{}), w.input("target", 2, 8))
	before := len(g.nodes)
	g.Grad([]*Node{loss}, []*Node{w.input("seed", 2)}, []*Node{p})
	for _, n := range g.nodes[before:] {
		if _, ok := n.op.(linearGrad); ok {
			t.Error("the gradient of a frozen layer below the first parameter was built")
		}
	}
}

func TestRunStops(t *testing.T) {
	w, p := build(t, false, false)
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(context.Canceled)
	if err := p.Run(ctx); err != context.Canceled {
		t.Errorf("got %v", err)
	}
	_ = w
}

// TestGradientOfAdapterOps: the ops of weights and rotations, each in a loss of its own.
func TestGradientOfAdapterOps(t *testing.T) {
	for _, c := range []struct {
		name  string
		build func(w *world) *Node
	}{
		{"Cayley", func(w *world) *Node { return w.g.Cayley(w.param(3, 4, 4), 0) }},
		{"Cayley, bounded", func(w *world) *Node { return w.g.Cayley(w.param(3, 4, 4), 0.5) }},
		{"NormRatio of SumBlocks of a square", func(w *world) *Node {
			m := w.param(4, 6)
			return w.g.MulBlocks(m, w.g.NormRatio(w.param(4, 1), w.g.SumBlocks(m, m, []int{4, 1}, 6), 1e-3, 0.7), 6)
		}},
		{"ConcatRows", func(w *world) *Node {
			x, y := w.param(2, 3), w.param(1, 3)
			return w.g.Mul(w.g.ConcatRows(x, y, w.g.Items(x, 1, 2)), w.g.ConcatRows(y, w.param(3, 3)))
		}},
		{"BlockMatMul", func(w *world) *Node {
			return w.g.BlockMatMul(w.g.BlockMatMul(w.param(3, 2, 6), w.param(3, 2, 4), false), w.param(3, 5, 4), true)
		}},
		{"MatMul with bias", func(w *world) *Node {
			return w.g.MatMul(w.param(2, 3, 4), w.param(5, 4), MatMulOptions{TransB: true, Alpha: 0.5, Bias: w.param(5), Add: w.param(2, 3, 5)})
		}},
		{"BatchMatMul by a shared matrix from the left", func(w *world) *Node {
			return w.g.BatchMatMul(w.param(2, 4), w.g.BatchMatMul(w.param(3, 4), w.param(5, 3, 6), MatMulOptions{TransA: true}), MatMulOptions{Alpha: 0.5})
		}},
		{"BatchMatMul by a shared matrix from the right", func(w *world) *Node {
			return w.g.BatchMatMul(w.g.BatchMatMul(w.param(5, 3, 6), w.param(6, 4), MatMulOptions{}), w.param(3, 2), MatMulOptions{TransA: true, Add: w.param(5, 4, 2)})
		}},
		{"LinearChanged", func(w *world) *Node {
			y := w.g.LinearChanged(w.param(2, 3, 6), w.weight(5, 6), w.param(5, 6), w.param(5), w.param(2, 3, 5))
			return w.g.LinearChanged(y, w.weight(4, 5, 1, 1), w.param(4, 5), nil, nil)
		}},
		{"Items", func(w *world) *Node {
			x := w.param(4, 3)
			return w.g.Mul(w.g.Items(x, 0, 3), w.g.Items(x, 1, 4))
		}},
	} {
		t.Run(c.name, func(t *testing.T) { checkGradients(t, c.build) })
	}
}

// checkGradients compares the gradients of a squared error of what build makes with central differences.
func checkGradients(t *testing.T, build func(w *world) *Node) {
	w := newWorld()
	y := build(w)
	loss := w.g.SquaredError(y, w.input("target", y.Shape()...))
	var params []*Node
	for _, n := range w.g.nodes {
		if _, ok := n.op.(paramLeaf); ok {
			params = append(params, n)
		}
	}
	w.in["seed"] = make([]float32, loss.Elems())
	for i := range w.in["seed"] {
		w.in["seed"][i] = 1 + float32(i)
	}
	outputs := []*Node{loss}
	for i, d := range w.g.Grad([]*Node{loss}, []*Node{w.g.Input("seed", loss.Shape()...)}, params) {
		outputs = append(outputs, w.g.Accumulate(w.all[i], d))
	}
	p, err := NewPlan(w.g, outputs, PlanOptions{}).BindSeparately(w.b)
	if err != nil {
		t.Fatal(err)
	}
	value := func() (sum float64) {
		w.run(t, p)
		for i, l := range p.Output(0) {
			sum += float64(l) * float64(w.in["seed"][i])
		}
		return sum
	}
	w.run(t, p)
	var grads [][]float32
	for _, q := range w.all {
		grads = append(grads, append([]float32(nil), q.Grad...))
	}
	for i, q := range w.all {
		testutil.CheckGrad(t, value, q.Value, grads[i], 1.0/64, 2e-4)
	}
}

// Gradients that are accumulated as they become whole are those that Grad returns, and don't wait for the end: the arena is smaller.
func TestGradInto(t *testing.T) {
	b := ref.Open()
	build := func(early bool) (*Plan, []*Param) {
		g := &Graph{}
		x := g.Input("x", 4, 6)
		var leaves []*Node
		var params []*Param
		y := x
		for range 6 {
			p := &Param{Name: "p", Shape: []int{6, 6}, Value: make([]float32, 36), Grad: make([]float32, 36)}
			for i := range p.Value {
				p.Value[i] = float32(i%7)*0.1 - 0.2
			}
			params = append(params, p)
			leaves = append(leaves, g.Param(p))
			y = g.BlockMatMul(y, g.Reshape(leaves[len(leaves)-1], 1, 6, 6), true) // its gradient can't add: it needs a sink
		}
		seed := g.Input("dy", 4, 6)
		outputs := []*Node{y}
		if early {
			outputs = append(outputs, g.GradInto([]*Node{y}, []*Node{seed}, leaves, params)...)
		} else {
			for i, d := range g.Grad([]*Node{y}, []*Node{seed}, leaves) {
				outputs = append(outputs, g.Accumulate(params[i], d))
			}
		}
		return NewPlan(g, outputs, PlanOptions{}), params
	}
	var grads [2][]float32
	var floats [2]int
	for i, early := range []bool{false, true} {
		plan, params := build(early)
		floats[i] = plan.Floats()
		r, err := plan.BindSeparately(b)
		if err != nil {
			t.Fatal(err)
		}
		in := make([]float32, 24)
		for k := range in {
			in[k] = float32(k) * 0.1
		}
		r.Set("x", in)
		r.Set("dy", in)
		if err := r.Run(context.Background()); err != nil {
			t.Fatal(err)
		}
		for _, p := range params {
			grads[i] = append(grads[i], p.Grad...)
		}
	}
	if !slices.Equal(grads[0], grads[1]) || slices.Max(grads[0]) == 0 {
		t.Error("the gradients differ")
	}
	if floats[1] >= floats[0] {
		t.Errorf("an arena of %d floats, with sinks at the end %d", floats[1], floats[0])
	}
}

// A gradient that one op alone makes is written where it belongs, without room in the arena; a second run replaces it, or adds to it. So do sinks.
func TestGradientsReplaceOrAdd(t *testing.T) {
	w := newWorld()
	g := w.g
	x, direct, scaled, twice, change := w.input("x", 4, 6), w.param(5, 6), w.param(6, 5), w.param(6, 6), w.param(6, 6)
	y := g.MatMul(x, direct, MatMulOptions{TransB: true})
	y = g.MatMul(y, g.Scale(scaled, 0.5), MatMulOptions{TransB: true})
	y = g.MatMul(g.MatMul(y, twice, MatMulOptions{}), twice, MatMulOptions{})
	y = g.LinearChanged(y, w.weight(6, 6), change, nil, nil)
	var sinks []string
	outputs := append([]*Node{y}, g.GradInto([]*Node{y}, []*Node{w.input("dy", 4, 6)}, []*Node{direct, scaled, twice, change}, w.all)...)
	plan := NewPlan(g, outputs, PlanOptions{})
	for _, n := range plan.steps {
		if o, ok := n.op.(accumulate); ok {
			sinks = append(sinks, o.p.Name+" "+tensor.FormatShape(o.p.Shape))
		}
	}
	if len(sinks) != 2 || sinks[0] != "p "+tensor.FormatShape(twice.shape) || sinks[1] != "p "+tensor.FormatShape(scaled.shape) {
		t.Errorf("sinks: %q", sinks)
	}
	p, err := plan.BindSeparately(w.b)
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range w.all {
		for i := range q.Grad {
			q.Grad[i] = float32(math.NaN())
		}
	}
	var grads [4][][]float32
	for i, sum := range []bool{false, true, true, false} {
		p.Sum = sum
		for name, v := range w.in { // the run may overwrite them
			p.Set(name, v)
		}
		if err := p.Run(context.Background()); err != nil {
			t.Fatal(err)
		}
		for _, q := range w.all {
			grads[i] = append(grads[i], slices.Clone(q.Grad))
		}
	}
	for k := range w.all {
		for i, first := range grads[0][k] {
			if first == 0 || grads[3][k][i] != first {
				t.Fatalf("parameter %d: %g, in the last run %g", k, first, grads[3][k][i])
			}
		}
		for i, times := range []float32{1, 2, 3} {
			want := slices.Clone(grads[0][k])
			for j := range want {
				want[j] *= times
			}
			testutil.NearRel(t, "sum", grads[i][k], want, 1e-6)
		}
	}
}
