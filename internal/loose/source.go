// Package loose takes adapter files apart without the model they were made for.
//
// A [Source] is an open file of any container. An [Adapter] is its tensors by layer: each [Module] has the algorithm that its tensors tell, and, from its factors, the shape of the
// weight it changes. Layers are known by name, in every spelling of a family that this program knows; internal/network opens adapters for a model instead, with
// the model's own layers.
//
// Start at [Open], then [Parse].
package loose

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"lycoris/internal/adapter"
	"lycoris/internal/fault"
	"lycoris/internal/pickle"
	"lycoris/internal/tensor"
)

// Source is an open file of any container.
type Source interface {
	Names() []string
	Info(name string) (tensor.Info, bool)
	Read(name string) (tensor.Tensor, error)
	Metadata() map[string]string
	Close() error
}

// Open opens a file of any container, or peft's folder.
func Open(path string) (Source, error) {
	file := adapter.TensorsFile(path)
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) && file != path {
		return nil, fault.BadInput(path, "is a folder without %s", filepath.Base(file)).Advise("pass a .safetensors file, one of torch's, or a folder that peft wrote")
	}
	f, err := tensor.OpenRegular(file)
	if err != nil {
		return nil, err
	}
	head := make([]byte, 16)
	n, _ := f.ReadAt(head, 0)
	f.Close()
	if pickle.Is(head[:n]) {
		return pickle.Open(file)
	}
	return tensor.OpenFile(file)
}
