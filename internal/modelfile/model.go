package modelfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"lycoris/internal/arch"
	"lycoris/internal/fault"
	"lycoris/internal/tensor"
)

// The families.
const (
	SD1  = "sd1"
	SD2  = "sd2"
	SDXL = "sdxl"
)

// The components, named as their folders in a diffusers model.
const (
	UNet         = string(arch.UNet)
	TextEncoder  = string(arch.TextEncoder)
	TextEncoder2 = "text_encoder_2"
)

// Role is what a tensor of a model is.
type Role uint8

// The roles.
const (
	Unknown Role = iota // of no kind known here
	Module              // belongs to modules: Parts says to which
	EMA                 // a running average of a UNet's tensor: EMA says of which
	VAE                 // the VAE's
	Marker              // schedules, position ids, prediction marks and other values that no layer holds
)

// Model is an open base model.
type Model struct {
	Path     string // as given
	options  Options
	Family   string // "sd1", "sd2" or "sdxl"
	Folder   bool   // a diffusers folder
	LDM      bool   // one file with LDM names
	Channels int    // input channels of the UNet: 4, 9 of inpainting, 8, 5; 0 without a UNet

	Structure arch.UNetConfig // of the UNet, as names and shapes tell it: heads and norm groups don't show there

	files   []*File
	modules map[string][]arch.Module // by component
	places  map[string]Place         // by component, path and parameter
	skipped []string                 // weight files of a folder that stand beside those that were chosen
}

// File is a safetensors file of a model.
type File struct {
	Path    string // to open it by
	Name    string // relative to the model's folder; "" of a single file
	Tensors []Tensor
	file    *tensor.File
}

// Tensor is an entry of a file.
type Tensor struct {
	Name  string
	DType tensor.DType
	Shape []int
	Role  Role
	Parts []Part // of role Module: one, or the three of a fused projection
	EMA   Part   // of role EMA: whose average it is; empty where that isn't known
}

// Part is what rows of a tensor are.
type Part struct {
	Component string // unet, text_encoder or text_encoder_2
	Path      string // of the module, in diffusers' or transformers' names
	Param     string // weight or bias
	Rows      [2]int // first row and the one after the last: of a fused tensor a third, else all
}

// Place is where a module's parameter lies.
type Place struct {
	File *File
	Name string
	Rows [2]int
}

// Options say which files of a folder are opened; the zero value is all that is usual.
type Options struct {
	Variant string // such as fp16: the files model.fp16.safetensors, where a component has them; the UNet must
	VAE     bool   // the VAE's files too
}

// Open opens the model at path. Errors are of kind fault.Input and say what a file is that is no base model of a known family.
func Open(path string) (*Model, error) { return OpenWith(path, Options{}) }

// OpenWith is [Open] with options.
func OpenWith(path string, o Options) (*Model, error) {
	stat, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fault.BadInput(path, "there is no such file or folder").Advise("check the path")
	case err != nil:
		return nil, tensor.InputError(path, err)
	}
	m := &Model{Path: path, options: o, modules: map[string][]arch.Module{}, places: map[string]Place{}, Folder: stat.IsDir()}
	switch {
	case m.Folder:
		err = m.openFolder()
	case o.Variant != "":
		err = fault.BadUsage("--variant", "%q is a single file, which has no variants", path)
	default:
		err = m.openSingle()
	}
	if err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// OpenVAE opens the VAE of a diffusers folder: a model of its files alone, in which no tensor has a role. nil where the folder has none.
func OpenVAE(folder string) (*Model, error) {
	if stat, err := os.Stat(filepath.Join(folder, "vae")); err != nil || !stat.IsDir() {
		return nil, nil
	}
	m := &Model{Path: folder, Folder: true}
	if _, err := m.openWeights("vae"); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// Files returns the model's files: the one, or those of UNet and text encoders. Their tensors are in the order of the file.
func (m *Model) Files() []*File { return m.files }

// Skipped returns the weight files of a folder's components that were passed over for others: variants in another precision, pickles. Relative paths.
func (m *Model) Skipped() []string { return m.skipped }

// Components returns the components that the model has, of UNet and text encoders.
func (m *Model) Components() []string {
	var all []string
	for _, c := range []string{UNet, TextEncoder, TextEncoder2} {
		if len(m.modules[c]) > 0 {
			all = append(all, c)
		}
	}
	return all
}

// Modules returns the modules of a component in walk order, with the shapes of the file; nil where the model has none.
func (m *Model) Modules(component string) []arch.Module { return m.modules[component] }

// Find returns where the parameter ("weight", "bias") of a module lies.
func (m *Model) Find(component, path, param string) (Place, bool) {
	p, ok := m.places[placeKey(component, path, param)]
	return p, ok
}

func placeKey(component, path, param string) string { return component + ":" + path + "." + param }

// Read copies a tensor out of a file.
func (m *Model) Read(f *File, name string) (tensor.Tensor, error) { return f.file.Read(name) }

// Raw returns the file as internal/tensor has it, for its bytes and metadata.
func (f *File) Raw() *tensor.File { return f.file }

// Unchanged returns an error if a file was written to or replaced since the model was opened.
func (m *Model) Unchanged() error {
	for _, f := range m.files {
		if err := f.file.Unchanged(); err != nil {
			return err
		}
	}
	return nil
}

// Close closes the files.
func (m *Model) Close() error {
	for _, f := range m.files {
		f.file.Close()
	}
	return nil
}

// open opens a file of the model and lists its tensors, none with a role yet.
func (m *Model) open(path, name string) (*File, error) {
	tf, err := tensor.OpenFile(path)
	if err != nil {
		return nil, err
	}
	f := &File{Path: path, Name: name, file: tf}
	for _, s := range tf.Slots() {
		f.Tensors = append(f.Tensors, Tensor{Name: s.Name, DType: s.DType, Shape: s.Shape})
	}
	m.files = append(m.files, f)
	return f, nil
}
