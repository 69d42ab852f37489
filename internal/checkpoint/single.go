package checkpoint

import (
	"encoding/json"
	"strings"

	"lycoris/internal/arch"
	"lycoris/internal/fault"
	"lycoris/internal/tensor"
)

// ConfigKey is the metadata key under which a single file may carry the configs of its parts: a JSON object with the config.json contents as
// "unet", "text_encoder" and "vae". It overrides what shapes say, and is the only way to have other head or group counts than SD1's.
const ConfigKey = "lycoris.config"

func openSingle(m *Model) error {
	f, err := m.open(m.Path, "")
	if err != nil {
		return err
	}
	if err := identify(f); err != nil {
		return err
	}
	if err := m.configure(f, arch.Components); err != nil {
		return err
	}
	if err := m.predictionOf(f); err != nil {
		return err
	}
	if err := m.check(); err != nil {
		return err
	}
	for _, c := range arch.Components {
		if err := m.bind(c, ldmFinder(f, c)); err != nil {
			return err
		}
	}
	return nil
}

// configure sets the configs of the components: from the metadata, else from shapes.
func (m *Model) configure(f *tensor.File, components []arch.Component) error {
	stated := map[arch.Component]json.RawMessage{}
	if text, ok := f.Metadata()[ConfigKey]; ok {
		if err := json.Unmarshal([]byte(text), &stated); err != nil {
			return fault.BadInput(f.Path(), "metadata %q is not a JSON object: %v", ConfigKey, err)
		}
	}
	for _, c := range components {
		var err error
		if text, ok := stated[c]; ok {
			err = m.parse(c, text)
		} else {
			err = m.infer(c, f)
		}
		if err != nil {
			return at(f.Path(), err)
		}
	}
	return nil
}

// parse sets the config of c from its config.json.
func (m *Model) parse(c arch.Component, text []byte) (err error) {
	switch c {
	case arch.UNet:
		m.UNet, err = arch.ParseUNet(text)
	case arch.TextEncoder:
		m.Text, err = arch.ParseCLIP(text)
	case arch.VAE:
		m.VAE, err = arch.ParseVAE(text)
	}
	return err
}

// predictionOf reads the prediction type from the metadata or the marker tensor of a single file. Shapes can't tell it.
func (m *Model) predictionOf(f *tensor.File) error {
	switch p := f.Metadata()["modelspec.prediction_type"]; {
	case strings.EqualFold(p, "epsilon"), strings.EqualFold(p, "eps"):
		m.Prediction, m.Stated = Epsilon, true
	case strings.EqualFold(p, "v"), strings.EqualFold(p, "v_prediction"):
		m.Prediction, m.Stated = VPrediction, true
	case p != "":
		return fault.BadInput(f.Path(), "its metadata name the prediction type %q, this version trains epsilon and v", p)
	case f.Has("v_pred"):
		m.Prediction, m.Stated = VPrediction, true
	}
	return nil
}
