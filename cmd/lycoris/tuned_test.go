package main

import (
	"github.com/rogpeppe/go-internal/testscript"

	"lycoris/internal/algos"
	"lycoris/internal/arch"
	"lycoris/internal/checkpoint"
	"lycoris/internal/kernels/ref"
	"lycoris/internal/network"
	"lycoris/internal/tensor"
	"lycoris/internal/testutil/tinymodel"
)

// tinyTuned writes a copy of a model, in F32, to which an adapter's changes are added: tinytuned m.safetensors a.safetensors tuned.safetensors.
func tinyTuned(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 3, "tinytuned MODEL ADAPTER FILE")
	base, err := checkpoint.Open(ts.MkAbs(args[0]))
	ts.Check(err)
	defer base.Close()
	n, err := network.Load(ts.MkAbs(args[1]), base, "", algos.Options{})
	ts.Check(err)
	changes := map[string][]float32{}
	for _, t := range network.Targets(base) {
		for _, a := range n.Adapters {
			if a.Target().Path != t.Path {
				continue
			}
			w, err := base.Read(t.Component, t.Module.Path+".weight")
			ts.Check(err)
			name, _ := arch.NewNames(t.Component, base.Modules(t.Component)).LDM(t.Module.Path + ".weight")
			changes[name], err = algos.Change(ref.Open(), a, tensor.FromFloat32(tensor.F32, t.Shape, w.Float32()))
			ts.Check(err)
		}
	}
	f, err := tensor.OpenFile(ts.MkAbs(args[0]))
	ts.Check(err)
	defer f.Close()
	var all []tensor.Named
	for _, name := range f.Names() {
		x, err := f.Read(name)
		ts.Check(err)
		v := x.Float32()
		for i, d := range changes[name] {
			v[i] += d
		}
		all = append(all, tensor.Named{Name: name, Tensor: tensor.FromFloat32(tensor.F32, x.Shape, v)})
	}
	ts.Check(tensor.WriteFile(ts.MkAbs(args[2]), all, f.Metadata()))
}

// tinyFamily writes a small checkpoint of another family: tinyfamily m.safetensors sdxl SEED.
func tinyFamily(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 3, "tinyfamily FILE FAMILY SEED")
	ts.Check(tinymodel.Family{Name: args[1], DType: tensor.F16, Seed: uint64(number(ts, args[2]))}.Write(ts.MkAbs(args[0])))
}
