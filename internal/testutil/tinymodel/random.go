package tinymodel

import (
	"math"
	"strings"

	"lycoris/internal/arch"
	"lycoris/internal/rng"
	"lycoris/internal/tensor"
)

// array is a tensor under construction.
type array struct {
	shape []int
	v     []float32
}

// randomParts returns initial values by name, as PyTorch's layers draw them: uniform within 1/√fan-in for weights and biases, ones and zeros for
// norms, CLIP's deviations for its tables. The last layer of each residual branch is halved, so that sums over many blocks stay small.
func randomParts(part arch.Component, modules []arch.Module, seed uint64) map[string]array {
	values := map[string]array{}
	for _, m := range modules {
		bound := 1 / math.Sqrt(float64(tensor.Elems(m.Shape)/m.Shape[0]))
		if endsBranch(m.Path) {
			bound /= 2
		}
		for i, p := range m.Params() {
			a := array{p.Shape, make([]float32, tensor.Elems(p.Shape))}
			s := rng.New(seed, "tinymodel "+string(part)+"."+p.Name, 0, 0)
			switch {
			case m.Kind == arch.Embedding:
				deviation := float32(0.02)
				if strings.Contains(p.Name, "position") {
					deviation = 0.01
				}
				s.FillNormal(a.v)
				for j := range a.v {
					a.v[j] *= deviation
				}
			case m.Kind == arch.GroupNorm || m.Kind == arch.LayerNorm:
				if i == 0 {
					fill(a.v, 1)
				}
			default:
				for j := range a.v {
					a.v[j] = float32(bound * (2*float64(s.Uint32())/(1<<32) - 1))
				}
			}
			values[p.Name] = a
		}
	}
	return values
}

// endsBranch reports whether a module is the last before a residual sum.
func endsBranch(path string) bool {
	for _, end := range []string{".conv2", ".to_out.0", ".ff.net.2", ".proj_out", ".out_proj", ".fc2"} {
		if strings.HasSuffix(path, end) {
			return true
		}
	}
	return false
}

func fill(v []float32, x float32) {
	for i := range v {
		v[i] = x
	}
}
