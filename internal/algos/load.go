package algos

import (
	"math"

	"lycoris/internal/fault"
	"lycoris/internal/tensor"
)

// stored is a module's tensors in a file, by key.
type stored map[string]tensor.Tensor

// values returns the tensor called key, which must have as many elements as shape and, but for axes of length 1, its shape.
func (s stored) values(t Target, key string, shape ...int) ([]float32, error) {
	v, ok := s[key]
	if !ok {
		return nil, fault.BadInput("", "%q has no %s", t.Name, key)
	}
	if !tensor.SameShape(squeezed(v.Shape), squeezed(shape)) {
		return nil, fault.BadInput("", "%q: %s has shape %v, want %v", t.Name, key, v.Shape, shape).Advise("use the base it was made for, or another adapter")
	}
	return v.Float32(), nil
}

// number returns the only element of the tensor called key, of any type; absent where there is none.
func (s stored) number(t Target, key string, absent float64) (float64, error) {
	v, ok := s[key]
	switch {
	case !ok:
		return absent, nil
	case tensor.Elems(v.Shape) != 1:
		return 0, fault.BadInput("", "%q: %s has shape %v, want one number", t.Name, key, v.Shape).Advise("the file is incomplete or mixed up: make it or download it again")
	}
	n := float64(v.Float32()[0])
	if math.IsNaN(n) || math.IsInf(n, 0) {
		return 0, fault.BadInput("", "%q: %s is %v", t.Name, key, n)
	}
	return n, nil
}

// squeezed returns shape without its axes of length 1.
func squeezed(shape []int) []int {
	var s []int
	for _, n := range shape {
		if n != 1 {
			s = append(s, n)
		}
	}
	return s
}

// rank returns the length of an axis of the tensor called key, at least 1.
func (s stored) rank(t Target, key string, axis int) (int, error) {
	v, ok := s[key]
	switch {
	case !ok:
		return 0, fault.BadInput("", "%q has no %s", t.Name, key)
	case len(v.Shape) < 2 || v.Shape[axis] < 1:
		return 0, fault.BadInput("", "%q: %s has shape %v, which names no rank", t.Name, key, v.Shape)
	}
	return v.Shape[axis], nil
}
