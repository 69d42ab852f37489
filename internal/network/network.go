// Package network chooses the layers of a base model that get an adapter, and reads adapters from files.
//
// [Targets] lists every Linear, Conv2d and norm of a model in the order of adapter files: text encoder, then UNet, each in walk order. [Select] keeps those of
// a preset or of globs, with what rules for single layers set. [Load] makes the adapters of a file. It is the one place that knows both internal/adapter (names in files) and internal/algos.
package network

import (
	"slices"
	"strings"

	"lycoris/internal/adapter"
	"lycoris/internal/algos"
	"lycoris/internal/arch"
	"lycoris/internal/checkpoint"
	"lycoris/internal/fault"
)

// Target is a layer with the module it is.
type Target struct {
	algos.Target
	Component arch.Component
	Module    arch.Module
}

// Targets returns the Linear, Conv2d and norm layers of the text encoder and the UNet.
func Targets(base *checkpoint.Model) []Target {
	var all []Target
	for _, c := range []arch.Component{arch.TextEncoder, arch.UNet} {
		for _, m := range base.Modules(c) {
			if m.Kind != arch.Embedding {
				all = append(all, target(c, m))
			}
		}
	}
	return all
}

func target(c arch.Component, m arch.Module) Target {
	return Target{algos.Target{Path: string(c) + "." + m.Path, Name: adapter.Name(c, m.Path), Shape: m.Shape, Bias: m.Bias, Stride: m.Stride, Pad: m.Pad}, c, m}
}

// KeySets tells internal/adapter what the algorithms' tensors are called, for [adapter.OpenAny].
func KeySets() []adapter.KeySet { return keySets("") }

// keySets tells internal/adapter what the algorithms' tensors are called, the preferred algorithm's first.
func keySets(prefer string) []adapter.KeySet {
	var sets []adapter.KeySet
	for _, a := range algos.All {
		sets = append(sets, adapter.KeySet{Algorithm: a.Name, Keys: a.Keys, Is: a.Is})
	}
	slices.SortStableFunc(sets, func(a, b adapter.KeySet) int {
		switch prefer {
		case a.Algorithm:
			return -1
		case b.Algorithm:
			return 1
		}
		return 0
	})
	return sets
}

// Load reads the adapter at path, made for a model like base. o gives what a file doesn't say: dropouts, max norm. Where modules could be of several algorithms (a
// DyLoRA's are plain LoRA), they are of the preferred one; "" is none.
func Load(path string, base *checkpoint.Model, prefer string, o algos.Options) (*algos.Network, error) {
	table := adapter.NewTable(base.Modules(arch.UNet), base.Modules(arch.TextEncoder))
	f, err := adapter.Open(path, table, keySets(prefer))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var adapters []algos.Adapter
	for _, m := range f.Modules {
		tensors, err := m.Tensors()
		if err != nil {
			return nil, err
		}
		algo, err := algos.ByName(m.Algorithm)
		if err != nil {
			return nil, err
		}
		a, err := algo.Load(target(m.Target.Component, m.Target.Module).Target, tensors, o)
		if err != nil {
			var e *fault.Error
			if ok := asFault(err, &e); ok {
				e.Path = path
			}
			return nil, err
		}
		adapters = append(adapters, a)
	}
	return algos.NewNetwork(adapters), nil
}

// Frozen returns what reads the frozen weight of a layer of base, for [algos.Network.Start].
func Frozen(base *checkpoint.Model) func(t algos.Target) ([]float32, error) {
	return func(t algos.Target) ([]float32, error) {
		component, path, _ := strings.Cut(t.Path, ".")
		w, err := base.Read(arch.Component(component), path+".weight")
		if err != nil {
			return nil, err
		}
		return w.Float32(), nil
	}
}
