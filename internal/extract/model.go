package extract

import (
	"slices"
	"strings"

	"lycoris/internal/arch"
	"lycoris/internal/fault"
	"lycoris/internal/modelfile"
	"lycoris/internal/tensor"
)

// Model is one side of a difference: a single file, a UNet alone or a diffusers folder. Safe for concurrent use.
type Model struct {
	Path       string
	Family     string           // sd1, sd2 or sdxl
	Prediction string           // epsilon, v_prediction, or "" where the model doesn't say
	Channels   int              // input channels of the UNet, 0 without one
	Components []arch.Component // text encoders and UNet that it has, in the order of adapter files

	file *modelfile.Model
}

// Open opens the model at path. Only headers are read.
func Open(path string) (*Model, error) {
	file, err := modelfile.Open(path)
	if err != nil {
		return nil, err
	}
	m := &Model{Path: path, Family: file.Family, Channels: file.Channels, Prediction: prediction(file), file: file}
	have := file.Components()
	for _, c := range []arch.Component{arch.TextEncoder, secondText, arch.UNet} {
		if slices.Contains(have, string(c)) {
			m.Components = append(m.Components, c)
		}
	}
	return m, nil
}

// prediction returns what the files say of it: epsilon, v_prediction or nothing.
func prediction(file *modelfile.Model) string {
	for _, f := range file.Files() {
		switch strings.ToLower(f.Raw().Metadata()["modelspec.prediction_type"]) {
		case "epsilon", "eps":
			return "epsilon"
		case "v", "v_prediction":
			return "v_prediction"
		}
		if f.Raw().Has("v_pred") {
			return "v_prediction"
		}
	}
	return ""
}

// has reports whether m has the component.
func (m *Model) has(c arch.Component) bool { return slices.Contains(m.Components, c) }

// modules returns the modules with shapes of their kind: a Linear's weight is [O,I] also where the file has [O,I,1,1], a convolution's the other way round.
func (m *Model) modules(c arch.Component) []arch.Module {
	modules := slices.Clone(m.file.Modules(string(c)))
	for i, x := range modules {
		switch {
		case x.Kind == arch.Linear && len(x.Shape) == 4 && x.Shape[2]*x.Shape[3] == 1:
			modules[i].Shape = x.Shape[:2]
		case x.Kind == arch.Conv2d && len(x.Shape) == 2:
			modules[i].Shape = []int{x.Shape[0], x.Shape[1], 1, 1}
		}
	}
	return modules
}

// values are a tensor of a model, or the rows of a fused one that are a module's, read block by block.
type values struct {
	dtype tensor.DType
	shape []int
	// read copies the bytes of as many elements as dst has room for, from element at on.
	read func(dst []byte, at int) error
	// start says that they will be read soon.
	start func()
}

// values returns a module's "weight" or "bias"; ok is false where m has none.
func (m *Model) values(c arch.Component, path, param string) (v values, ok bool) {
	p, ok := m.file.Find(string(c), path, param)
	if !ok {
		return v, false
	}
	file := p.File.Raw()
	info, ok := file.Info(p.Name)
	if !ok || len(info.Shape) == 0 {
		return v, false
	}
	v.dtype, v.shape = info.DType, slices.Clone(info.Shape)
	v.shape[0] = p.Rows[1] - p.Rows[0]
	size := int64(info.DType.Size())
	first := int64(p.Rows[0]) * int64(tensor.Elems(info.Shape[1:])) * size
	v.read = func(dst []byte, at int) error { return file.ReadPart(p.Name, dst, first+int64(at)*size) }
	v.start = func() { file.StartRead(p.Name) }
	return v, true
}

// Unchanged returns an error if a file was written to since the model was opened.
func (m *Model) Unchanged() error { return m.file.Unchanged() }

// Close closes the files.
func (m *Model) Close() error { return m.file.Close() }

// families are the families' names for people.
var families = map[string]string{"sd1": "Stable Diffusion 1.x", "sd2": "Stable Diffusion 2.x", "sdxl": "Stable Diffusion XL"}

// compatible returns an error unless a difference of the two models means something. Only what the headers say is looked at.
func compatible(base, tuned *Model) error {
	const advice = "pass the base that it was trained from"
	switch {
	case base.Family != tuned.Family:
		return fault.BadInput(tuned.Path, "is %s, the base %q is %s", families[tuned.Family], base.Path, families[base.Family]).Advise(advice)
	case base.Prediction != "" && tuned.Prediction != "" && base.Prediction != tuned.Prediction:
		return fault.BadInput(tuned.Path, "predicts %s, the base %q %s", tuned.Prediction, base.Path, base.Prediction).Advise(advice)
	}
	return nil
}

// sameWeight reports whether two shapes are those of one weight: equal, or [O,I] and [O,I,1,1].
func sameWeight(a, b []int) bool {
	if len(a) < len(b) {
		a, b = b, a
	}
	return slices.Equal(a, b) || len(a) == 4 && len(b) == 2 && slices.Equal(a[:2], b) && a[2]*a[3] == 1
}
