package algos

import (
	"math"

	"lycoris/internal/graph"
	"lycoris/internal/rng"
	"lycoris/internal/tensor"
)

// Factor is one array of an adapter: a graph parameter and its values on the host.
type Factor struct {
	Param  *graph.Param
	Host   []float32 // initial values, then what Network.Pull brought
	Frozen bool      // read by the graph but not trained
}

func newFactor(t Target, key string, values []float32, shape ...int) *Factor {
	if values == nil {
		values = make([]float32, tensor.Elems(shape))
	}
	return &Factor{Param: &graph.Param{Name: t.Name + "." + key, Shape: shape}, Host: values}
}

// kaimingUniform returns values uniform in ±1/√fanIn: PyTorch's kaiming_uniform with a = √5, its default for layers.
func kaimingUniform(s *rng.Stream, fanIn int, shape ...int) []float32 {
	bound := 1 / math.Sqrt(float64(fanIn))
	v := make([]float32, tensor.Elems(shape))
	for i := range v {
		v[i] = float32((2*s.Float64() - 1) * bound)
	}
	return v
}
