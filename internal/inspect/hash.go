package inspect

import (
	"os"
	"strings"

	"lycoris/internal/adapter"
	"lycoris/internal/checkpoint"
	"lycoris/internal/fault"
	"lycoris/internal/tensor"
)

// hash computes the hashes and holds those of the metadata against them.
func (r *Report) hash(f *tensor.File) error {
	h := &Hashes{Stored: map[string]string{}}
	var err error
	if h.SHA256, err = tensor.HashFile(f.Path()); err != nil {
		return err
	}
	if h.Model, err = tensor.HashFileData(f); err != nil {
		return err
	}
	raw, err := os.Open(f.Path())
	if err != nil {
		return fault.BadInput(f.Path(), "can't be opened: %w", err)
	}
	defer raw.Close()
	if h.AutoV1, err = checkpoint.LegacyHash(raw); err != nil {
		return fault.BadInput(f.Path(), "can't be read: %w", err)
	}
	meta := f.Metadata()
	check := func(key, want string) {
		switch stored, ok := meta[key]; {
		case !ok:
		case strings.EqualFold(strings.TrimPrefix(stored, "0x"), want):
			h.Stored[key] = "right"
		case key == "sshs_model_hash" && strings.HasPrefix(stored, "0x"):
			h.Stored[key] = "of LyCORIS's form, which can't be checked"
		default:
			h.Stored[key] = "wrong"
		}
	}
	check("sshs_model_hash", h.Model)
	check("modelspec.hash_sha256", h.Model)
	if _, ok := meta["sshs_legacy_hash"]; ok {
		legacy, err := legacyHash(f)
		if err != nil {
			return err
		}
		check("sshs_legacy_hash", legacy)
	}
	r.Hashes = h
	return nil
}

// legacyHash computes sd-scripts' old hash, which is of another serialisation than the file.
func legacyHash(f *tensor.File) (string, error) {
	var all []tensor.Named
	for _, n := range f.Names() {
		t, err := f.Read(n)
		if err != nil {
			return "", err
		}
		all = append(all, tensor.Named{Name: n, Tensor: t})
	}
	_, legacy, err := adapter.Hashes(all, f.Metadata())
	return legacy, err
}
