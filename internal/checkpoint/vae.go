package checkpoint

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"lycoris/internal/arch"
	"lycoris/internal/fault"
	"lycoris/internal/tensor"
)

// openVAEFile opens a VAE file: LDM names with or without the prefix, or diffusers names. A config.json beside a file with diffusers names
// is read.
func openVAEFile(m *Model) error {
	f, err := m.open(m.Path, "")
	if err != nil {
		return err
	}
	m.Family = ""
	s := &shapes{f: f}
	finder := func(prefix string) func(arch.Param) (*tensor.File, string) {
		return func(p arch.Param) (*tensor.File, string) {
			if f.Has(prefix + p.LDM) {
				return f, prefix + p.LDM
			}
			return nil, ""
		}
	}
	var find func(arch.Param) (*tensor.File, string)
	names := ldmVAE
	switch {
	case s.has("first_stage_model.encoder.conv_in.weight"):
		s.prefix = arch.LDMPrefix(arch.VAE)
		find = finder(s.prefix)
	case s.has("encoder.down.0.block.0.conv1.weight"):
		find = finder("")
	case s.has("encoder.down_blocks.0.resnets.0.conv1.weight"):
		names = diffusersVAE
		find = diffusersFinder(arch.VAE, func(name string) *tensor.File {
			if f.Has(name) {
				return f
			}
			return nil
		})
	default:
		return fault.BadInput(m.Path, "holds no VAE of the Stable Diffusion kind (AutoencoderKL)")
	}
	if err := m.configureVAE(s, names); err != nil {
		return at(m.Path, err)
	}
	return m.bind(arch.VAE, find)
}

// configureVAE sets the config from the metadata, from a config.json beside the file, or from shapes.
func (m *Model) configureVAE(s *shapes, names vaeNames) (err error) {
	var stated map[arch.Component]json.RawMessage
	if json.Unmarshal([]byte(s.f.Metadata()[ConfigKey]), &stated) == nil && stated[arch.VAE] != nil {
		return m.parse(arch.VAE, stated[arch.VAE])
	}
	if path := filepath.Join(filepath.Dir(m.Path), "config.json"); names == diffusersVAE {
		text, err := readJSON(path)
		if err == nil {
			return at(path, m.parse(arch.VAE, text))
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if m.VAE, err = s.vae(names); s.err != nil {
		return s.err
	}
	return err
}

// openVAEFolder opens the VAE of a folder: its own, or the one inside a whole model.
func openVAEFolder(m *Model) error {
	m.Family = ""
	folder := m.Path
	if stat, err := os.Stat(filepath.Join(m.Path, string(arch.VAE))); err == nil && stat.IsDir() {
		folder = filepath.Join(m.Path, string(arch.VAE))
	}
	return m.openPart(arch.VAE, folder)
}
