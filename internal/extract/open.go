package extract

import (
	"slices"
	"strings"

	"lycoris/internal/arch"
	"lycoris/internal/fault"
	"lycoris/internal/modelfile"
	"lycoris/internal/tensor"
)

// Open opens a model, of one file, a UNet alone or a diffusers folder. Only headers are read.
func Open(path string) (*Model, error) {
	file, err := modelfile.Open(path)
	if err != nil {
		return nil, err
	}
	m := &Model{Source: &source{file}, Path: path, Family: file.Family, Channels: file.Channels, Prediction: prediction(file)}
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

// source is a model's tensors by module.
type source struct{ file *modelfile.Model }

// Modules returns the modules with shapes of their kind: a Linear's weight is [O,I] also where the file has [O,I,1,1], a convolution's the other way round.
func (s *source) Modules(c arch.Component) []arch.Module {
	modules := slices.Clone(s.file.Modules(string(c)))
	for i, m := range modules {
		switch {
		case m.Kind == arch.Linear && len(m.Shape) == 4 && m.Shape[2]*m.Shape[3] == 1:
			modules[i].Shape = m.Shape[:2]
		case m.Kind == arch.Conv2d && len(m.Shape) == 2:
			modules[i].Shape = []int{m.Shape[0], m.Shape[1], 1, 1}
		}
	}
	return modules
}

func (s *source) place(c arch.Component, name string) (modelfile.Place, bool) {
	i := strings.LastIndexByte(name, '.')
	return s.file.Find(string(c), name[:i], name[i+1:])
}

// Info describes a tensor as it is in the file, of a fused one its own rows.
func (s *source) Info(c arch.Component, name string) (tensor.Info, bool) {
	p, ok := s.place(c, name)
	if !ok {
		return tensor.Info{}, false
	}
	info, ok := p.File.Raw().Info(p.Name)
	if ok {
		info.Shape = slices.Clone(info.Shape)
		info.Shape[0] = p.Rows[1] - p.Rows[0]
	}
	return info, ok
}

// Read reads a tensor, of a fused one its own rows.
func (s *source) Read(c arch.Component, name string) (tensor.Tensor, error) {
	p, ok := s.place(c, name)
	if !ok {
		return tensor.Tensor{}, fault.BadInput(s.file.Path, "%s has no tensor %q", c, name)
	}
	t, err := s.file.Read(p.File, p.Name)
	if err != nil {
		return t, err
	}
	if row := len(t.Data) / t.Shape[0]; p.Rows[1]-p.Rows[0] < t.Shape[0] {
		t.Shape[0] = p.Rows[1] - p.Rows[0]
		t.Data = t.Data[p.Rows[0]*row : p.Rows[1]*row]
	}
	return t, nil
}

func (s *source) Unchanged() error { return s.file.Unchanged() }
func (s *source) Close() error     { return s.file.Close() }
