package train

import (
	"context"
	"math"

	"lycoris/internal/algos"
	"lycoris/internal/fault"
	"lycoris/internal/optim"
)

// stepResult is what one update did.
type stepResult struct {
	loss     float64 // mean over the micro batches of the mean over their items
	gradNorm float64 // before clipping
	lrs      map[string]float64
	items    int
	maxNorm  normBound
}

// step makes one update: the first micro batch writes the gradients, every other adds its own, then the sum is clipped and the optimiser moves the factors. On an error nothing
// has moved.
func (t *trainer) step(ctx context.Context, update int) (stepResult, error) {
	r := stepResult{lrs: map[string]float64{}}
	clear(t.engine.trainedParts)
	micros := t.feed.micros(update)
	for k := range micros {
		m, err := t.feed.micro(ctx, update, k)
		if err != nil {
			return r, err
		}
		losses, err := t.engine.forward(ctx, m, update, k, true)
		if err != nil {
			return r, err
		}
		mean := mean(losses)
		if math.IsNaN(mean) || math.IsInf(mean, 0) {
			return r, diverged(update, "the loss", m)
		}
		r.loss += mean / float64(micros)
		r.items += m.n
	}
	r.gradNorm = optim.GlobalNorm(t.backend, optim.Params(t.groups))
	if math.IsNaN(r.gradNorm) || math.IsInf(r.gradNorm, 0) {
		return r, diverged(update, "the gradient", nil)
	}
	lrs := make([]float64, len(t.groups))
	for i, g := range t.groups {
		lrs[i] = g.LR * t.lr.LR(1, update) // as a factor, so that min_lr is a share
		r.lrs[g.Name] = lrs[i]
	}
	t.markIdle()
	t.optimizer.Step(lrs, optim.ClipFactor(r.gradNorm, t.cfg.Train.MaxGradNorm))
	r.maxNorm = t.boundNorms()
	return r, nil
}

// normBound says what max-norm regularisation did.
type normBound struct {
	scaled    int
	mean, max float64
}

// boundNorms applies train.scale_weight_norms to every adapter.
func (t *trainer) boundNorms() (b normBound) {
	limit := t.cfg.Train.ScaleWeightNorms
	if limit <= 0 {
		return b
	}
	t.network.Pull(t.backend)
	for _, a := range t.network.Adapters {
		n, ok := a.(algos.Bounded)
		if !ok {
			continue
		}
		if w, ok := a.(algos.Weighed); ok {
			w.Weigh(t.backend.Unpack(w.Frozen().Packed))
		}
		before, after := n.BoundNorm(limit)
		if after != before {
			b.scaled++
		}
		b.mean += after / float64(len(t.network.Adapters))
		b.max = math.Max(b.max, after)
	}
	t.network.Push(t.backend)
	return b
}

func mean(v []float32) float64 {
	var sum float64
	for _, x := range v {
		sum += float64(x)
	}
	return sum / float64(len(v))
}

func floatBits(u uint32) float32 { return math.Float32frombits(u) }

// diverged is the guard's error: nothing of the update was applied.
func diverged(update int, what string, m *micro) error {
	e := fault.New(fault.Diverged, "", "%s is not a number at step %d", what, update+1)
	if m != nil && len(m.names) > 0 {
		e = fault.New(fault.Diverged, "", "%s is not a number at step %d (timesteps %v, pictures %q)", what, update+1, m.timesteps, m.names)
	}
	return e.Advise("the last saved state is whole; lower --lr and resume, or look at the named pictures")
}
