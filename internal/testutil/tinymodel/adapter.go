package tinymodel

import (
	"fmt"
	"math"

	"lycoris/internal/adapter"
	"lycoris/internal/arch"
	"lycoris/internal/fault"
	"lycoris/internal/rng"
	"lycoris/internal/tensor"
)

// Adapter names a random adapter in F16 whose change is about a tenth of a weight of the models made here, for the benchmark of the tools.
type Adapter struct {
	Model string // tiny, sd15 or sdxl: its UNet and, but for sdxl, its text encoder
	Algo  string // lora, loha or lokr
	Dim   int    // rank, and alpha
	All   bool   // every Linear and convolution; without it the layers that sd-scripts adapts by default: transformers of the UNet, attention and MLP of the text encoder
	Seed  uint64
}

// Write writes the adapter.
func (a Adapter) Write(path string) error {
	parts := map[arch.Component][]arch.Module{}
	switch a.Model {
	case "tiny":
		u, c, _ := configs(Options{})
		parts[arch.UNet], parts[arch.TextEncoder] = arch.UNetModules(u), arch.CLIPModules(c)
	case "sd15":
		parts[arch.UNet], parts[arch.TextEncoder] = arch.UNetModules(arch.SD15UNet()), arch.CLIPModules(arch.CLIPL())
	case "sdxl":
		parts[arch.UNet] = arch.UNetModules(arch.SDXLUNet())
	default:
		return fault.BadUsage("-model", "%q is none of tiny, sd15, sdxl", a.Model)
	}
	var all []tensor.Named
	for _, part := range []arch.Component{arch.TextEncoder, arch.UNet} {
		for _, m := range parts[part] {
			if m.Kind != arch.Linear && m.Kind != arch.Conv2d || part == arch.UNet && !a.All && !m.Within("Transformer2DModel") {
				continue
			}
			tensors, err := a.module(adapter.Name(part, m.Path), m)
			if err != nil {
				return err
			}
			all = append(all, tensors...)
		}
	}
	meta := map[string]string{"ss_network_module": "networks.lora", "ss_network_dim": fmt.Sprint(a.Dim), "ss_network_alpha": fmt.Sprint(a.Dim)}
	if a.Algo != "lora" {
		meta["ss_network_module"], meta["ss_network_args"] = "lycoris.kohya", fmt.Sprintf(`{"algo": %q}`, a.Algo)
	}
	return adapter.Save(path, all, meta, tensor.F16)
}

// module returns the tensors of the adapter on m. A weight's deviation is 1/√(3·fan-in), the change's a tenth of that.
func (a Adapter) module(name string, m arch.Module) ([]tensor.Named, error) {
	var out []tensor.Named
	add := func(key string, deviation float64, shape ...int) {
		v := make([]float32, tensor.Elems(shape))
		rng.New(a.Seed, "adapter "+name+key, 0, 0).FillNormal(v)
		for i := range v {
			v[i] *= float32(deviation)
		}
		out = append(out, tensor.Named{Name: name + "." + key, Tensor: tensor.FromFloat32(tensor.F32, shape, v)})
	}
	o, i, window := m.Shape[0], m.Shape[1], m.Shape[2:]
	pixels := tensor.Elems(window)
	fan, rank, r := math.Sqrt(float64(i*pixels)), math.Sqrt(float64(a.Dim)), a.Dim
	change := 0.1 / math.Sqrt(3)
	switch a.Algo {
	case "lora":
		point := make([]int, len(window))
		for j := range point {
			point[j] = 1
		}
		add("lora_up.weight", change/rank, append([]int{o, r}, point...)...)
		add("lora_down.weight", 1/fan, append([]int{r, i}, window...)...)
	case "loha":
		add("hada_w1_a", 1/rank, o, r)
		add("hada_w1_b", 1, r, i*pixels)
		add("hada_w2_a", change/rank, o, r)
		add("hada_w2_b", 1/fan, r, i*pixels)
	case "lokr":
		p, q := small(o), small(i)
		add("lokr_w1", 1, p, q)
		add("lokr_w2_a", change/rank, o/p, r)
		add("lokr_w2_b", 1/fan, r, i/q*pixels)
	default:
		return nil, fault.BadUsage("-adapter", "%q is none of lora, loha, lokr", a.Algo)
	}
	return append(out, tensor.Named{Name: name + ".alpha", Tensor: tensor.FromFloat32(tensor.F32, nil, []float32{float32(r)})}), nil
}

// small returns the largest divisor of n up to 8.
func small(n int) int {
	for p := 8; ; p-- {
		if n%p == 0 {
			return p
		}
	}
}
