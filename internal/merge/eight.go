package merge

import (
	"strings"

	"lycoris/internal/fault"
	"lycoris/internal/modelfile"
	"lycoris/internal/tensor"
)

// eightBit are the scales of a file of eight-bit weights, W = code·scale, as ComfyUI writes them: layer.scale_weight beside layer.weight, and the mark scaled_fp8.
type eightBit map[string]float64 // by the weight's name

const (
	scaleSuffix = ".scale_weight"
	inputSuffix = ".scale_input"
	scaleMark   = "scaled_fp8"
)

func isScale(name string) bool {
	return strings.HasSuffix(name, scaleSuffix) || strings.HasSuffix(name, inputSuffix) || name == scaleMark || strings.HasSuffix(name, "."+scaleMark)
}

// scales reads the scales of a file's weights; nil where it has none. They mean nothing to weights of another type, so without one named such a file is refused.
func (p *Plan) scales(f *modelfile.File) (eightBit, error) {
	var all eightBit
	for i := range f.Tensors {
		t := &f.Tensors[i]
		if !isScale(t.Name) {
			continue
		}
		if p.options.DType == tensor.Invalid {
			return nil, fault.BadInput(f.Path, "its weights are eight-bit codes with scales (%q)", t.Name).Advise("name another element type for the merged model: --dtype fp16")
		}
		if all == nil {
			all = eightBit{}
		}
		layer, ok := strings.CutSuffix(t.Name, scaleSuffix)
		if !ok {
			continue
		}
		scale, err := p.model.Read(f, t.Name)
		if err != nil {
			return nil, err
		}
		if tensor.Elems(scale.Shape) != 1 {
			return nil, fault.BadInput(f.Path, "%q has shape %v, want one number", t.Name, scale.Shape).Advise("scales by row or block aren't read")
		}
		v := float64(scale.Float32()[0])
		if v-v != 0 {
			return nil, fault.BadInput(f.Path, "%q is %g", t.Name, v).Advise("the model is broken: use another copy of it")
		}
		all[layer+".weight"] = v
	}
	return all, nil
}

// of returns what the values of a tensor are multiplied by.
func (e eightBit) of(name string) float64 {
	if v, ok := e[name]; ok {
		return v
	}
	return 1
}

// drops reports whether a tensor means nothing any more once weights are scaled.
func (e eightBit) drops(name string) bool { return e != nil && isScale(name) }
