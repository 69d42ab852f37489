package tinymodel

import (
	"encoding/binary"
	"math"
	"strings"

	"lycoris/internal/arch"
	"lycoris/internal/rng"
	"lycoris/internal/tensor"
)

// WriteFullSize writes a single-file SD1.5 checkpoint of full size, 2.1 GB of random F16 weights, tensor by tensor. Its values have the
// deviations of trained layers, so that activations stay finite; nothing can be learned from it: it is for timing.
func WriteFullSize(path string, seed uint64) error {
	modules := map[arch.Component][]arch.Module{arch.UNet: arch.UNetModules(arch.SD15UNet()), arch.TextEncoder: arch.CLIPModules(arch.CLIPL()),
		arch.VAE: arch.VAEModules(arch.SDVAE())}
	var buffer []byte
	var all []tensor.Lazy
	for _, part := range arch.Components {
		for _, m := range modules[part] {
			for i, p := range m.Params() {
				shape := p.Shape
				if part == arch.VAE && strings.Contains(p.Name, ".attentions.") && len(shape) == 2 {
					shape = append(append([]int(nil), shape...), 1, 1)
				}
				all = append(all, tensor.Lazy{Name: arch.LDMPrefix(part) + p.LDM, DType: tensor.F16, Shape: shape, Data: func() ([]byte, error) {
					if n := 2 * tensor.Elems(shape); len(buffer) < n {
						buffer = make([]byte, n)
					}
					data := buffer[:2*tensor.Elems(shape)]
					fillFullSize(data, m, i, rng.New(seed, "fullsize "+string(part)+"."+p.Name, 0, 0))
					return data, nil
				}})
			}
		}
	}
	return tensor.WriteStream(path, all, map[string]string{"modelspec.architecture": "stable-diffusion-v1", "modelspec.prediction_type": "epsilon",
		"modelspec.title": "random weights of SD1.5's size, for timing"})
}

// fillFullSize fills data with F16 values of parameter i of m: norms are identity, the rest uniform as in randomParts.
func fillFullSize(data []byte, m arch.Module, i int, s *rng.Stream) {
	norm := m.Kind == arch.GroupNorm || m.Kind == arch.LayerNorm
	bound := float32(1 / math.Sqrt(float64(tensor.Elems(m.Shape)/m.Shape[0])))
	switch {
	case m.Kind == arch.Embedding:
		bound = 0.03
	case endsBranch(m.Path):
		bound /= 2
	}
	// 4096 values rounded once: looking up is several times faster than rounding each of a thousand million.
	var table [4096]uint16
	for j := range table {
		table[j] = tensor.Float32ToF16(bound * (float32(j)/2048 - 1))
	}
	if norm {
		value := uint16(0)
		if i == 0 {
			value = tensor.Float32ToF16(1)
		}
		for j := range table {
			table[j] = value
		}
	}
	for j := 0; j+4 <= len(data); j += 4 {
		word := s.Uint32()
		binary.LittleEndian.PutUint16(data[j:], table[word&4095])
		binary.LittleEndian.PutUint16(data[j+2:], table[word>>12&4095])
	}
	if len(data)%4 != 0 {
		binary.LittleEndian.PutUint16(data[len(data)-2:], table[s.Uint32()&4095])
	}
}
