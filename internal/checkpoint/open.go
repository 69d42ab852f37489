package checkpoint

import (
	"errors"
	"io/fs"
	"os"

	"lycoris/internal/arch"
	"lycoris/internal/fault"
	"lycoris/internal/tensor"
)

// Open opens an SD1.x model: a single-file .safetensors checkpoint or a diffusers folder. Errors are of kind fault.Input and say what the
// file is when it is something else.
func Open(path string) (*Model, error) {
	return openAny(path, openSingle, openFolder)
}

// OpenVAE opens a VAE by itself: a .safetensors file with LDM or diffusers names, a VAE's folder, or a whole model, of which it takes the VAE.
func OpenVAE(path string) (*Model, error) {
	return openAny(path, openVAEFile, openVAEFolder)
}

func openAny(path string, file, folder func(*Model) error) (*Model, error) {
	stat, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fault.BadInput(path, "there is no such file or folder").Advise("check the path; it counts from the current folder, or from the configuration file that holds it")
	case errors.Is(err, fs.ErrPermission):
		return nil, fault.BadInput(path, "may not be read: %w", fs.ErrPermission).Advise("check the rights of the file and of the folders above it")
	case err != nil:
		return nil, fault.BadInput(path, "can't be opened: %w", errors.Unwrap(err)).Advise("check the path")
	}
	m := &Model{Path: path, Family: SD1, Prediction: Epsilon, tensors: map[arch.Component]map[string]entry{}}
	m.Layout = SingleFile
	open := file
	if stat.IsDir() {
		m.Layout, open = Folder, folder
	}
	if err := open(m); err != nil {
		m.Close()
		return nil, advised(err)
	}
	return m, nil
}

// advised says what to pass instead where an error doesn't.
func advised(err error) error {
	var e *fault.Error
	if errors.As(err, &e) && e.Advice == "" {
		e.Advise("pass a Stable Diffusion 1.x model: a .safetensors file or a diffusers folder")
	}
	return err
}

// open opens a file of the model; name is its path relative to the model's.
func (m *Model) open(path, name string) (*tensor.File, error) {
	f, err := tensor.OpenFile(path)
	if err != nil {
		return nil, err
	}
	m.files, m.names = append(m.files, f), append(m.names, name)
	return f, nil
}

// at sets the path of an error that has none.
func at(path string, err error) error {
	var e *fault.Error
	if errors.As(err, &e) && e.Path == "" {
		e.Path = path
	}
	return err
}
