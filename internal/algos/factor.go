package algos

import (
	"math"

	"lycoris/internal/graph"
	"lycoris/internal/kernels"
	"lycoris/internal/rng"
	"lycoris/internal/tensor"
)

// Factor is one array of an adapter: a graph parameter and its values on the host.
type Factor struct {
	Param  *graph.Param
	Host   []float32 // initial values, then what Network.Pull brought
	Frozen bool      // read by the graph but not trained
	// Origin returns the frozen values that the factor is a difference to, a weight's or an array, once they are read. Weight decay then falls on the sum of
	// both. nil: on the factor alone.
	Origin func() (kernels.Weight, []float32)
	// Parts above 1 are equal parts, one after the other, of which an update moves only those that had a gradient: see [StepInput.Trains].
	Parts int
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

// scaling returns the scale alpha/rank, or alpha/√rank for rs-LoRA, and the alpha that a file must hold so that alpha/rank is that scale. An alpha of 0
// counts as rank.
func (o Options) scaling() (scale, fileAlpha float64) {
	alpha, r := o.Alpha, float64(o.Rank)
	if alpha == 0 {
		alpha = r
	}
	if o.RSLoRA {
		return alpha / math.Sqrt(r), alpha * math.Sqrt(r)
	}
	return alpha / r, alpha
}
