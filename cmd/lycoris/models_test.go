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

// tinyModel writes the tiny model: tinymodel m.safetensors.
func tinyModel(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: tinymodel FILE")
	}
	ts.Check(tinymodel.WriteTiny(ts.MkAbs(args[0]), 1, checkpoint.SingleFile))
}

// tinyAdapter writes an adapter for a model that changes something: tinyadapter m.safetensors a.safetensors.
func tinyAdapter(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: tinyadapter MODEL FILE")
	}
	base, err := checkpoint.Open(ts.MkAbs(args[0]))
	ts.Check(err)
	defer base.Close()
	targets, err := network.Select(base, "attn-only", nil, nil)
	ts.Check(err)
	var all []algos.Adapter
	for i, t := range targets {
		s := rng.New(1, "test", 0, uint64(i))
		a, err := algos.LoRA.New(t, algos.Options{Rank: 2}, s)
		ts.Check(err)
		s.FillNormal(a.Factors()[0].Host)
		all = append(all, a)
	}
	ts.Check(adapter.Save(ts.MkAbs(args[1]), algos.NewNetwork(all).Tensors(), nil, tensor.F32))
}
