package algos

import (
	"math"
	"slices"

	"lycoris/internal/fault"
	"lycoris/internal/kernels"
	"lycoris/internal/linalg"
	"lycoris/internal/tensor"
)

// ExportFull returns a's change at its strength as a module of algorithm full, keys without the module name: diff like the weight, and diff_b [O] where the bias
// changes. Every program that reads full reads it, whatever a is. frozen is the layer's weight. A norm is returned as it is: its own form is that already.
func ExportFull(b kernels.Backend, a Adapter, frozen tensor.Tensor) ([]tensor.Named, error) {
	t := a.Target()
	if len(t.Shape) == 1 {
		return a.Tensors(), nil
	}
	diff, err := Change(b, a, frozen)
	if err != nil {
		return nil, err
	}
	all := []tensor.Named{{Name: keyDiff, Tensor: tensor.FromFloat32(tensor.F32, t.Shape, diff)}}
	if bias := biasChange(a); bias != nil {
		all = append(all, tensor.Named{Name: keyDiffBias, Tensor: tensor.FromFloat32(tensor.F32, []int{t.Out()}, bias)})
	}
	return all, nil
}

// ExportLoRA returns the plain LoRA of at most rank that is nearest to a's change at its strength (the truncated singular value decomposition: Eckart and Young,
// 1936), singular values shared by both factors, alpha = its rank; and ‖ΔW − up·down‖/‖ΔW‖. A change of the bias has no place in a LoRA and is an error.
func ExportLoRA(b kernels.Backend, a Adapter, frozen tensor.Tensor, rank int) (module []tensor.Named, relative float64, err error) {
	t := a.Target()
	switch {
	case rank < 1:
		return nil, 0, fault.BadUsage("dim", "%d is not a rank: 1 or more", rank)
	case len(t.Shape) == 1 || slices.ContainsFunc(biasChange(a), func(v float32) bool { return v != 0 }):
		return nil, 0, fault.BadInput("", "%q: a LoRA has no place for the change of a norm or bias", t.Name).Advise("export it as full")
	}
	dw, err := Change(b, a, frozen)
	if err != nil {
		return nil, 0, err
	}
	rows, cols := t.Out(), tensor.Elems(t.Shape[1:])
	u, s, v := linalg.TopSVD(dw, rows, cols, rank)
	r := max(len(s), 1) // nothing to decompose: zeros
	up, down := make([]float32, rows*r), make([]float32, r*cols)
	for p, value := range s {
		root := math.Sqrt(value)
		for o := range rows {
			up[o*r+p] = float32(u[o*r+p] * root)
		}
		for i := range cols {
			down[p*cols+i] = float32(v[p*cols+i] * root)
		}
	}
	upShape := []int{rows, r}
	if t.IsConv() {
		upShape = append(upShape, 1, 1)
	}
	return []tensor.Named{
		alphaTensor(float64(r)),
		{Name: keyUp, Tensor: tensor.FromFloat32(tensor.F32, upShape, up)},
		{Name: keyDown, Tensor: tensor.FromFloat32(tensor.F32, append([]int{r}, t.Shape[1:]...), down)},
	}, missing(dw, up, down, rows, r, cols), nil
}

func biasChange(a Adapter) []float32 {
	if c, ok := a.(BiasChanger); ok {
		return c.BiasChange()
	}
	return nil
}

// missing returns ‖dw − up·down‖/‖dw‖, 0 for dw = 0; up [m,r], down [r,n].
func missing(dw, up, down []float32, m, r, n int) float64 {
	var left, all float64
	row := make([]float64, n)
	for o := range m {
		for i := range row {
			row[i] = float64(dw[o*n+i])
			all += row[i] * row[i]
		}
		for p := range r {
			x := float64(up[o*r+p])
			for i, d := range down[p*n : (p+1)*n] {
				row[i] -= x * float64(d)
			}
		}
		for _, v := range row {
			left += v * v
		}
	}
	if all == 0 {
		return 0
	}
	return math.Sqrt(left / all)
}
