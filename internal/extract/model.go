package extract

import (
	"slices"

	"lycoris/internal/arch"
	"lycoris/internal/fault"
	"lycoris/internal/tensor"
)

// Source reads a model's tensors by component and diffusers name; it is safe for concurrent use.
type Source interface {
	Modules(c arch.Component) []arch.Module
	Info(c arch.Component, name string) (tensor.Info, bool)
	Read(c arch.Component, name string) (tensor.Tensor, error)
	// Unchanged returns an error if a file was written to since it was opened.
	Unchanged() error
	Close() error
}

// Model is one side of a difference.
type Model struct {
	Source
	Path       string
	Family     string           // sd1, sd2 or sdxl
	Prediction string           // epsilon, v_prediction, or "" where the model doesn't say
	Channels   int              // input channels of the UNet, 0 without one
	Components []arch.Component // text encoders and UNet that it has, in the order of adapter files
}

// has reports whether m has the component.
func (m *Model) has(c arch.Component) bool { return slices.Contains(m.Components, c) }

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
