// Package modeltest compares the models, built as graphs, with diffusers and transformers on tiny random models.
package modeltest

import (
	"context"
	"os"
	"strings"
	"testing"

	"lycoris/internal/arch"
	"lycoris/internal/diffusion"
	"lycoris/internal/graph"
	"lycoris/internal/kernels"
	"lycoris/internal/kernels/cpu"
	"lycoris/internal/kernels/ref"
	"lycoris/internal/nn"
	"lycoris/internal/tensor"
	"lycoris/internal/testutil"
	"lycoris/internal/textencoder"
	"lycoris/internal/unet"
	"lycoris/internal/vae"
)

// bound is the issue's: 1e-4 of the largest value, outputs and input gradients.
const bound = 1e-4

var models = []string{"tiny-sd1", "tiny-odd"}

// source serves a component's file; transformers 5 leaves out the text_model level.
type source map[string]tensor.Tensor

func (s source) find(name string) (tensor.Tensor, bool) {
	t, ok := s[name]
	if !ok {
		t, ok = s[strings.TrimPrefix(name, "text_model.")]
	}
	return t, ok
}

func (s source) Lookup(name string) ([]int, tensor.DType, bool) {
	t, ok := s.find(name)
	return t.Shape, t.DType, ok
}

func (s source) Read(name string) (tensor.Tensor, error) {
	t, _ := s.find(name)
	return t, nil
}

func config(t *testing.T, model, component string) []byte {
	t.Helper()
	b, err := os.ReadFile(testutil.GoldenPath(t, model, component, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func open(t *testing.T, model, component string) source {
	t.Helper()
	file := "diffusion_pytorch_model.safetensors"
	if component == "text_encoder" {
		file = "model.safetensors"
	}
	return source(testutil.Tensors(t, testutil.GoldenPath(t, model, component, file)))
}

// forEach runs test on every model and backend.
func forEach(t *testing.T, test func(t *testing.T, b kernels.Backend, model string)) {
	backends := []kernels.Backend{ref.Open()}
	for _, isa := range cpu.ISAs() {
		for _, direct := range []bool{false, true} {
			b, err := cpu.Open(cpu.Options{Threads: 2, ISA: isa, DirectConv: direct})
			if err != nil {
				t.Fatal(err)
			}
			backends = append(backends, b)
		}
	}
	for _, b := range backends {
		for _, model := range models {
			t.Run(b.Name()+"/"+model, func(t *testing.T) { test(t, b, model) })
		}
	}
}

// run plans, loads and runs outputs; the program is bound one allocation per buffer, so that a read of a dead value shows.
func run(t *testing.T, b kernels.Backend, g *graph.Graph, store *nn.Store, inputs map[string][]float32, outputs []*graph.Node, recompute bool) [][]float32 {
	t.Helper()
	if err := store.Load(b, nil); err != nil {
		t.Fatal(err)
	}
	p, err := graph.NewPlan(g, outputs, graph.PlanOptions{Recompute: recompute}).BindSeparately(b)
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range inputs {
		p.Set(name, v)
	}
	if err := p.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	var results [][]float32
	for i := range outputs {
		results = append(results, p.Output(i))
	}
	return results
}

func check(t *testing.T, what string, got, want []float32) {
	t.Helper()
	if e := testutil.MaxRel(got, want); !(e <= bound) {
		t.Errorf("%s: error %.2e of the largest value, bound %.0e", what, e, bound)
	} else {
		t.Logf("%s: error %.2e", what, e)
	}
}

func TestUNet(t *testing.T) {
	forEach(t, func(t *testing.T, b kernels.Backend, model string) {
		cfg, err := arch.ParseUNet(config(t, model, "unet"))
		if err != nil {
			t.Fatal(err)
		}
		golden := testutil.Tensors(t, testutil.GoldenPath(t, model, "goldens", "unet.safetensors"))
		s := golden["latents"].Shape
		n, c, h, w := s[0], s[1], s[2], s[3]
		ctx := golden["context"].Shape
		features := make([]float32, n*cfg.BlockOutChannels[0])
		for i, step := range golden["timesteps"].Int64() {
			diffusion.TimestepEmbedding(features[i*cfg.BlockOutChannels[0]:(i+1)*cfg.BlockOutChannels[0]], float64(step), cfg.BlockOutChannels[0])
		}
		inputs := map[string][]float32{"noisy": testutil.ChannelsLast(golden["latents"]), "time": features,
			"context": golden["context"].Float32(), "g": testutil.ChannelsLast(golden["g"])}
		for _, recompute := range []bool{false, true} {
			g := &graph.Graph{}
			store := nn.NewStore(open(t, model, "unet"), model)
			builder := nn.NewBuilder(nn.NewLeaves(g), store, "unet", nil)
			in := unet.Inputs{Noisy: g.Input("noisy", n, h, w, c), Time: g.Input("time", n, cfg.BlockOutChannels[0]), Context: g.Input("context", ctx...)}
			pred := unet.Build(builder, cfg, in)
			wrt := []*graph.Node{in.Noisy, in.Context}
			grads := g.Grad([]*graph.Node{pred}, []*graph.Node{g.Input("g", n, h, w, c)}, wrt)
			out := run(t, b, g, store, inputs, append([]*graph.Node{pred}, grads...), recompute)
			check(t, "output", testutil.ChannelsFirst(out[0], n, h*w, c), golden["output"].Float32())
			check(t, "gradient of the latents", testutil.ChannelsFirst(out[1], n, h*w, c), golden["d_latents"].Float32())
			check(t, "gradient of the context", out[2], golden["d_context"].Float32())
		}
	})
}

func TestTextEncoder(t *testing.T) {
	forEach(t, func(t *testing.T, b kernels.Backend, model string) {
		cfg, err := arch.ParseCLIP(config(t, model, "text_encoder"))
		if err != nil {
			t.Fatal(err)
		}
		golden := testutil.Tensors(t, testutil.GoldenPath(t, model, "goldens", "text_encoder.safetensors"))
		files := open(t, model, "text_encoder")
		emb, err := textencoder.ReadEmbeddings(files, cfg)
		if err != nil {
			t.Fatal(err)
		}
		shape := golden["g"].Shape
		var ids []int32
		for _, id := range golden["input_ids"].Int64() {
			ids = append(ids, int32(id))
		}
		x := make([]float32, tensor.Elems(shape))
		if err := emb.Embed(x, ids, shape[1]); err != nil {
			t.Fatal(err)
		}
		for skip, name := range map[int]string{1: "last_hidden_state", 2: "clip_skip_2"} {
			g := &graph.Graph{}
			store := nn.NewStore(files, model)
			in := g.Input("x", shape...)
			states := textencoder.Build(nn.NewBuilder(nn.NewLeaves(g), store, "text_encoder", nil), cfg, in, skip)
			d := g.Grad([]*graph.Node{states}, []*graph.Node{g.Input("g", shape...)}, []*graph.Node{in})
			out := run(t, b, g, store, map[string][]float32{"x": x, "g": golden["g"].Float32()}, []*graph.Node{states, d[0]}, skip == 2)
			check(t, name, out[0], golden[name].Float32())
			check(t, "gradient through "+name, out[1], golden["d_embeddings."+name].Float32())
		}
	})
}

func TestVAE(t *testing.T) {
	forEach(t, func(t *testing.T, b kernels.Backend, model string) {
		cfg, err := arch.ParseVAE(config(t, model, "vae"))
		if err != nil {
			t.Fatal(err)
		}
		golden := testutil.Tensors(t, testutil.GoldenPath(t, model, "goldens", "vae.safetensors"))
		store := nn.NewStore(open(t, model, "vae"), model)
		s, z := golden["image"].Shape, golden["raw_latents"].Shape
		g := &graph.Graph{}
		builder := nn.NewBuilder(nn.NewLeaves(g), store, "vae", nil)
		moments := vae.Encode(builder, cfg, g.Input("image", s[0], s[2], s[3], s[1]))
		picture := vae.Decode(builder, cfg, g.Input("code", z[0], z[2], z[3], z[1]))
		out := run(t, b, g, store, map[string][]float32{"image": testutil.ChannelsLast(golden["image"]), "code": testutil.ChannelsLast(golden["raw_latents"])},
			[]*graph.Node{moments, picture}, false)
		var mean, logvar []float32
		first := testutil.ChannelsFirst(out[0], z[0], z[2]*z[3], 2*z[1])
		for i, half := 0, z[1]*z[2]*z[3]; i < z[0]; i++ {
			mean = append(mean, first[2*i*half:(2*i+1)*half]...)
			logvar = append(logvar, first[(2*i+1)*half:(2*i+2)*half]...)
		}
		check(t, "mean", mean, golden["mean"].Float32())
		check(t, "log variance", logvar, golden["logvar"].Float32())
		check(t, "decoded", testutil.ChannelsFirst(out[1], s[0], s[2]*s[3], s[1]), golden["decoded"].Float32())
	})
}
