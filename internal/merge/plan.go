package merge

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"lycoris/internal/adapter"
	"lycoris/internal/algos"
	"lycoris/internal/arch"
	"lycoris/internal/fault"
	"lycoris/internal/modelfile"
	"lycoris/internal/tensor"
)

// Plan is a merge of which everything but the weights is known.
type Plan struct {
	Family   string
	Warnings []string
	Adapters []*Opened
	Touched  int   // tensors that change
	Bytes    int64 // of the files to write

	options Options
	model   *modelfile.Model
	files   []*fileJob
	bundled []embedding
}

// Opened is an adapter of a plan.
type Opened struct {
	Source     Source
	File       *adapter.File
	Modules    map[string]int // that are merged, by component
	Algorithms map[string]int
	LeftOut    int             // modules at weight 0, or of components that are left out
	last       *adapter.Module // of which tensors are kept, because weight and bias lie side by side
	tensors    map[string]tensor.Tensor
}

// fileJob is one file to write.
type fileJob struct {
	file  *modelfile.File
	slots []tensor.Slot
	jobs  []tensorJob // one per slot
}

// tensorJob is a tensor to copy, convert or change.
type tensorJob struct {
	in     *modelfile.Tensor
	inAt   int64 // in the base's data section
	outAt  int64
	out    tensor.DType
	scale  float64 // what the stored values are multiplied by: that of eight-bit weights, else 1
	pieces []piece // rows that change, in order
}

// piece is rows of a tensor with what changes them, in the order of the adapters.
type piece struct {
	rows [2]int
	uses []use
}

// use is a module of an adapter acting on a layer's weight or bias.
type use struct {
	from   *Opened
	module *adapter.Module
	target algos.Target
	c      float64
	bias   bool
}

// keySets tells internal/adapter what the algorithms' tensors are called.
func keySets() []adapter.KeySet {
	var sets []adapter.KeySet
	for _, a := range algos.All {
		sets = append(sets, adapter.KeySet{Algorithm: a.Name, Keys: a.Keys, Is: a.Is})
	}
	return sets
}

// Prepare opens the model and the adapters and finds out what to do. All that can be wrong but the values of weights is an error here. The plan is to be closed.
func Prepare(o Options) (p *Plan, err error) {
	p = &Plan{options: o}
	defer func() {
		if err != nil {
			p.Close()
			p = nil
		}
	}()
	if p.model, err = modelfile.OpenWith(o.Model, modelfile.Options{Variant: o.Variant, VAE: o.VAEDType != tensor.Invalid}); err != nil {
		return p, err
	}
	p.Family = p.model.Family
	if len(o.Adapters) == 0 {
		return p, fault.BadUsage("--adapter", "no adapter is given").Advise("use --adapter FILE or --adapter FILE:WEIGHT")
	}
	uses := map[string][]use{}
	var all []error
	for _, s := range o.Adapters {
		if err := p.addAdapter(s, uses); err != nil {
			all = append(all, err)
		}
	}
	if len(all) > 0 {
		return p, errors.Join(all...)
	}
	if err := p.checkEmbeddings(); err != nil {
		return p, err
	}
	return p, p.layOut(uses)
}

// Close closes all files.
func (p *Plan) Close() {
	if p.model != nil {
		p.model.Close()
	}
	for _, a := range p.Adapters {
		a.File.Close()
	}
}

// merges reports whether a component is merged into.
func (p *Plan) merges(c string) bool {
	return len(p.options.Parts) == 0 || slices.Contains(p.options.Parts, c)
}

// addAdapter opens an adapter and adds its modules to uses, by component, path and parameter.
func (p *Plan) addAdapter(s Source, uses map[string][]use) error {
	var parts []adapter.Part
	var excluded []arch.Component
	blocks := map[string]bool{"BASE": true}
	for _, c := range []string{modelfile.TextEncoder, modelfile.TextEncoder2, modelfile.UNet} {
		if !p.merges(c) {
			excluded = append(excluded, arch.Component(c))
		}
		modules := p.model.Modules(c)
		parts = append(parts, adapter.Part{Component: arch.Component(c), Modules: modules})
		for _, m := range modules {
			blocks[blockOf(arch.Component(c), m)] = true
		}
	}
	table := adapter.NewTableOf(p.Family, slices.DeleteFunc(parts, func(part adapter.Part) bool { return len(part.Modules) == 0 }))
	f, err := adapter.OpenFor(s.Path, table, keySets(), p.options.AllowUnmatched, excluded...)
	if err != nil {
		return err
	}
	a := &Opened{Source: s, File: f, Modules: map[string]int{}, Algorithms: map[string]int{}}
	p.Adapters = append(p.Adapters, a)
	if len(f.Unknown) > 0 {
		p.warn("%s: %d tensors fit no layer of the model and are left out, the first is %q", s.Path, len(f.Unknown), f.Unknown[0])
	}
	if len(f.Extra) > 0 && p.options.Embeddings == "" {
		p.warn("%s: %d tensors of embeddings can't be merged and are left out: --emit-embeddings DIR writes them", s.Path, len(f.Extra))
	}
	chosen := s.Blocks
	if chosen == nil {
		chosen = p.options.Blocks
	}
	multipliers, err := chosen.of(p.Family, blocks)
	if err != nil {
		return err
	}
	var far farOut
	for _, m := range f.Modules {
		c := string(m.Target.Component)
		weight := s.Weight * p.partWeight(s, c)
		if x, ok := multipliers[blockOf(m.Target.Component, m.Target.Module)]; ok {
			weight *= x
		}
		if weight == 0 || !p.merges(c) {
			a.LeftOut++
			continue
		}
		if math.Abs(weight) > 10 {
			far.add(weight, m.Target.Name)
		}
		if err := a.use(m, weight, uses); err != nil {
			return err
		}
		a.Modules[c]++
		a.Algorithms[m.Algorithm]++
	}
	if far.modules > 0 {
		p.warn("%s: %s", s.Path, far)
	}
	if len(a.Modules) == 0 {
		p.warn("%s: no module is merged: every weight is 0 or its part is left out", s.Path)
	}
	return nil
}

func (p *Plan) warn(format string, args ...any) {
	if w := fmt.Sprintf(format, args...); !slices.Contains(p.Warnings, w) {
		p.Warnings = append(p.Warnings, w)
	}
}

// partWeight returns the multiplier of a component: the adapter's own, or that of all.
func (p *Plan) partWeight(s Source, c string) float64 {
	own, all := s.UNet, p.options.UNet
	switch c {
	case modelfile.TextEncoder:
		own, all = s.Text[0], p.options.Text[0]
	case modelfile.TextEncoder2:
		own, all = s.Text[1], p.options.Text[1]
	}
	if own != nil {
		return *own
	}
	return all
}

// use adds what a module changes.
func (a *Opened) use(m *adapter.Module, c float64, uses map[string][]use) error {
	mod := m.Target.Module
	u := use{from: a, module: m, c: c, target: algos.Target{Path: string(m.Target.Component) + "." + mod.Path, Name: m.Target.Name, Shape: mod.Shape, Bias: mod.Bias,
		Stride: mod.Stride, Pad: mod.Pad}}
	if err := a.check(u); err != nil {
		return err
	}
	key := string(m.Target.Component) + ":" + mod.Path + "."
	uses[key+"weight"] = append(uses[key+"weight"], u)
	if m.Has(keyDiffBias) || m.Has(keyNormBias) {
		u.bias = true
		uses[key+"bias"] = append(uses[key+"bias"], u)
	}
	return nil
}

// check refuses a module whose tensors don't make a change of the layer's shape. Whole differences are as large as the model: of them only the headers are read here,
// their values when they are merged.
func (a *Opened) check(u use) error {
	t, m := u.target, u.module
	if m.Algorithm == algos.Full.Name || m.Algorithm == algos.Norm.Name {
		for suffix, want := range map[string][]int{keyDiff: t.Shape, keyNormGain: t.Shape[:1], keyDiffBias: t.Shape[:1], keyNormBias: t.Shape[:1]} {
			if got := m.Shape(suffix); m.Has(suffix) && !sameBut1(got, want) && !padsInput(u, suffix) {
				return a.fault(fault.BadInput("", "%q: %s has shape %v, want %v", t.Name, suffix, got, want).Advise("use the base it was made for"))
			}
		}
		if (m.Has(keyDiffBias) || m.Has(keyNormBias)) && !t.Bias {
			return a.fault(fault.BadInput("", "%q changes a bias, and the layer has none", t.Name).Advise("use the base it was made for"))
		}
		return nil
	}
	tensors, err := a.read(u)
	if err != nil {
		return err
	}
	algo, err := algos.ByName(m.Algorithm)
	if err != nil {
		return err
	}
	if _, err := algo.Load(t, tensors, algos.Options{}); err != nil {
		return a.fault(err)
	}
	if scale, ok := tensors[keyDoRA]; ok {
		for _, v := range scale.Float32() {
			if v < 0 {
				return a.fault(fault.BadInput("", "%q: dora_scale holds %g, a magnitude is 0 or more", t.Name, v).Advise("the adapter is broken"))
			}
		}
	}
	return nil
}

// fault sets the path of an error about the adapter's content.
func (a *Opened) fault(err error) error {
	var e *fault.Error
	if errors.As(err, &e) && e.Path == "" {
		e.Path = a.Source.Path
	}
	return err
}

// read returns the tensors of a module by suffix, those of the module read last from memory. The change of an input convolution of 4 channels is padded with zeros where
// the base has more: the inpainting form of a model shows the same picture channels first.
func (a *Opened) read(u use) (map[string]tensor.Tensor, error) {
	if a.last == u.module {
		return a.tensors, nil
	}
	tensors, err := u.module.Tensors()
	if err != nil {
		return nil, err
	}
	for suffix, t := range tensors {
		if padsInput(u, suffix) {
			tensors[suffix] = padInput(t, u.target.Shape[1])
		}
	}
	a.last, a.tensors = u.module, tensors
	return tensors, nil
}

// padsInput reports whether a tensor is that of an input convolution with fewer channels than the base's.
func padsInput(u use, suffix string) bool {
	s := u.module.Shape(suffix)
	return u.module.Target.Module.Path == "conv_in" && u.module.Target.Component == arch.UNet && (suffix == keyDown || suffix == keyDiff) && len(s) == 4 && s[1] == 4 && u.target.Shape[1] > 4
}

// padInput widens the second axis of [A,4,kh,kw] to n channels.
func padInput(t tensor.Tensor, n int) tensor.Tensor {
	window := tensor.Elems(t.Shape[2:]) * t.DType.Size()
	out := tensor.Tensor{DType: t.DType, Shape: []int{t.Shape[0], n, t.Shape[2], t.Shape[3]}}
	out.Data = make([]byte, tensor.Elems(out.Shape)*t.DType.Size())
	for row := range t.Shape[0] {
		copy(out.Data[row*n*window:], t.Data[row*t.Shape[1]*window:(row+1)*t.Shape[1]*window])
	}
	return out
}

// sameBut1 reports whether two shapes are equal but for axes of length 1.
func sameBut1(a, b []int) bool {
	one := func(n int) bool { return n == 1 }
	return slices.Equal(slices.DeleteFunc(slices.Clone(a), one), slices.DeleteFunc(slices.Clone(b), one))
}

// layOut decides for each tensor of each file what becomes of it and where it goes.
func (p *Plan) layOut(uses map[string][]use) error {
	stale := 0
	for _, f := range p.model.Files() {
		scales, err := p.scales(f)
		if err != nil {
			return err
		}
		job := &fileJob{file: f}
		var at, inAt int64
		for i := range f.Tensors {
			t := &f.Tensors[i]
			j := tensorJob{in: t, inAt: inAt, outAt: at, out: t.DType, scale: 1}
			inAt += int64(tensor.Elems(t.Shape)) * int64(t.DType.Size())
			if t.Role == modelfile.EMA && p.options.EMA == EMADrop {
				continue
			}
			if scales.drops(t.Name) {
				continue
			}
			switch {
			case p.options.DType != tensor.Invalid && t.Role == modelfile.Module:
				j.out, j.scale = p.options.DType, scales.of(t.Name)
			case p.options.VAEDType != tensor.Invalid && t.Role == modelfile.VAE && (t.DType.IsFloat() || t.DType.IsF8()):
				j.out = p.options.VAEDType
			}
			parts := t.Parts
			if t.Role == modelfile.EMA && t.EMA.Path != "" {
				if len(uses[partKey(t.EMA)]) > 0 {
					stale++
				}
				if p.options.EMA == EMAMerge {
					parts = []modelfile.Part{t.EMA}
				}
			}
			for _, part := range parts {
				if u := uses[partKey(part)]; len(u) > 0 {
					j.pieces = append(j.pieces, piece{part.Rows, u})
				}
			}
			if len(j.pieces) > 0 {
				p.Touched++
			}
			if len(j.pieces) > 0 && j.out.IsF8() {
				return fault.BadInput(f.Path, "%q has weights of type %s, in which most changes vanish", t.Name, t.DType).Advise("name another element type for the merged model: --dtype fp16")
			}
			slot := tensor.Slot{Name: t.Name, DType: j.out, Shape: t.Shape}
			job.slots, job.jobs = append(job.slots, slot), append(job.jobs, j)
			at += slot.Bytes()
		}
		p.Bytes += at
		p.files = append(p.files, job)
	}
	if stale > 0 && p.options.EMA == EMAKeep {
		p.warn("the model holds running averages (EMA) of %d merged tensors, which stay as they were: a program that loads them shows the base; --ema merge or --ema drop", stale)
	}
	for _, name := range p.model.Skipped() {
		p.warn("%s is another form of the weights and is left out of the new folder", name)
	}
	if p.options.VAEDType == tensor.F16 && p.Family == modelfile.SDXL {
		p.warn("the VAE of SDXL gives black pictures in fp16: programs want it in fp32 or bf16")
	}
	return nil
}

func partKey(p modelfile.Part) string { return p.Component + ":" + p.Path + "." + p.Param }
