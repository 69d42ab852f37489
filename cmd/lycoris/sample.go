package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"image"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"lycoris/internal/adapter"
	"lycoris/internal/algos"
	"lycoris/internal/checkpoint"
	"lycoris/internal/config"
	"lycoris/internal/diffusion"
	"lycoris/internal/fault"
	"lycoris/internal/kernels"
	"lycoris/internal/network"
	"lycoris/internal/pipeline"
	"lycoris/internal/sample"
	"lycoris/internal/ui"
)

func newSampleCommand(out *output) *cobra.Command {
	var opts sampleOptions
	cmd := &cobra.Command{
		Use:   "sample",
		Short: "make pictures from a model and adapters",
		Example: "  lycoris sample --model base.safetensors --adapter my-cat.safetensors --prompt \"a cat on a chair\"\n" +
			"  lycoris sample --model base.safetensors --adapter a.safetensors:0.7 --prompts prompts.txt --grid --out pictures",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runSample(cmd.Context(), opts, out) },
	}
	opts.flags = addConfigFlags(cmd, "model.path", "model.vae", "device", "threads")
	f := cmd.Flags()
	f.StringArrayVar(&opts.adapters, "adapter", nil, "adapter as `FILE[:WEIGHT]` (repeatable: changes add up)")
	f.StringArrayVar(&opts.prompts, "prompt", nil, "prompt line, --n --w --h --d --s --l --ss allowed: `TEXT` (repeatable)")
	f.StringVar(&opts.promptFile, "prompts", "", "`FILE` of prompt lines")
	f.Var(&sizeFlag{&opts.size}, "size", "`SIZE` in pixels: 512 or 512x768 (default: sample.size, 512x512)")
	f.Var(&numberFlag{v: &opts.steps, min: 1, max: diffusion.TrainTimesteps, whole: true}, "steps", "sampling steps `N` (default: sample.steps)")
	f.Var(&numberFlag{v: &opts.cfg, min: 0, max: 100}, "cfg", "guidance scale `X`, 1: none (default: sample.cfg)")
	choice(f, &opts.sampler, "sampler", "", "`NAME` (default: sample.sampler)", diffusion.SamplerNames()...)
	f.Var(&seedFlag{&opts.seed}, "seed", "seed `N` of every prompt without its own (default: sample.seed)")
	f.BoolVar(&opts.grid, "grid", false, "write grid.png too, with all pictures")
	f.StringVar(&opts.dir, "out", "samples", "write to the folder `DIR`")
	return cmd
}

type sampleOptions struct {
	flags      *configFlags
	adapters   []string
	prompts    []string
	promptFile string
	size       config.Size
	steps, cfg *float64 // nil: not given
	sampler    string
	seed       *uint64
	grid       bool
	dir        string
}

// sheetName is the file of all pictures.
const sheetName = "grid.png"

func runSample(ctx context.Context, opts sampleOptions, out *output) error {
	out.UI.Hello(version)
	cfg, _, err := opts.flags.load(out, "")
	if err != nil {
		return err
	}
	if err := cfg.Require("model.path"); err != nil {
		return err
	}
	prompts, err := opts.readPrompts(cfg)
	if err != nil {
		return err
	}
	paths := opts.paths(prompts, out)
	if err := opts.checkPaths(paths, out); err != nil {
		return err
	}
	out.UI.Progress().Phase(ui.ReadModel, 0)
	backend, err := openBackend(cfg)
	if err != nil {
		return err
	}
	studio, err := opts.openStudio(cfg, backend)
	defer studio.close()
	if err != nil {
		return err
	}
	for _, p := range prompts {
		if err := p.Check(studio.model.VAEConfig().Factor()); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(out.place(opts.dir), 0o777); err != nil {
		return fault.BadOutput(opts.dir, "the folder can't be made: %w", errors.Unwrap(err))
	}
	return opts.makePictures(ctx, studio, prompts, paths, out)
}

// readPrompts returns the prompts of the command line, then those of the file, or without either those of the configuration.
func (o *sampleOptions) readPrompts(cfg *config.Config) ([]sample.Prompt, error) {
	d := o.defaults(cfg)
	lines, where := o.prompts, "--prompt"
	if len(lines) == 0 && o.promptFile == "" {
		lines, where = cfg.Sample.Prompts, "sample.prompts"
	}
	var all []sample.Prompt
	for _, line := range lines {
		p, err := sample.ParsePrompt(line, d)
		if err != nil {
			var e *fault.Error
			if errors.As(err, &e) {
				e.Path = where
			}
			return nil, err
		}
		all = append(all, p)
	}
	if o.promptFile != "" {
		fromFile, err := sample.ReadPrompts(o.promptFile, d)
		if err != nil {
			return nil, err
		}
		all = append(all, fromFile...)
	}
	if len(all) == 0 {
		return nil, fault.BadUsage("", "no prompt is given").Advise("use --prompt TEXT or --prompts FILE")
	}
	return all, nil
}

// defaults returns what a prompt line that says nothing gets: flags, then the configuration.
func (o *sampleOptions) defaults(cfg *config.Config) sample.Prompt {
	c := cfg.Sample
	p := sample.Prompt{W: c.Size.W, H: c.Size.H, Seed: c.Seed, Steps: c.Steps, CFG: c.CFG, Sampler: c.Sampler}
	if c.Size.IsAuto() {
		p.W, p.H = 512, 512 // what SD1 was trained on
	}
	if !o.size.IsAuto() {
		p.W, p.H = o.size.W, o.size.H
	}
	if o.steps != nil {
		p.Steps = int(*o.steps)
	}
	if o.cfg != nil {
		p.CFG = *o.cfg
	}
	if o.sampler != "" {
		p.Sampler = o.sampler
	}
	if o.seed != nil {
		p.Seed = *o.seed
	}
	return p
}

// paths returns the pictures' names: their place in the list and their seed.
func (o *sampleOptions) paths(prompts []sample.Prompt, out *output) []string {
	paths := make([]string, len(prompts))
	for i, p := range prompts {
		paths[i] = filepath.Join(out.place(o.dir), fmt.Sprintf("%02d-seed%d.png", i, p.Seed))
	}
	return paths
}

// checkPaths refuses to overwrite, before anything is read.
func (o *sampleOptions) checkPaths(paths []string, out *output) error {
	if out.Global.force {
		return nil
	}
	all := paths
	for _, p := range paths {
		all = append(all, sample.SidecarPath(p))
	}
	if o.grid {
		all = append(all, filepath.Join(out.place(o.dir), sheetName))
	}
	for _, p := range all {
		if _, err := os.Lstat(p); err == nil {
			return fault.BadOutput(p, "exists already").Advise("use another folder: --out DIR, or overwrite: --force")
		}
	}
	return nil
}

// makePictures makes and writes each picture in turn and says where it is.
func (o *sampleOptions) makePictures(ctx context.Context, s *studio, prompts []sample.Prompt, paths []string, out *output) error {
	steps := 0
	for _, p := range prompts {
		steps += p.Steps
	}
	progress := out.UI.Progress()
	progress.Phase(ui.Sample, steps)
	defer progress.End()
	var pictures []image.Image
	var written []string
	for i, p := range prompts {
		img, err := s.sampler.Picture(ctx, p, func(int, int) { progress.Add(1) })
		if err != nil {
			if ctx.Err() != nil {
				progress.End()
				out.UI.Info(fmt.Sprintf("stopped after %d of %d pictures", i, len(prompts)))
			}
			return err
		}
		meta := p.Meta(s.adapters...)
		if err := sample.Write(paths[i], img, meta); err != nil {
			return err
		}
		written = append(written, paths[i])
		out.UI.Emit("sample", map[string]any{"path": paths[i], "prompt": p.Text, "seed": p.Seed, "width": p.W, "height": p.H})
		out.UI.Printf("%s\n", paths[i])
		if o.grid {
			pictures = append(pictures, img)
		}
	}
	if o.grid {
		path := filepath.Join(out.place(o.dir), sheetName)
		if err := sample.WritePNG(path, sample.Sheet(pictures)); err != nil {
			return err
		}
		written = append(written, path)
		out.UI.Printf("%s\n", path)
	}
	out.setResult("paths", written)
	return nil
}

// studio is a model with adapters, ready for pictures.
type studio struct {
	backend   kernels.Backend
	base, vae *checkpoint.Model // vae: nil for the base's own
	model     *pipeline.Model
	networks  []*algos.Network
	adapters  []sample.Adapter
	sampler   *sample.Sampler
}

// openStudio opens the model and the adapters; the weights of the model are read with the first picture. The studio is to be closed after an error too.
func (o *sampleOptions) openStudio(cfg *config.Config, b kernels.Backend) (s *studio, err error) {
	s = &studio{backend: b}
	if s.base, err = checkpoint.Open(cfg.Model.Path); err != nil {
		return s, err
	}
	if cfg.Model.VAE != "" {
		if s.vae, err = checkpoint.OpenVAE(cfg.Model.VAE); err != nil {
			return s, err
		}
		if err := s.base.FitsVAE(s.vae); err != nil {
			return s, err
		}
	}
	s.model = pipeline.New(s.base, s.vae, b)
	for _, text := range o.adapters {
		if err := s.addAdapter(text); err != nil {
			return s, err
		}
	}
	prediction := diffusion.Epsilon
	if p := cfg.Model.Prediction; p == "v" || p != "eps" && s.base.Prediction == checkpoint.VPrediction {
		prediction = diffusion.VPrediction
	}
	text := pipeline.TextOptions{ClipSkip: cfg.Model.ClipSkip, MaxTokens: cfg.Model.MaxTokens}
	s.sampler = sample.New(s.model, text, prediction, s.networks...)
	return s, nil
}

// addAdapter reads one adapter of the command line. One of weight 0 is checked and left out.
func (s *studio) addAdapter(text string) error {
	path, weight, err := splitWeight(text)
	if err != nil {
		return err
	}
	n, err := network.Load(path, s.base, "", algos.Options{Strength: weight})
	if err != nil {
		return err
	}
	hash, err := hashFile(adapter.TensorsFile(path))
	if err != nil {
		return err
	}
	s.adapters = append(s.adapters, sample.Adapter{Name: filepath.Base(path), SHA256: hash, Weight: weight})
	if weight == 0 {
		return nil
	}
	if err := n.Start(network.Frozen(s.base), func() {}); err != nil { // T-LoRA whose file doesn't say where it started
		return err
	}
	s.networks = append(s.networks, n)
	return n.Allocate(s.backend)
}

// splitWeight takes FILE:WEIGHT apart; a file whose whole name is text has weight 1.
func splitWeight(text string) (path string, weight float64, err error) {
	i := strings.LastIndexByte(text, ':')
	if _, err := os.Stat(text); err == nil || i < 0 {
		return text, 1, nil
	}
	weight, err = strconv.ParseFloat(text[i+1:], 64)
	if err != nil || math.IsNaN(weight) || math.IsInf(weight, 0) {
		return "", 0, fault.BadUsage("--adapter", "%q is not a weight", text[i+1:]).Advise("an adapter is FILE or FILE:WEIGHT, as in cat.safetensors:0.7")
	}
	return text[:i], weight, nil
}

func hashFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fault.BadInput(path, "can't be read: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fault.BadInput(path, "can't be read: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func (s *studio) close() {
	for _, n := range s.networks {
		n.Free(s.backend)
	}
	if s.model != nil {
		s.model.Close()
	}
	for _, m := range []*checkpoint.Model{s.vae, s.base} {
		if m != nil {
			m.Close()
		}
	}
}

// place returns where a path of a flag is.
func (out *output) place(path string) string {
	if filepath.IsAbs(path) || out.dir == "" {
		return path
	}
	return filepath.Join(out.dir, path)
}
