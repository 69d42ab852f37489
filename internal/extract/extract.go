package extract

import (
	"context"
	"math"
	"sync"

	"lycoris/internal/fault"
	"lycoris/internal/linalg"
	"lycoris/internal/tensor"
)

// Run fits what changed from base to tuned. Both files are read once, each tensor by itself.
func Run(ctx context.Context, base, tuned *Model, o Options) (*Report, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if err := compatible(base, tuned); err != nil {
		return nil, err
	}
	tasks, missing, err := plan(base, tuned, &o)
	if err != nil {
		return nil, err
	}
	if o.Started != nil {
		o.Started(len(tasks))
	}
	r := &Report{Modules: make([]Module, len(tasks)), Missing: missing}
	if err := each(ctx, len(tasks), &o, func(w *worker, i int) error {
		if i+1 < len(tasks) {
			tasks[i+1].start(base, tuned)
		}
		m, err := w.module(tasks[i], base, tuned)
		r.Modules[i] = m
		return err
	}, func(i int) int64 { return tasks[i].bytes(o.Algorithm) }); err != nil {
		return nil, err
	}
	for _, m := range []*Model{base, tuned} {
		if err := m.Unchanged(); err != nil {
			return nil, err
		}
	}
	r.sumUp()
	if r.Total.Count[Fitted] == 0 {
		e := fault.BadInput(tuned.Path, "no difference to the base %q above rounding", base.Path)
		if n := r.Total.Kernels; n > 0 {
			return nil, e.Advise("%d kernels were left out: --conv-dim 8 takes them in", n)
		}
		if r.Total.Norms+r.Total.Biases > 0 {
			return nil, e.Advise("%d norms and %d biases changed: --algo full takes them in", r.Total.Norms, r.Total.Biases)
		}
		return nil, e.Advise("pass the model that was trained, and the base it was trained from")
	}
	return r, nil
}

// module compares one module and fits what changed.
func (w *worker) module(t *task, base, tuned *Model) (Module, error) {
	m := Module{Name: t.Name, Path: t.Path, Component: t.component, Status: Equal, window: t.HasWindow(), norm: t.isNorm()}
	if t.isNorm() {
		return w.norm(t, base, tuned, m)
	}
	d, err := w.differ(t, "weight", base, tuned, want{change: !t.leftOut, base: needsBase(w.o.Algorithm), keepNoise: w.o.KeepNoise})
	if err != nil {
		return m, err
	}
	var bias difference
	takesBias := w.o.Algorithm == "full"
	if t.Bias {
		if bias, err = w.differ(t, "bias", base, tuned, want{change: takesBias, keepNoise: w.o.KeepNoise}); err != nil {
			return m, err
		}
	}
	changedBias := t.Bias && !bias.equal && !bias.noise
	m.BiasLeftOut = changedBias && !takesBias
	changedBias = changedBias && takesBias
	switch {
	case (d.equal || d.noise) && !changedBias:
		if d.noise {
			m.Status = Noise
		}
		return m, nil
	case t.leftOut:
		m.Status, m.Change, m.Weight = LeftOut, math.Sqrt(d.total), math.Sqrt(d.frozen)
		return m, nil
	}
	if d.change == nil { // only the bias changed
		d.change = w.grown(tensor.Elems(t.Shape))
		clear(d.change)
	}
	l := &layer{task: t, m: t.Out(), n: tensor.Elems(t.Shape[1:]), delta: d.change, base: d.base, total: d.total}
	f, err := w.fit(l)
	if err != nil {
		return m, err
	}
	if compared(w.o.Algorithm) {
		if m.LoRARank, m.LoRAMissing, err = w.plainLoRA(l, f); err != nil {
			return m, err
		}
	}
	if changedBias {
		lost, err := w.vector(t.Path, f, "diff_b", bias.change)
		if err != nil {
			return m, err
		}
		f.left += lost
		d.total += bias.total
	}
	m.Status, m.Rank, m.Note, m.tensors = Fitted, f.rank, f.note, f.tensors
	m.Change, m.Missing, m.Worst, m.Weight = math.Sqrt(d.total), math.Sqrt(f.left), f.worst, math.Sqrt(d.frozen)
	return m, nil
}

// norm stores the change of a norm's gain and bias.
func (w *worker) norm(t *task, base, tuned *Model, m Module) (Module, error) {
	f, total, frozen, noise, equal := &fit{}, 0.0, 0.0, true, true
	for _, p := range []struct{ key, param string }{{"w_norm", "weight"}, {"b_norm", "bias"}} {
		if p.key == "b_norm" && !t.Bias {
			continue
		}
		d, err := w.differ(t, p.param, base, tuned, want{change: !t.leftOut, keepNoise: w.o.KeepNoise})
		if err != nil {
			return m, err
		}
		equal, noise = equal && d.equal, noise && (d.equal || d.noise)
		total, frozen = total+d.total, frozen+d.frozen
		if t.leftOut {
			continue
		}
		if d.change == nil {
			d.change = make([]float32, t.Out())
		}
		lost, err := w.vector(t.Path, f, p.key, d.change)
		if err != nil {
			return m, err
		}
		f.left += lost
	}
	switch {
	case equal:
	case noise:
		m.Status = Noise
	case t.leftOut:
		m.Status, m.Change, m.Weight = LeftOut, math.Sqrt(total), math.Sqrt(frozen)
	default:
		m.Status, m.tensors = Fitted, f.tensors
		m.Change, m.Missing, m.Worst, m.Weight = math.Sqrt(total), math.Sqrt(f.left), f.worst, math.Sqrt(frozen)
	}
	return m, nil
}

// vector adds the change of a bias or norm to f and returns the square of what rounding takes from it.
func (w *worker) vector(path string, f *fit, key string, v []float32) (float64, error) {
	t := named{Name: key, Tensor: tensor.FromFloat32(w.o.DType, []int{len(v)}, v)}
	if n, first := t.NonFinite(); n > 0 {
		return 0, tooLarge(path, key, n, first, w.o.DType)
	}
	f.tensors = append(f.tensors, t)
	lost := 0.0
	for i, kept := range t.Float32() {
		d := math.Abs(float64(v[i]) - float64(kept))
		lost += d * d
		f.worst = max(f.worst, d)
	}
	return lost, nil
}

// differ compares one parameter of both models. Of a weight's change the memory is the worker's, until its next weight.
func (w *worker) differ(t *task, param string, base, tuned *Model, what want) (difference, error) {
	b, _ := base.values(t.component, t.module.Path, param) // there are both: the plan checked it
	a, _ := tuned.values(t.component, t.module.Path, param)
	grown := func(n int) []float32 { return make([]float32, n) }
	if param == "weight" {
		grown = w.grown
	}
	d, err := w.compare.of(b, a, what, grown)
	if err != nil {
		return d, err
	}
	if math.IsNaN(d.total) || math.IsInf(d.total, 0) {
		for side, v := range map[*Model]values{base: b, tuned: a} {
			if err := finite(side, t, param, v); err != nil {
				return d, err
			}
		}
		return d, fault.BadInput(tuned.Path, "the change of %s.%s is not finite", t.Path, param).Advise("one of the models has huge values: it is broken")
	}
	return d, nil
}

// finite returns an error that counts the values of a tensor that aren't finite.
func finite(m *Model, t *task, param string, v values) error {
	all := tensor.Tensor{DType: v.dtype, Shape: v.shape, Data: make([]byte, tensor.Elems(v.shape)*v.dtype.Size())}
	if err := v.read(all.Data, 0); err != nil {
		return err
	}
	if n, first := all.NonFinite(); n > 0 {
		return fault.BadInput(m.Path, "%s.%s holds %d NaN or infinite values, the first at index %d", t.Path, param, n, first).
			Advise("the model is broken: its training diverged, or it was saved with too little range")
	}
	return nil
}

// kept is the size from which on the memory of a change isn't kept for the next.
const kept = 8 << 20

// grown returns n floats that the next call takes back.
func (w *worker) grown(n int) []float32 {
	if n > kept {
		return make([]float32, n)
	}
	if len(w.memory) < n {
		w.memory = make([]float32, n)
	}
	return w.memory[:n]
}

// each runs work for 0 to n-1 in order of start, by several workers with a backend each, as many at a time as fit into the memory. The first error ends it.
func each(ctx context.Context, n int, o *Options, work func(w *worker, i int) error, bytes func(i int) int64) error {
	linear, conv := o.rules()
	room := newBudget(max(o.Memory, 1))
	var group sync.WaitGroup
	var mu sync.Mutex
	next, failedAt := 0, n
	var failed error
	fail := func(i int, err error) {
		mu.Lock()
		defer mu.Unlock()
		if i < failedAt || failed == nil { // of several errors the first module's, whatever the workers' order
			failed, failedAt = err, min(i, failedAt)
		}
	}
	// take gives out the next module and the memory for it, under one lock, so that modules start in order.
	var order sync.Mutex
	take := func() (int, int64, bool) {
		order.Lock()
		defer order.Unlock()
		mu.Lock()
		i, stop := next, failed != nil || next >= n || ctx.Err() != nil
		next++
		mu.Unlock()
		if stop {
			return 0, 0, false
		}
		return i, room.take(bytes(i)), true
	}
	for range min(max(o.Workers, 1), n) {
		group.Go(func() {
			b, done, err := o.Backend()
			if err != nil {
				fail(0, err)
				return
			}
			defer done()
			w := &worker{o: o, linear: linear, conv: conv, backend: b, compare: differ{squares: b.SumSquares}, directions: linalg.NewDirections(0)}
			for {
				i, taken, ok := take()
				if !ok {
					return
				}
				err := guarded(w, i, work)
				room.give(taken)
				if err != nil {
					fail(i, err)
					return
				}
				if o.Done != nil {
					o.Done()
				}
			}
		})
	}
	group.Wait()
	if failed == nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return failed
}

// guarded turns a backend's panic for want of memory into the error that it carries.
func guarded(w *worker, i int, work func(*worker, int) error) (err error) {
	defer func() {
		if e := recover(); e != nil {
			f, ok := e.(*fault.Error)
			if !ok {
				panic(e)
			}
			err = f
		}
	}()
	return work(w, i)
}

// budget is memory that is given out in turn.
type budget struct {
	mu         sync.Mutex
	back       *sync.Cond
	free, size int64
}

func newBudget(size int64) *budget {
	b := &budget{free: size, size: size}
	b.back = sync.NewCond(&b.mu)
	return b
}

// take waits for n bytes, of all there are where n is more, and returns what it took.
func (b *budget) take(n int64) int64 {
	n = min(n, b.size)
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.free < n {
		b.back.Wait()
	}
	b.free -= n
	return n
}

func (b *budget) give(n int64) {
	b.mu.Lock()
	b.free += n
	b.mu.Unlock()
	b.back.Broadcast()
}
