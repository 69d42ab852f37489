package train

import (
	"context"

	"lycoris/internal/arch"
	"lycoris/internal/diffusion"
	"lycoris/internal/graph"
	"lycoris/internal/nn"
	"lycoris/internal/pipeline"
	"lycoris/internal/rng"

	"lycoris/internal/algos"
)

// engine is the training step as programs, one per shape.
type engine struct {
	model      *pipeline.Model
	network    *algos.Network
	trained    map[*graph.Param]bool
	adaptsText bool // the text encoder has adapters: it is part of the step
	text       pipeline.TextOptions
	schedule   *diffusion.Schedule
	prediction diffusion.Prediction
	recompute  bool
	seed       uint64
	gradAccum  int
	masks      bool // some adapter has inputs that change with every forward
	programs   map[programKey]*pipeline.Program

	trainedParts map[partKey]bool // that the forwards of the update so far gave a gradient
}

type programKey struct {
	shape
	train bool
}

// Names of the step's inputs.
const (
	inNoisy   = "noisy"
	inTime    = "time"
	inContext = "context"
	inTokens  = "tokens"
	inTarget  = "target"
	inWeight  = "loss weight" // [n]: what each item's loss counts in the gradient
)

// program returns the step for s; with train it computes gradients, without only losses.
func (e *engine) program(s shape, train bool) (*pipeline.Program, error) {
	key := programKey{s, train}
	if p := e.programs[key]; p != nil {
		return p, nil
	}
	plan, err := e.plan(s, train, e.recompute)
	if err != nil {
		return nil, err
	}
	stores := []*nn.Store{e.model.UNet}
	if e.adaptsText {
		stores = append(stores, e.model.Text)
	}
	p := e.model.Plan(plan, stores...)
	e.programs[key] = p
	return p, nil
}

// plan builds the graph of one forward (and backward): text encoder if it is adapted, UNet, loss, gradients of the trained factors.
func (e *engine) plan(s shape, train, recompute bool) (*graph.Plan, error) {
	base := e.model.Base
	g := &graph.Graph{}
	leaves := nn.NewLeaves(g)
	var context *graph.Node
	if e.adaptsText {
		_, context = pipeline.BuildText(nn.NewBuilder(leaves, e.model.Text, string(arch.TextEncoder), e.network.Adapter), base.Text, s.n, e.text)
	} else {
		context = leaves.Input(inContext, s.n, e.text.Tokens(), base.UNet.CrossAttentionDim)
	}
	c := base.UNet.InChannels
	pred := buildUNet(leaves, e.model, e.network.Adapter, s, context)
	loss := g.SquaredError(pred, leaves.Input(inTarget, s.n, s.h, s.w, c))
	for _, store := range []*nn.Store{e.model.UNet, e.model.Text} {
		if err := store.Err(); err != nil {
			return nil, err
		}
	}
	outputs := []*graph.Node{loss}
	if train {
		var params []*graph.Param
		var wrt []*graph.Node
		for _, f := range e.network.Factors() {
			if e.trained[f.Param] && leaves.Has(f.Param) {
				params = append(params, f.Param)
				wrt = append(wrt, leaves.Param(f.Param))
			}
		}
		outputs = append(outputs, g.GradInto([]*graph.Node{loss}, []*graph.Node{leaves.Input(inWeight, s.n)}, wrt, params)...)
	}
	return graph.NewPlan(g, outputs, graph.PlanOptions{Recompute: recompute}), nil
}

// forward runs one micro batch and returns the loss of each item. With train it writes the factors' gradients; those of every micro batch k but the
// first are added.
func (e *engine) forward(ctx context.Context, m *micro, update, k int, train bool) ([]float32, error) {
	p, err := e.program(m.shape, train)
	if err != nil {
		return nil, err
	}
	r, err := p.Ready()
	if err != nil {
		return nil, err
	}
	item := len(m.latents) / m.n
	noisy, target := make([]float32, len(m.latents)), make([]float32, len(m.latents))
	width := e.model.Base.UNet.BlockOutChannels[0]
	time := make([]float32, m.n*width)
	weight := make([]float32, m.n)
	for i, t := range m.timesteps {
		from, to := i*item, (i+1)*item
		e.schedule.AddNoise(noisy[from:to], m.latents[from:to], m.noise[from:to], t)
		e.schedule.Target(target[from:to], m.latents[from:to], m.noise[from:to], t, e.prediction)
		diffusion.TimestepEmbedding(time[i*width:(i+1)*width], float64(t), width)
		weight[i] = 1 / float32(m.n*e.gradAccum)
	}
	r.Set(inNoisy, noisy)
	r.Set(inTarget, target)
	r.Set(inTime, time)
	r.Set(inWeight, weight)
	if err := e.setText(ctx, r, m); err != nil {
		return nil, err
	}
	e.setMasks(r, m, update, k, train)
	r.Sum = k > 0
	if err := r.Run(ctx); err != nil {
		return nil, err
	}
	return r.Output(0), nil
}

// setText fills the text input: embedded tokens where the encoder is part of the step, states otherwise.
func (e *engine) setText(ctx context.Context, r *graph.Program, m *micro) error {
	switch {
	case e.adaptsText:
		x, err := e.model.Embed(m.ids)
		if err != nil {
			return err
		}
		r.Set(inTokens, x)
	default:
		r.Set(inContext, m.states)
	}
	return nil
}

// setMasks draws the masks of a forward; without train nothing is left out. One stream per layer and forward.
func (e *engine) setMasks(r *graph.Program, m *micro, update, k int, train bool) {
	if !e.masks {
		return
	}
	if !train {
		e.network.KeepAll(r.Set)
		return
	}
	forward := uint64(update)*uint64(e.gradAccum) + uint64(k)
	for i, a := range e.network.Adapters {
		for _, in := range a.Inputs() {
			values := make([]float32, in.Size)
			in.Fill(values, rng.New(e.seed, "adapter dropout", forward, uint64(i)), algos.Step{Timesteps: m.timesteps})
			r.Set(in.Name, values)
			e.noteTrained(a, in, values)
		}
	}
	s := rng.New(e.seed, "neuron dropout", forward, 0)
	r.Set(algos.SeedInput, []float32{floatBits(s.Uint32()), floatBits(s.Uint32()), 1})
}
