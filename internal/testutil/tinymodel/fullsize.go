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
	f := fullSize{seed: seed}
	f.modules(arch.UNet, arch.LDMPrefix(arch.UNet), arch.UNetModules(arch.SD15UNet()))
	f.modules(arch.TextEncoder, arch.LDMPrefix(arch.TextEncoder), arch.CLIPModules(arch.CLIPL()))
	f.modules(arch.VAE, arch.LDMPrefix(arch.VAE), arch.VAEModules(arch.SDVAE()))
	return tensor.WriteStream(path, f.all, map[string]string{"modelspec.architecture": "stable-diffusion-v1", "modelspec.prediction_type": "epsilon",
		"modelspec.title": "random weights of SD1.5's size, for timing"})
}

// WriteFullSizeXL writes a single-file SDXL checkpoint of full size, 6.9 GB, in the same way.
func WriteFullSizeXL(path string, seed uint64) error {
	return tensor.WriteStream(path, fullSizeXL(seed), map[string]string{"modelspec.architecture": "stable-diffusion-xl-v1-base", "modelspec.prediction_type": "epsilon",
		"modelspec.title": "random weights of SDXL's size, for timing"})
}

func fullSizeXL(seed uint64) []tensor.Lazy {
	f := fullSize{seed: seed}
	f.modules(arch.UNet, arch.LDMPrefix(arch.UNet), arch.UNetModules(arch.SDXLUNet()))
	f.modules(arch.TextEncoder, "conditioner.embedders.0.transformer.", arch.CLIPModules(arch.CLIPL()))
	bigG := openCLIP{width: 1280, inner: 5120, tokens: 49408, positions: 77}
	bigG.each(func(name string, shape ...int) {
		f.add(name, name, kindOf(name), strings.HasSuffix(name, ".bias"), shape)
	}, "conditioner.embedders.1.model.", 32)
	f.modules(arch.VAE, arch.LDMPrefix(arch.VAE), arch.VAEModules(arch.SDVAE()))
	return f.all
}

// fullSize collects tensors that are made when they are written.
type fullSize struct {
	seed   uint64
	buffer []byte
	all    []tensor.Lazy
}

// modules adds the tensors of a component.
func (f *fullSize) modules(part arch.Component, prefix string, modules []arch.Module) {
	for _, m := range modules {
		for i, p := range m.Params() {
			shape := p.Shape
			if part == arch.VAE && strings.Contains(p.Name, ".attentions.") && len(shape) == 2 {
				shape = append(append([]int(nil), shape...), 1, 1)
			}
			f.add(prefix+p.LDM, string(part)+"."+p.Name, m, i > 0, shape)
		}
	}
}

// kindOf returns what a tensor of an OpenCLIP encoder is, as far as its values' deviation needs it.
func kindOf(name string) arch.Module {
	switch {
	case strings.Contains(name, ".ln_"):
		return arch.Module{Kind: arch.LayerNorm, Path: name}
	case strings.HasSuffix(name, "_embedding") || strings.HasSuffix(name, "token_embedding.weight"):
		return arch.Module{Kind: arch.Embedding, Path: name}
	}
	return arch.Module{Path: name}
}

// add adds a tensor of module m; stream names its random numbers. A module without a shape gets the tensor's.
func (f *fullSize) add(name, stream string, m arch.Module, bias bool, shape []int) {
	if m.Shape == nil {
		m.Shape = shape
	}
	f.all = append(f.all, tensor.Lazy{Name: name, DType: tensor.F16, Shape: shape, Data: func() ([]byte, error) {
		if n := 2 * tensor.Elems(shape); len(f.buffer) < n {
			f.buffer = make([]byte, n)
		}
		data := f.buffer[:2*tensor.Elems(shape)]
		fillFullSize(data, m, bias, rng.New(f.seed, "fullsize "+stream, 0, 0))
		return data, nil
	}})
}

// fillFullSize fills data with F16 values of the weight or bias of m: norms are identity, the rest uniform as in randomParts.
func fillFullSize(data []byte, m arch.Module, bias bool, s *rng.Stream) {
	norm := m.Kind == arch.GroupNorm || m.Kind == arch.LayerNorm
	bound := float32(0.03)
	if m.Kind != arch.Embedding && len(m.Shape) > 0 {
		bound = float32(1 / math.Sqrt(float64(tensor.Elems(m.Shape)/m.Shape[0])))
		if endsBranch(m.Path) {
			bound /= 2
		}
	}
	// 4096 values rounded once: looking up is several times faster than rounding each of a thousand million.
	var table [4096]uint16
	for j := range table {
		table[j] = tensor.Float32ToF16(bound * (float32(j)/2048 - 1))
	}
	if norm {
		value := uint16(0)
		if !bias {
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
