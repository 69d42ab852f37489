package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"lycoris/internal/config"
	"lycoris/internal/fault"
	"lycoris/internal/kernels"
	"lycoris/internal/kernels/cpu"
	"lycoris/internal/runs"
	"lycoris/internal/tensor"
	"lycoris/internal/train"
)

func newTrainCommand(out *output) *cobra.Command {
	var opts trainOptions
	cmd := &cobra.Command{
		Use:   "train",
		Short: "train an adapter from pictures",
		Example: "  lycoris train --model base.safetensors --data pictures/ --dim=16 --name my-cat\n" +
			"  lycoris train --resume runs/my-cat",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runTrain(cmd.Context(), opts, out) },
	}
	opts.flags = addConfigFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&opts.resume, "resume", "", "go on with the run in `DIR`; one that doesn't exist is started")
	f.StringVar(&opts.weights, "network-weights", "", "start from the adapter in `FILE`")
	f.StringVar(&opts.replay, "replay", "", "latents, noise, timesteps and text from `FILE` in place of pictures and random numbers")
	f.BoolVar(&opts.dryRun, "dry-run", false, "check everything and say what the run takes; nothing is read or written")
	f.Var(&durationFlag{v: &opts.stopAfter, min: time.Second}, "stop-after", "save and stop after `TIME`")
	return cmd
}

type trainOptions struct {
	flags     *configFlags
	resume    string
	weights   string
	replay    string
	dryRun    bool
	stopAfter time.Duration
}

// keptFlags are the flags that aren't configuration keys but belong to a run: a resumed run has them again.
type keptFlags struct {
	Replay  string `json:"replay,omitempty"`
	Weights string `json:"network_weights,omitempty"`
}

func runTrain(ctx context.Context, opts trainOptions, out *output) error {
	out.UI.Hello(version)
	resumeFile, err := opts.resumeFile()
	if err != nil {
		return err
	}
	cfg, resolved, err := opts.flags.load(out, resumeFile)
	if err != nil {
		return err
	}
	if resumeFile != "" {
		if err := opts.restore(); err != nil {
			return err
		}
	}
	required := []string{"model.path", "data"}
	if opts.replay != "" {
		required = required[:1]
	}
	if err := cfg.Require(required...); err != nil {
		return err
	}
	log := &lateLog{}
	out.UI.AddLog(log)
	run, done, err := opts.openRun(cfg, resumeFile != "", out)
	if err != nil || done {
		return err
	}
	err = opts.trainIn(ctx, run, cfg, resolved, resumeFile != "", log, out)
	switch {
	case run == nil:
	case err != nil && isMistake(err) && run.Worthless():
		run.Discard()
	default:
		run.Close()
	}
	return err
}

// trainIn prepares the job and runs it in the run folder; a dry run has none.
func (o *trainOptions) trainIn(ctx context.Context, run *runs.Run, cfg *config.Config, resolved *config.Resolved, resumed bool, log *lateLog, out *output) error {
	backend, err := openBackend(cfg)
	if err != nil {
		return err
	}
	job, err := train.Prepare(train.Input{Config: cfg, StepsGiven: o.stepsGiven(resolved), Replay: o.replay, NetworkWeights: o.weights, Backend: backend, UI: out.UI})
	var e *fault.Error
	if errors.As(err, &e) && e.Path == o.weights && e.Advice == "" {
		e.Advise("use the base that the adapter was made for, or another adapter")
	}
	if err != nil {
		return err
	}
	defer job.Close()
	if o.dryRun {
		return printPlan(job, backend, out)
	}
	if !resumed {
		if err := o.record(run, resolved); err != nil {
			return err
		}
	}
	if err := log.open(run); err != nil {
		return err
	}
	sum, err := job.Run(ctx, train.Options{Run: run, Resume: o.resume != "", StopAfter: o.stopAfter, Version: version, Threads: cfg.Threads})
	if sum.Adapter != "" {
		out.setResult("path", sum.Adapter)
		if err == nil && !out.UI.JSON() {
			out.UI.Printf("%s\n", sum.Adapter)
		}
	}
	return err
}

// isMistake reports whether an error is one that a person mends and then starts again: of a run that has done nothing yet, nothing is kept.
func isMistake(err error) bool {
	switch fault.KindOf(err) {
	case fault.Usage, fault.Input, fault.Output, fault.Memory, fault.Device:
		return true
	}
	return false
}

// lateLog keeps what is said before the run folder is known to be used, and then writes it to train.log.
type lateLog struct {
	mu   sync.Mutex
	kept bytes.Buffer
	to   io.Writer
}

// Write keeps p, or passes it on.
func (l *lateLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.to == nil {
		return l.kept.Write(p)
	}
	return l.to.Write(p)
}

// open passes on what was kept, and all that follows.
func (l *lateLog) open(run *runs.Run) (err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.to, err = run.Log(); err == nil {
		l.kept.WriteTo(l.to) // a log that can't be written stops nothing
	}
	return err
}

// resumeFile returns the resolved configuration of the run to go on with, empty if there is none yet.
func (o *trainOptions) resumeFile() (string, error) {
	if o.resume == "" {
		return "", nil
	}
	fresh, err := runs.Fresh(o.resume)
	if err != nil {
		return "", err
	}
	path := filepath.Join(o.resume, "config.resolved.yaml")
	if _, err := os.Stat(path); err != nil {
		if fresh && errors.Is(err, fs.ErrNotExist) {
			return "", nil
		}
		return "", fault.New(fault.Resume, path, "is missing or can't be read: without it the run can't go on").
			Advise("put it back, or start a new run from its adapter: --network-weights FILE")
	}
	return path, nil
}

func (o *trainOptions) flagsFile() string {
	return filepath.Join(o.resume, "config.input", "99-flags.json")
}

// restore takes the flags that the run was started with; flags that say something else are refused.
func (o *trainOptions) restore() error {
	b, err := os.ReadFile(o.flagsFile())
	var k keptFlags
	if err == nil {
		err = json.Unmarshal(b, &k)
	}
	if err != nil {
		return fault.New(fault.Resume, o.flagsFile(), "is missing or damaged: without it the run can't go on").
			Advise("start a new run from its adapter: --network-weights FILE")
	}
	for _, f := range []struct {
		flag       string
		given, was *string
	}{{"--replay", &o.replay, &k.Replay}, {"--network-weights", &o.weights, &k.Weights}} {
		if *f.given != "" && absolute(*f.given) != *f.was {
			return fault.New(fault.Resume, f.flag, "can't resume: it was %q, is %q", *f.was, absolute(*f.given)).
				Advise("leave it as it was, or start a new run with another --name")
		}
		*f.given = *f.was
	}
	return nil
}

// absolute returns the path from the root; an empty one stays empty.
func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil && path != "" {
		return abs
	}
	return path
}

// stepsGiven reports whether somebody said how long the run is.
func (o *trainOptions) stepsGiven(r *config.Resolved) bool {
	for _, key := range []string{"steps", "epochs"} {
		if s := r.Source(key); len(s) < 8 || s[:8] != "built-in" {
			return true
		}
	}
	return false
}

// openRun makes or opens the run folder; done is true where nothing is left to do. A dry run has none.
func (o *trainOptions) openRun(cfg *config.Config, resumed bool, out *output) (run *runs.Run, done bool, err error) {
	switch {
	case o.dryRun:
		return nil, false, nil
	case o.resume == "":
		run, err = runs.Create(cfg.Out, cfg.Name, out.Global.force)
		return run, false, err
	}
	run, _, err = runs.Resume(o.resume)
	if err != nil {
		return nil, false, err
	}
	info := run.Info()
	whole := info.Status == runs.Finished && resumed && (info.Step >= cfg.Steps || cfg.Epochs > 0)
	if _, err := os.Stat(run.Path(info.Adapter)); whole && err == nil {
		out.UI.Info("the run is finished", "steps", info.Step)
		out.setResult("path", run.Path(info.Adapter))
		if !out.UI.JSON() {
			out.UI.Printf("%s\n", run.Path(info.Adapter))
		}
		return nil, true, run.Close()
	}
	return run, false, nil
}

// record keeps what the run was started with. The configuration comes last: where it stands, the rest is whole.
func (o *trainOptions) record(run *runs.Run, resolved *config.Resolved) error {
	if err := run.Clear(); err != nil {
		return err
	}
	for i, in := range resolved.Inputs {
		if err := run.WriteInput(i, in.Name, in.Data); err != nil {
			return err
		}
	}
	b, err := json.Marshal(keptFlags{absolute(o.replay), absolute(o.weights)})
	if err != nil {
		return err
	}
	if err := run.WriteInput(99, "flags.json", b); err != nil {
		return err
	}
	return run.WriteConfig(resolved.YAML("the configuration of this run, every key with its source"))
}

// openBackend starts the engine that the configuration asks for.
func openBackend(cfg *config.Config) (kernels.Backend, error) {
	return cpu.Open(cpu.Options{Threads: cfg.Threads, ISA: cfg.CPUISA})
}

// printPlan says what the run will do and take.
func printPlan(job *train.Job, b kernels.Backend, out *output) error {
	p := job.Plan()
	if out.UI.JSON() {
		b, err := json.Marshal(p)
		var fields map[string]any
		if err == nil {
			err = json.Unmarshal(b, &fields)
		}
		out.UI.Emit("plan", fields)
		return err
	}
	m := p.Memory
	out.UI.Printf("model       %s (%s, %s prediction)\n", p.Model, p.Family, p.Prediction)
	out.UI.Printf("adapter     %s: %d modules, %d parameters\n", p.Algorithm, p.Modules, p.Parameters)
	if p.Pictures > 0 {
		out.UI.Printf("data        %d pictures, %d with repeats, in %d buckets\n", p.Pictures, p.Shown, p.Buckets)
	}
	out.UI.Printf("steps       %d (%d a pass over the data)\n", p.Steps, p.StepsPerEpoch)
	out.UI.Printf("memory      %s: weights %s, buffers %s, adapter and optimiser %s\n", tensor.FormatBytes(m.Peak()), tensor.FormatBytes(m.Weights),
		tensor.FormatBytes(m.Arena+m.Scratch), tensor.FormatBytes(m.Adapter+m.Optimizer))
	out.UI.Printf("device      %s\n", b.Name())
	return nil
}
