package train

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"lycoris/internal/fault"
	"lycoris/internal/kernels"
	"lycoris/internal/nn"
	"lycoris/internal/optim"
	"lycoris/internal/pipeline"
	"lycoris/internal/runs"
	"lycoris/internal/ui"
)

// Options say how a job runs.
type Options struct {
	Run       *runs.Run
	Resume    bool // go on from the newest state, where there is one
	StopAfter time.Duration
	Version   string
	Threads   int
}

// Summary is the outcome of a run.
type Summary struct {
	Adapter string // path of the last adapter written
	Step    int    // updates done
	Stopped bool   // by --stop-after or a control file: not finished
}

// trainer is a job in motion.
type trainer struct {
	*Job
	opt       Options
	backend   kernels.Backend
	optimizer *optim.AdamW
	partial   map[*optim.Param]part // parameters that are parts of a factor
	metrics   *runs.Metrics
	progress  ui.Progress
	done      int       // updates done
	losses    []float64 // of the last updates, for the average
	saved     int       // update of the newest state
	savedAt   time.Time
	began     time.Time
	adapter   string    // last adapter written
	before    runs.Info // run.json before this start
	ready     bool      // this start wasn't refused: its first line stands in metrics.jsonl
}

// averaged is the number of updates that loss_avg covers.
const averaged = 50

// Run trains from the start or from the newest state of the run folder. On a stop (ctx ends) the last finished update is saved and the
// cause of ctx is returned.
func (j *Job) Run(ctx context.Context, opt Options) (sum Summary, err error) {
	t := &trainer{Job: j, opt: opt, backend: j.in.Backend, progress: j.in.UI.Progress(), began: time.Now()}
	if err := t.open(); err != nil {
		return sum, err
	}
	defer func() { err = t.close(&sum, err) }()
	if err := t.start(ctx); err != nil {
		return sum, err
	}
	err = t.loop(ctx)
	t.progress.End()
	sum = Summary{Adapter: t.adapter, Step: t.done, Stopped: errors.Is(err, errStop)}
	if errors.Is(err, errStop) {
		err = nil
	}
	return sum, err
}

// errStop is a stop that was planned: exit 0.
var errStop = errors.New("stopped as planned")

// open starts the records of the run folder and finds the state to go on from.
func (t *trainer) open() (err error) {
	t.before = t.opt.Run.Info()
	if err := t.opt.Run.Begin(t.steps); err != nil {
		return err
	}
	t.metrics, err = t.opt.Run.Metrics()
	return err
}

// start makes caches, memory and optimiser, restores the state and reads the weights.
func (t *trainer) start(ctx context.Context) error {
	if err := t.opt.Run.CheckSpace(t.saveBytes()); err != nil {
		return err
	}
	if err := t.feed.prepare(ctx); err != nil {
		return err
	}
	if t.held != nil {
		if err := t.held.prepare(ctx); err != nil {
			return err
		}
	}
	t.releaseUnneeded()
	if err := t.network.Allocate(t.backend); err != nil {
		return err
	}
	t.bindGroups()
	o := t.cfg.Optimizer
	var err error
	if t.optimizer, err = optim.NewAdamW(t.backend, t.groups, optim.Options{Beta1: o.Betas[0], Beta2: o.Betas[1], Eps: o.Eps, WeightDecay: o.WeightDecay}); err != nil {
		return err
	}
	if err := t.restore(); err != nil {
		return err
	}
	if t.done == 0 { // nothing was restored
		if err := t.startAdapters(); err != nil {
			return err
		}
	}
	t.network.Drop()
	debug.FreeOSMemory() // what was made and read so far isn't needed any more
	if err := t.startLine(); err != nil {
		return err
	}
	t.ready = true
	return t.read()
}

// bindGroups gives the optimiser's parameters the factors' memory.
func (t *trainer) bindGroups() {
	byName := map[string]part{}
	for _, a := range t.network.Adapters {
		for _, f := range a.Factors() {
			for _, p := range partsOf(a.Target().Path, f) {
				byName[p.name()] = p
			}
		}
	}
	t.partial = map[*optim.Param]part{}
	for _, q := range optim.Params(t.groups) {
		p := byName[q.Name]
		p.bind(q)
		if !p.whole() {
			t.partial[q] = p
		} else if f := p.factor; f.Origin != nil {
			q.Origin = f.Origin
		}
	}
}

// read reads the weights that training needs, with progress, and makes the shared buffers.
func (t *trainer) read() error {
	stores := []*nn.Store{t.model.UNet}
	if t.engine.adaptsText {
		stores = append(stores, t.model.Text)
	}
	const unit = 1 << 20
	var total int64
	for _, s := range stores {
		total += s.Bytes()
	}
	t.progress.Phase(ui.ReadModel, int(total/unit))
	shown, before := int64(0), int64(0)
	for _, s := range stores {
		err := s.Load(t.backend, func(done int64) {
			if now := min((before+done)/unit, total/unit); now > shown {
				t.progress.Add(int(now - shown))
				shown = now
			}
		})
		if err != nil {
			return err
		}
		before += s.Bytes()
	}
	var programs []*pipeline.Program
	for _, p := range t.engine.programs {
		programs = append(programs, p)
	}
	return t.model.Reserve(programs...)
}

func (t *trainer) startLine() error {
	line := runs.StartLine{Step: t.done, ConfigHash: t.configHash(), DataHash: t.feed.hash(), Device: t.backend.Name(), Threads: t.opt.Threads, Version: t.opt.Version}
	if t.opt.Run.Info().Part > 1 {
		return t.metrics.Write(runs.ResumeLine{StartLine: line, FromStep: t.done})
	}
	return t.metrics.Write(line)
}

// loop makes the updates that are left.
func (t *trainer) loop(ctx context.Context) error {
	t.savedAt = time.Now()
	t.progress.Phase(ui.Train, t.steps-t.done)
	if t.done == 0 {
		if err := t.validate(ctx); err != nil {
			return t.stop(ctx, err)
		}
	}
	for t.done < t.steps {
		started := time.Now()
		r, err := t.step(ctx, t.done)
		if err != nil {
			return t.stop(ctx, err)
		}
		t.done++
		if err := t.report(r, time.Since(started)); err != nil {
			return err
		}
		if err := t.due(ctx); err != nil {
			return t.stop(ctx, err)
		}
	}
	return t.finish()
}

// report tells what an update did.
func (t *trainer) report(r stepResult, took time.Duration) error {
	t.losses = append(t.losses, r.loss)
	if len(t.losses) > averaged {
		t.losses = t.losses[1:]
	}
	avg := 0.0
	for _, l := range t.losses {
		avg += l / float64(len(t.losses))
	}
	used, total := residentMemory()
	lr := r.lrs["unet"]
	if _, ok := r.lrs["unet"]; !ok {
		for _, v := range r.lrs {
			lr = v
		}
	}
	t.progress.Step(ui.StepInfo{Step: t.done, Steps: t.steps, Loss: r.loss, Avg: avg, LR: lr, Took: took, MemUsed: used, MemTotal: total, Saved: t.saved})
	if every := t.cfg.Log.MetricsEvery; every > 0 && t.done%every != 0 && t.done != t.steps {
		return nil
	}
	s := took.Seconds()
	return t.metrics.Write(runs.StepLine{Step: t.done, Epoch: (t.done-1)/t.feed.updatesPerEpoch() + 1, Loss: r.loss, LossAvg: avg, GradNorm: r.gradNorm, LR: r.lrs,
		StepTime: s, ImgTime: float64(r.items) / s, MemRSS: uint64(used)})
}

// due does what is due after an update: saves, validation, samples, requests from outside, a planned stop.
func (t *trainer) due(ctx context.Context) error {
	save := t.cfg.Save
	last := t.done == t.steps
	per := t.feed.updatesPerEpoch()
	every := func(n int) bool { return n > 0 && t.done%n == 0 }
	epochEnd := func(n int) bool { return n > 0 && t.done%(per*n) == 0 }
	if every(t.cfg.Validate.Every) || last && t.held != nil {
		if err := t.validate(ctx); err != nil {
			return err
		}
	}
	if every(t.cfg.Sample.EverySteps) || epochEnd(t.cfg.Sample.EveryEpochs) {
		if err := t.sample(ctx); err != nil {
			return err
		}
	}
	if !last {
		if every(save.EverySteps) {
			if err := t.saveAdapter(t.opt.Run.StepAdapter(t.done)); err != nil {
				return err
			}
		}
		if epochEnd(save.EveryEpochs) && t.data != nil {
			if err := t.saveAdapter(t.opt.Run.EpochAdapter(t.done / per)); err != nil {
				return err
			}
		}
		i := save.StateEvery
		if every(i.Steps) || i.Time > 0 && time.Since(t.savedAt) >= i.Time {
			if err := t.saveState(); err != nil {
				return err
			}
		}
	}
	if err := t.requests(ctx); err != nil {
		return err
	}
	if t.opt.StopAfter > 0 && time.Since(t.began) >= t.opt.StopAfter && !last {
		return errStop
	}
	return nil
}

// requests obeys files dropped into control/.
func (t *trainer) requests(ctx context.Context) error {
	for _, q := range t.opt.Run.Requests() {
		var err error
		switch q {
		case runs.RequestSample:
			err = t.sample(ctx)
		case runs.RequestSave:
			if err = t.saveState(); err == nil {
				err = t.saveAdapter(t.opt.Run.StepAdapter(t.done))
			}
		case runs.RequestStop:
			err = errStop
		}
		if doneErr := t.opt.Run.Done(q); err == nil {
			err = doneErr
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// stop saves the last finished update after a stop or a failure that left it whole, and passes the cause on.
func (t *trainer) stop(ctx context.Context, cause error) error {
	stopped := ctx.Err() != nil || errors.Is(cause, errStop)
	if !stopped {
		return cause
	}
	t.progress.End()
	if err := t.saveState(); err != nil {
		return err
	}
	if err := t.saveAdapter(t.opt.Run.FinalAdapter()); err != nil {
		return err
	}
	t.in.UI.Info(fmt.Sprintf("stopped at step %d/%d, saved; continue with: lycoris train --resume %s", t.done, t.steps, t.opt.Run.Dir()))
	return cause
}

// finish writes the last state and the adapter.
func (t *trainer) finish() error {
	t.progress.Phase(ui.Save, 0)
	if err := t.saveState(); err != nil {
		return err
	}
	return t.saveAdapter(t.opt.Run.FinalAdapter())
}

// close writes how the run ended and frees what the trainer made. A resume that was refused leaves the record of the run as it was.
func (t *trainer) close(sum *Summary, err error) error {
	status, exit := runs.Finished, 0
	var coded interface{ ExitCode() int }
	switch {
	case err != nil && errors.As(err, &coded) && fault.KindOf(err) == fault.Failed:
		status, exit = runs.Stopped, coded.ExitCode()
	case fault.KindOf(err) == fault.Diverged:
		status, exit = runs.Diverged, fault.Diverged.ExitCode()
	case err != nil:
		status, exit = runs.Failed, fault.KindOf(err).ExitCode()
	case sum.Stopped:
		status = runs.Stopped
	}
	if t.optimizer != nil {
		t.optimizer.Close()
	}
	if !t.ready && t.before.Part > 0 {
		if e := t.opt.Run.Unbegin(t.before); err == nil {
			err = e
		}
		return err
	}
	if t.metrics != nil {
		if e := t.metrics.Write(runs.EndLine{Step: t.done, Status: status, Exit: exit, Seconds: time.Since(t.began).Seconds()}); err == nil {
			err = e
		}
	}
	if e := t.opt.Run.End(status, t.done, exit); err == nil {
		err = e
	}
	return err
}

// configHash stands for the configuration that defines the run.
func (t *trainer) configHash() string { return hashConfig(t.cfg) }
