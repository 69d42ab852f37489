package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"lycoris/internal/config"
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
	resumeFile := opts.resumeFile()
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
	run, done, err := opts.openRun(cfg, resumeFile != "", out)
	if err != nil || done {
		return err
	}
	if run != nil {
		defer run.Close()
		if log, err := run.Log(); err == nil {
			out.UI.AddLog(log)
		}
	}
	backend, err := openBackend(cfg)
	if err != nil {
		return err
	}
	job, err := train.Prepare(train.Input{Config: cfg, StepsGiven: opts.stepsGiven(resolved), Replay: opts.replay, NetworkWeights: opts.weights, Backend: backend, UI: out.UI})
	if err != nil {
		return opts.abandon(run, resumeFile != "", err)
	}
	defer job.Close()
	if opts.dryRun {
		return printPlan(job, backend, out)
	}
	if resumeFile == "" {
		if err := opts.record(run, resolved); err != nil {
			return err
		}
	}
	sum, err := job.Run(ctx, train.Options{Run: run, Resume: opts.resume != "", StopAfter: opts.stopAfter, Version: version, Threads: cfg.Threads})
	if sum.Adapter != "" {
		out.setResult("path", sum.Adapter)
		if err == nil && !out.UI.JSON() {
			out.UI.Printf("%s\n", sum.Adapter)
		}
	}
	return err
}

// resumeFile returns the resolved configuration of the run to go on with, empty if there is none yet.
func (o *trainOptions) resumeFile() string {
	if o.resume == "" {
		return ""
	}
	path := filepath.Join(o.resume, "config.resolved.yaml")
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

func (o *trainOptions) flagsFile() string {
	return filepath.Join(o.resume, "config.input", "99-flags.json")
}

// restore takes the flags that the run was started with.
func (o *trainOptions) restore() error {
	b, err := os.ReadFile(o.flagsFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var k keptFlags
	if err == nil {
		err = json.Unmarshal(b, &k)
	}
	if err == nil {
		o.replay, o.weights = k.Replay, k.Weights
	}
	return err
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
	if info := run.Info(); resumed && info.Status == runs.Finished && info.Step >= cfg.Steps && cfg.Epochs == 0 || info.Status == runs.Finished && cfg.Epochs > 0 {
		out.UI.Info("the run is finished", "steps", info.Step)
		out.setResult("path", run.Path(info.Adapter))
		if !out.UI.JSON() {
			out.UI.Printf("%s\n", run.Path(info.Adapter))
		}
		return nil, true, run.Close()
	}
	return run, false, nil
}

// abandon removes the folder of a run that never began, so that a mistake leaves nothing behind.
func (o *trainOptions) abandon(run *runs.Run, resumed bool, err error) error {
	if run != nil && !resumed && run.Info().Part == 0 {
		dir := run.Dir()
		run.Close()
		for _, name := range []string{"state", "control", "lock", "run.json", "train.log"} {
			os.Remove(filepath.Join(dir, name))
		}
		os.Remove(dir) // only if it is empty now
	}
	return err
}

// record keeps what the run was started with.
func (o *trainOptions) record(run *runs.Run, resolved *config.Resolved) error {
	if err := run.WriteConfig(resolved.YAML("the configuration of this run, every key with its source")); err != nil {
		return err
	}
	for i, in := range resolved.Inputs {
		if err := run.WriteInput(i, in.Name, in.Data); err != nil {
			return err
		}
	}
	absolute := func(path string) string {
		if abs, err := filepath.Abs(path); err == nil && path != "" {
			return abs
		}
		return path
	}
	b, err := json.Marshal(keptFlags{absolute(o.replay), absolute(o.weights)})
	if err != nil {
		return err
	}
	return run.WriteInput(99, "flags.json", b)
}

// openBackend starts the engine that the configuration asks for.
func openBackend(cfg *config.Config) (kernels.Backend, error) {
	return cpu.Open(cpu.Options{Threads: cfg.Threads, ISA: cfg.CPUISA})
}

// printPlan says what the run will do and take.
func printPlan(job *train.Job, b kernels.Backend, out *output) error {
	p := job.Plan()
	if out.UI.JSON() {
		out.UI.Document(p)
		return nil
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
