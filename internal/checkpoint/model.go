package checkpoint

import (
	"fmt"
	"slices"
	"strings"

	"lycoris/internal/arch"
	"lycoris/internal/fault"
	"lycoris/internal/tensor"
)

// Layout is the form of a model on disk.
type Layout string

// The layouts.
const (
	SingleFile Layout = "single file" // one .safetensors with LDM names
	Folder     Layout = "folder"      // diffusers
)

// Family is a generation of models.
type Family string

// SD1 is Stable Diffusion 1.x, the family that this version trains.
const SD1 Family = "SD1"

// Prediction is what the UNet answers, by its diffusers name.
type Prediction string

// The prediction types.
const (
	Epsilon     Prediction = "epsilon"
	VPrediction Prediction = "v_prediction"
)

// Model is an open base model.
type Model struct {
	Path       string // as given
	Layout     Layout
	Family     Family
	Prediction Prediction
	Stated     bool // the model itself says its prediction type; otherwise Prediction is the family's usual one
	UNet       arch.UNetConfig
	Text       arch.CLIPConfig
	VAE        arch.VAEConfig

	files   []*tensor.File
	names   []string // of the files, relative to Path; "" for a single file
	tensors map[arch.Component]map[string]entry
	hash    hashes
}

// entry is where a tensor lies.
type entry struct {
	file  *tensor.File
	name  string // in the file
	info  tensor.Info
	shape []int // in diffusers' form
}

// Components returns the components that the model has: one for [OpenVAE], all for [Open].
func (m *Model) Components() []arch.Component {
	var list []arch.Component
	for _, c := range arch.Components {
		if m.tensors[c] != nil {
			list = append(list, c)
		}
	}
	return list
}

// Modules returns the table of a component's modules.
func (m *Model) Modules(c arch.Component) []arch.Module {
	switch c {
	case arch.UNet:
		return arch.UNetModules(m.UNet)
	case arch.TextEncoder:
		return arch.CLIPModules(m.Text)
	case arch.VAE:
		return arch.VAEModules(m.VAE)
	}
	panic(fmt.Sprintf("checkpoint: no component %q", c))
}

// Info describes the tensor with the diffusers name, in its diffusers shape.
func (m *Model) Info(c arch.Component, name string) (tensor.Info, bool) {
	e, ok := m.tensors[c][name]
	if !ok {
		return tensor.Info{}, false
	}
	info := e.info
	info.Shape = e.shape
	return info, true
}

// Read returns the tensor with the diffusers name, in the file's dtype and its diffusers shape.
func (m *Model) Read(c arch.Component, name string) (tensor.Tensor, error) {
	e, ok := m.tensors[c][name]
	if !ok {
		return tensor.Tensor{}, fault.BadInput(m.Path, "has no tensor %q in its %s", name, c)
	}
	t, err := e.file.Read(e.name)
	t.Shape = slices.Clone(e.shape)
	return t, err
}

// Bytes returns the size of a component's weights in the file.
func (m *Model) Bytes(c arch.Component) int64 {
	n := int64(0)
	for _, e := range m.tensors[c] {
		n += e.info.Size
	}
	return n
}

// DTypes returns the element types of a component and how many tensors have each.
func (m *Model) DTypes(c arch.Component) map[tensor.DType]int {
	count := map[tensor.DType]int{}
	for _, e := range m.tensors[c] {
		count[e.info.DType]++
	}
	return count
}

// Unchanged returns an error if a file was written to or replaced since the model was opened.
func (m *Model) Unchanged() error {
	for _, f := range m.files {
		if err := f.Unchanged(); err != nil {
			return err
		}
	}
	return nil
}

// Close closes the files.
func (m *Model) Close() error {
	for _, f := range m.files {
		f.Close()
	}
	return nil
}

// bind finds the tensors of component c and checks their shapes. find returns the file and the name in it of a diffusers name.
func (m *Model) bind(c arch.Component, find func(p arch.Param) (*tensor.File, string)) error {
	found, missing := map[string]entry{}, []string(nil)
	for _, p := range arch.Params(m.Modules(c)) {
		file, name := find(p)
		if file == nil {
			missing = append(missing, p.Name)
			continue
		}
		info, _ := file.Info(name)
		if !info.DType.IsFloat() || info.DType == tensor.F64 {
			return fault.BadInput(file.Path(), "tensor %q: element type %s, a weight is F32, F16 or BF16", name, info.DType)
		}
		if !sameWeight(info.Shape, p.Shape) {
			return fault.BadInput(file.Path(), "tensor %q has shape %v, want %v", name, info.Shape, p.Shape)
		}
		found[p.Name] = entry{file, name, info, p.Shape}
	}
	if len(missing) > 0 {
		return missingError(m.Path, c, missing)
	}
	m.tensors[c] = found
	return nil
}

// missingError names the first five tensors that a component lacks and says how many there are.
func missingError(path string, c arch.Component, missing []string) error {
	list, rest := missing, ""
	if len(list) > 5 {
		list, rest = list[:5], fmt.Sprintf(" and %d more", len(missing)-5)
	}
	quoted := make([]string, len(list))
	for i, name := range list {
		quoted[i] = fmt.Sprintf("%q", name)
	}
	word := "tensors"
	if len(missing) == 1 {
		word = "tensor"
	}
	return fault.BadInput(path, "%s lacks %d %s: %s%s", c, len(missing), word, strings.Join(quoted, ", "), rest).
		Advise("the file is incomplete or of a kind that this version doesn't know")
}

// sameWeight reports whether a stored shape is want, or want with [O,I] stored as a 1x1 convolution [O,I,1,1] or the other way round.
func sameWeight(got, want []int) bool {
	if len(got) < len(want) {
		got, want = want, got
	}
	return slices.Equal(got, want) || len(got) == 4 && len(want) == 2 && slices.Equal(got[:2], want) && got[2] == 1 && got[3] == 1
}

// FitsVAE returns an error unless the latents of another model's VAE are what m's UNet works on.
func (m *Model) FitsVAE(vae *Model) error {
	if vae.VAE.LatentChannels != m.UNet.OutChannels {
		return fault.BadInput(vae.Path, "its latents have %d channels, the UNet of %q works on %d", vae.VAE.LatentChannels, m.Path, m.UNet.OutChannels)
	}
	if got, want := vae.VAE.Factor(), m.VAE.Factor(); got != want {
		return fault.BadInput(vae.Path, "it makes pictures %d times smaller, the VAE of %q %d times", got, m.Path, want)
	}
	return nil
}

// check returns an error unless the widths of the parts fit together.
func (m *Model) check() error {
	switch {
	case m.UNet.CrossAttentionDim != m.Text.Width:
		return fault.BadInput(m.Path, "the UNet attends to text states of width %d, the text encoder makes %d", m.UNet.CrossAttentionDim, m.Text.Width)
	case m.UNet.InChannels != m.VAE.LatentChannels || m.UNet.OutChannels != m.VAE.LatentChannels:
		return fault.BadInput(m.Path, "the UNet has %d input and %d output channels, the VAE's latents have %d", m.UNet.InChannels, m.UNet.OutChannels, m.VAE.LatentChannels)
	}
	return nil
}
