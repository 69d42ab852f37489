package train

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"lycoris/internal/algos"
	"lycoris/internal/arch"
	"lycoris/internal/config"
	"lycoris/internal/fault"
	"lycoris/internal/network"
	"lycoris/internal/optim"
	"lycoris/internal/rng"
	"lycoris/internal/tensor"
)

// makeNetwork makes new adapters for the chosen layers, or reads them.
func (j *Job) makeNetwork() (err error) {
	c := j.cfg
	if j.in.NetworkWeights != "" {
		j.network, err = network.Load(j.in.NetworkWeights, j.base, c.Algo, options(c, algos.Target{}, nil))
		var e *fault.Error
		if errors.As(err, &e) && e.Advice == "" {
			e.Advise("use the base that the adapter was made for, or another adapter")
		}
		return err
	}
	selection, err := j.selection()
	if err != nil {
		return err
	}
	choices, err := network.Select(j.base, selection)
	if err != nil {
		return err
	}
	if err := j.checkRanks(choices); err != nil {
		return err
	}
	j.lrScale = map[string]float64{}
	var adapters []algos.Adapter
	var without []string // layers that their algorithm can't adapt
	for i, t := range choices {
		if isText(t.Path) && !j.trainsText() || !isText(t.Path) && c.LRUnet == 0 {
			continue
		}
		a, err := newAdapter(c, t, rng.New(c.Seed, "init", 0, uint64(i)))
		if err != nil {
			return err
		}
		if a != nil && !t.Norm {
			for _, text := range algos.Readings(a.Algorithm().Name, a.Options()) {
				if !slices.Contains(j.Warnings, text) {
					j.warn(text)
				}
			}
		}
		switch {
		case a != nil:
			adapters = append(adapters, a)
			j.lrScale[t.Path] = t.LR
		case !t.Norm:
			without = append(without, t.Path)
		}
	}
	if len(adapters) == 0 {
		return fault.BadUsage("targets", "no layer of the model is trained").Advise("choose other targets, or raise dim, conv_dim, lr_unet or lr_te")
	}
	if len(without) > 0 && c.ConvDim > 0 {
		j.warn(fmt.Sprintf("%s leaves %d of the chosen layers out, for example %q: it can't adapt them", c.Algo, len(without), without[0]))
	}
	j.network = algos.NewNetwork(adapters)
	return nil
}

// warn says text and keeps it.
func (j *Job) warn(text string) {
	j.Warnings = append(j.Warnings, text)
	j.in.UI.Warn(text, "")
}

// selection is what the configuration says about layers.
func (j *Job) selection() (network.Selection, error) {
	c := j.cfg
	s := network.Selection{Globs: c.Targets.Globs, Exclude: c.Exclude, Norms: c.TrainNorm}
	for _, l := range c.Layers {
		s.Rules = append(s.Rules, network.Rule{Match: l.Match, Skip: l.Skip, LR: l.LRScale, Set: l.Set})
	}
	var err error
	switch {
	case c.Targets.File != "":
		f, err := config.ReadLycorisPreset(c.Targets.File)
		if err != nil {
			return s, err
		}
		p := network.Preset{Name: c.Targets.File, Conv: f.Conv, UNet: f.UNet, UNetNames: f.UNetNames, Text: f.Text, TextNames: f.TextNames, Exclude: f.Exclude, Globs: f.Globs}
		for _, o := range f.ByClass {
			p.ByClass = append(p.ByClass, network.Overrides(o))
		}
		for _, o := range f.ByName {
			p.ByName = append(p.ByName, network.Overrides(o))
		}
		s.Preset = p.With()
	case c.Targets.Preset != "":
		s.Preset, err = network.PresetByName(c.Targets.Preset)
	}
	return s, err
}

// newAdapter makes the adapter of a layer; nil where a rank of 0 leaves it out or its algorithm can't adapt it.
func newAdapter(c *config.Config, t network.Choice, s *rng.Stream) (algos.Adapter, error) {
	if t.Norm {
		norm, err := algos.ByName("norm")
		if err != nil {
			return nil, err
		}
		return norm.New(t.Target, options(c, t.Target, nil), s)
	}
	onInput := false
	for _, set := range t.Set {
		c = c.With(set)
		if v, given := set["on_input"]; given {
			onInput = v.(bool)
		}
	}
	algo, err := algos.ByName(c.Algo)
	if err != nil {
		return nil, err
	}
	o := options(c, t.Target, algo)
	o.OnInput = onInput
	if o.Rank == 0 {
		return nil, nil
	}
	return algo.New(t.Target, o, s)
}

// options returns the settings of t's adapter, of which algo takes some; with nil, of a loaded one.
func options(c *config.Config, t algos.Target, algo *algos.Algorithm) algos.Options {
	o := algos.Options{Rank: c.Dim, Alpha: c.Alpha, Tucker: c.Tucker, UseScalar: c.UseScalar, RSLoRA: c.RSLora, Factor: c.Factor, DecomposeBoth: c.DecomposeBoth,
		FullMatrix: c.FullMatrix, Unbalanced: c.Unbalanced, BlockSize: c.BlockSize, MinRank: c.MinRank, Constraint: c.Constraint, Rescaled: c.Rescaled, RankDropout: c.Dropout.Rank,
		ModuleDropout: c.Dropout.Module, NeuronDropout: c.Dropout.Neuron, MaxNorm: c.Train.ScaleWeightNorms > 0}
	if c.Compat == "kohya" || c.Compat == "lycoris" {
		o.BlockScale = c.Compat
	}
	if c.DoRA != "none" {
		o.DoRA = c.DoRA
	}
	if t.HasWindow() {
		o.Rank, o.Alpha = c.ConvDim, c.ConvAlpha
	}
	return o
}

// checkRanks refuses a rank that no layer can use: above the smaller side of every one. For the algorithms of Kronecker products a huge rank means full factors,
// and for rotations the whole width.
func (j *Job) checkRanks(choices []network.Choice) error {
	if !slices.Contains([]string{"lora", "locon", "loha", "dylora", "glora", "tlora"}, j.cfg.Algo) {
		return nil
	}
	most := 0
	for _, t := range choices {
		if !t.Norm {
			most = max(most, min(t.Shape[0], tensor.Elems(t.Shape)/t.Shape[0]))
		}
	}
	for _, k := range []struct {
		key  string
		rank int
	}{{"dim", j.cfg.Dim}, {"conv_dim", j.cfg.ConvDim}} {
		if most > 0 && k.rank > most {
			return fault.BadUsage(k.key, "%d is more than any layer of the model can use, which is %d", k.rank, most).Advise("give %d or less", most)
		}
	}
	return nil
}

func isText(path string) bool { return strings.HasPrefix(path, string(arch.TextEncoder)+".") }

func (j *Job) trainsText() bool { return j.cfg.Train.TrainTE && j.cfg.LRTE > 0 }

// makeGroups returns the optimiser's groups: text encoder, then UNet, each if it is trained; layers with a learning rate of their own after those with the
// component's.
func (j *Job) makeGroups() []optim.Group {
	var groups []optim.Group
	for _, c := range []struct {
		component arch.Component
		lr        float64
	}{{arch.TextEncoder, j.cfg.LRTE}, {arch.UNet, j.cfg.LRUnet}} {
		scales := []float64{1}
		params := map[float64][]*optim.Param{}
		for _, a := range j.network.Adapters {
			path := a.Target().Path
			if isText(path) != (c.component == arch.TextEncoder) {
				continue
			}
			scale, given := j.lrScale[path]
			if !given {
				scale = 1
			}
			for _, f := range a.Factors() {
				if !j.engine.trained[f.Param] {
					continue
				}
				if !slices.Contains(scales, scale) {
					scales = append(scales, scale)
				}
				for _, p := range partsOf(path, f) {
					params[scale] = append(params[scale], &optim.Param{Name: p.name()})
				}
			}
		}
		for _, scale := range scales {
			if len(params[scale]) == 0 {
				continue
			}
			name := string(c.component)
			if scale != 1 {
				name = fmt.Sprintf("%s x%g", name, scale)
			}
			groups = append(groups, optim.Group{Name: name, LR: c.lr * scale, Params: params[scale]})
		}
	}
	return groups
}
