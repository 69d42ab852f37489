package main

import (
	"github.com/rogpeppe/go-internal/testscript"

	"lycoris/internal/adapter"
	"lycoris/internal/algos"
	"lycoris/internal/checkpoint"
	"lycoris/internal/network"
	"lycoris/internal/rng"
	"lycoris/internal/tensor"
	"lycoris/internal/testutil/tinymodel"
)

// tinyModel writes the tiny model: tinymodel m.safetensors [SEED].
func tinyModel(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 1 || len(args) == 2, "tinymodel FILE [SEED]")
	seed := 1
	if len(args) == 2 {
		seed = number(ts, args[1])
	}
	ts.Check(tinymodel.WriteTiny(ts.MkAbs(args[0]), uint64(seed), checkpoint.SingleFile))
}

// tinyAdapter writes an adapter for a model that changes something: tinyadapter m.safetensors a.safetensors.
func tinyAdapter(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: tinyadapter MODEL FILE")
	}
	base, err := checkpoint.Open(ts.MkAbs(args[0]))
	ts.Check(err)
	defer base.Close()
	preset, err := network.PresetByName("attn-only")
	ts.Check(err)
	targets, err := network.Select(base, network.Selection{Preset: preset})
	ts.Check(err)
	var all []algos.Adapter
	for i, t := range targets {
		s := rng.New(1, "test", 0, uint64(i))
		a, err := algos.LoRA.New(t.Target, algos.Options{Rank: 2}, s)
		ts.Check(err)
		s.FillNormal(a.Factors()[0].Host)
		all = append(all, a)
	}
	ts.Check(adapter.Save(ts.MkAbs(args[1]), algos.NewNetwork(all).Tensors(), nil, tensor.F32))
}
