package algos

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"testing"

	"lycoris/internal/graph"
	"lycoris/internal/kernels"
	"lycoris/internal/kernels/ref"
	"lycoris/internal/nn"
	"lycoris/internal/tensor"
	"lycoris/internal/testutil"
)

// loconCase is a module of lycoris-lora 4.1.3: scripts/goldens/lycoris_lora.py.
type loconCase struct {
	Layer, Variant  string
	Tucker          bool
	Kernel          int
	Stride, Padding int
	Rank            int
	Alpha           float64
	RSLoRA          bool `json:"rs_lora"`
	UseScalar       bool `json:"use_scalar"`
	Scalar          float64
	Multiplier      float64
	Scale           float64
}

// Forward, the gradient of the input and of every factor are those of lycoris-lora 4.1.3, within 1e-5 of the largest value.
func TestLoRAGolden(t *testing.T) {
	all := testutil.Tensors(t, testutil.GoldenPath(t, "locon.safetensors"))
	var cases []loconCase
	b, err := os.ReadFile(testutil.GoldenPath(t, "locon.json"))
	if err == nil {
		err = json.Unmarshal(b, &cases)
	}
	if err != nil || len(cases) < 28 {
		t.Fatalf("%d cases, %v", len(cases), err)
	}
	for _, c := range cases {
		t.Run(c.Layer+"/"+c.Variant, func(t *testing.T) { c.check(t, ref.Open(), all) })
	}
}

func (c loconCase) check(t *testing.T, b kernels.Backend, all map[string]tensor.Tensor) {
	in := func(name string) tensor.Tensor { return all[c.Layer+"."+name] }
	out := func(name string) tensor.Tensor { return all[c.Layer+"/"+c.Variant+"."+name] }
	target := Target{Path: "unet.x", Name: "lora_unet_x", Shape: in("W").Shape, Stride: c.Stride, Pad: c.Padding}
	if s := sizedLoRA(target, Options{Rank: c.Rank, Alpha: c.Alpha, RSLoRA: c.RSLoRA}).scale; math.Abs(s-c.Scale) > 1e-12 {
		t.Errorf("scale %v, want %v", s, c.Scale)
	}
	tensors := map[string]tensor.Tensor{keyDown: in("down"), keyUp: in("up")}
	if c.Tucker {
		tensors[keyMid] = in("mid")
	}
	a, err := loadLoRA(target, tensors, Options{UseScalar: c.UseScalar})
	if err != nil {
		t.Fatal(err)
	}
	l := a.(*lora)
	l.scale = c.Scale * c.Multiplier
	if c.UseScalar {
		l.sigma.Host[0] = float32(c.Scalar)
	}
	n := NewNetwork([]Adapter{a})
	if err := n.Allocate(b); err != nil {
		t.Fatal(err)
	}

	packed, err := b.Pack(in("W"))
	if err != nil {
		t.Fatal(err)
	}
	g := &graph.Graph{}
	builder := nn.NewBuilder(nn.NewLeaves(g), nil, "unet", nil)
	layer := &nn.Layer{Path: target.Path, W: &graph.Weight{Name: "W", Shape: target.Shape, Packed: packed}, IsConv: target.IsConv(),
		Bias: g.Vector(&graph.Vector{Name: "b", Shape: in("b").Shape, Data: in("b").Float32()}),
		Conv: graph.ConvOptions{Stride: c.Stride, Pad: graph.SamePad(c.Padding)}}
	x, dy := in("x"), in("dy")
	last := func(s []int) []int {
		if len(s) == 4 {
			return []int{s[0], s[2], s[3], s[1]}
		}
		return s
	}
	values := func(v tensor.Tensor) []float32 {
		if len(v.Shape) == 4 {
			return testutil.ChannelsLast(v)
		}
		return v.Float32()
	}
	xn := g.Input("x", last(x.Shape)...)
	y := a.Forward(builder, layer, xn, nn.Extra{})
	wrt := []*graph.Node{xn}
	for _, f := range a.Factors() {
		wrt = append(wrt, builder.Param(f.Param))
	}
	outputs := append([]*graph.Node{y}, g.Grad([]*graph.Node{y}, []*graph.Node{g.Input("dy", last(dy.Shape)...)}, wrt)...)
	p, err := graph.NewPlan(g, outputs, graph.PlanOptions{}).BindSeparately(b)
	if err != nil {
		t.Fatal(err)
	}
	p.Set("x", values(x))
	p.Set("dy", values(dy))
	if err := p.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	names := []string{"y", "dx", "d_up", "d_down"}
	if c.Tucker {
		names = append(names, "d_mid")
	}
	if c.UseScalar {
		names = append(names, "d_scalar")
	}
	if len(names) != len(outputs) {
		t.Fatalf("%d outputs, want %v", len(outputs), names)
	}
	for i, name := range names {
		want := out(name).Float32()
		if name == "y" || name == "dx" {
			want = values(out(name))
		}
		if e := testutil.MaxRel(p.Output(i), want); !(e <= 1e-5) {
			t.Errorf("%s: error %.1e of the largest value", name, e)
		}
	}
	if c.Multiplier == 1 {
		for _, f := range a.Tensors() {
			if f.Name == keyUp {
				if e := testutil.MaxRel(f.Float32(), out("saved_up").Float32()); !(e <= 1e-6) {
					t.Errorf("saved up: error %.1e", e)
				}
			}
		}
	}
}
