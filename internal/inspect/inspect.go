// Package inspect says what a file is: an adapter, a base model, an embedding, or the folder of a run.
//
// A [Report] has one of them filled in and marshals to the document of lycoris inspect --json. [Open] reads headers; [Options] ask for more: hashes and norms read the
// data, one tensor or one module at a time. [Compare] holds two files against each other.
//
// Start at [Open].
package inspect

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"lycoris/internal/adapter"
	"lycoris/internal/fault"
	"lycoris/internal/kernels"
	"lycoris/internal/loose"
	"lycoris/internal/pickle"
	"lycoris/internal/tensor"
)

// Options ask for what headers don't tell.
type Options struct {
	Keys, Norms, Hash bool
	Backend           func() (kernels.Backend, error) // computes changes for Norms and Compare
}

// Report is what is known of a path.
type Report struct {
	Schema   string            `json:"schema"`
	Path     string            `json:"path"`
	Kind     string            `json:"kind"` // adapter, model, embedding, run
	File     *File             `json:"file,omitempty"`
	Adapter  *Adapter          `json:"adapter,omitempty"`
	Model    *Model            `json:"model,omitempty"`
	Run      *Run              `json:"run,omitempty"`
	Hashes   *Hashes           `json:"hashes,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
	Keys     []Key             `json:"keys,omitempty"`
	Diff     *Diff             `json:"diff,omitempty"`
}

// Schema names the form of [Report].
const Schema = "lycoris.inspect/1"

// File is the container.
type File struct {
	Bytes       int64          `json:"bytes"`
	HeaderBytes int64          `json:"header_bytes"`
	Tensors     int            `json:"tensors"`
	Parameters  int64          `json:"parameters"` // elements of all tensors
	DTypes      map[string]int `json:"dtypes"`     // tensors of each element type
}

// Key is one tensor.
type Key struct {
	Name  string `json:"name"`
	DType string `json:"dtype"`
	Shape []int  `json:"shape"`
}

// Hashes are of the bytes as they are, beside those that the metadata say.
type Hashes struct {
	SHA256 string `json:"sha256"`          // of the file
	AutoV1 string `json:"old,omitempty"`   // the eight digits of early model lists
	Model  string `json:"sshs_model_hash"` // of the data section
	// For each hash in the metadata: right, or wrong. LyCORIS hashes in another order, which a file doesn't tell: its form can't be checked.
	Stored map[string]string `json:"stored,omitempty"`
}

// Open looks at a path.
func Open(path string, o Options) (*Report, error) {
	stat, err := os.Stat(path)
	switch {
	case path != "" && errors.Is(err, fs.ErrNotExist):
		return nil, fault.BadInput(path, "there is no such file or folder").Advise("check the path")
	case err != nil:
		return nil, tensor.InputError(path, err)
	}
	r := &Report{Schema: Schema, Path: path}
	if stat.IsDir() {
		return r, r.folder(path, o)
	}
	if filepath.Base(path) == "metrics.jsonl" || filepath.Base(path) == "run.json" {
		r.Path = filepath.Dir(path)
		return r, r.run(r.Path)
	}
	return r, r.file(path, o)
}

// folder tells the folder of a run, of a model and of peft apart.
func (r *Report) folder(path string, o Options) error {
	has := func(name string) bool {
		_, err := os.Stat(filepath.Join(path, name))
		return err == nil
	}
	switch {
	case has("run.json"):
		return r.run(path)
	case has("model_index.json"):
		return r.modelFolder(path, o)
	case has("adapter_config.json"):
		return r.file(path, o)
	}
	return fault.BadInput(path, "is a folder of no kind that this version knows: neither of a run, of a diffusers model nor of a peft adapter").
		Advise("pass a .safetensors file or such a folder")
}

func (r *Report) file(path string, o Options) error {
	name := adapter.TensorsFile(path)
	if head, ok := start(name); ok && pickle.Is(head) {
		return Pickled(path)
	}
	f, err := tensor.OpenFile(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if len(f.Names()) == 0 {
		return fault.BadInput(path, "holds no tensors").Advise("pass an adapter or a model: a .safetensors file")
	}
	r.Metadata = f.Metadata()
	r.describe(f)
	switch {
	case adapter.IsAdapter(f.Names()):
		r.Kind = "adapter"
		err = r.adapter(path, f, o)
	case slices.ContainsFunc(f.Names(), func(n string) bool {
		return n == "emb_params" || n == "clip_l" || n == "clip_g" || strings.HasPrefix(n, "string_to_param.")
	}) && len(f.Names()) <= 4:
		r.Kind = "embedding"
	default:
		r.Kind = "model"
		r.Model, err = modelFile(f, o)
	}
	if err != nil {
		return err
	}
	if o.Keys {
		r.keys(f)
	}
	if o.Hash {
		return r.hash(f)
	}
	return nil
}

// start returns the first bytes of a file.
func start(path string) ([]byte, bool) {
	f, err := tensor.OpenRegular(path)
	if err != nil {
		return nil, false
	}
	defer f.Close()
	head := make([]byte, 16)
	n, _ := f.ReadAt(head, 0)
	return head[:n], true
}

// Pickled refuses a file of torch's, with the command that makes it one of safetensors.
func Pickled(path string) error {
	return fault.BadInput(path, "is a PyTorch pickle, which only convert reads").Advise("%s", tensor.ConvertCommand(path))
}

// describe fills in the container.
func (r *Report) describe(f *tensor.File) {
	r.File = &File{Bytes: f.Size(), HeaderBytes: f.DataOffset(), Tensors: len(f.Names()), DTypes: map[string]int{}}
	for _, n := range f.Names() {
		info, _ := f.Info(n)
		r.File.DTypes[info.DType.String()]++
		r.File.Parameters += int64(tensor.Elems(info.Shape))
	}
}

func (r *Report) keys(f *tensor.File) {
	for _, n := range f.Names() {
		info, _ := f.Info(n)
		r.Keys = append(r.Keys, Key{n, info.DType.String(), append([]int{}, info.Shape...)})
	}
	slices.SortFunc(r.Keys, func(a, b Key) int { return strings.Compare(a.Name, b.Name) })
}

// adapter fills in an adapter.
func (r *Report) adapter(path string, f *tensor.File, o Options) error {
	a, err := loose.Parse(path, f)
	if err != nil {
		return err
	}
	if r.Adapter, err = describeAdapter(a, f); err != nil {
		return err
	}
	if o.Norms {
		r.Adapter.Norms, err = norms(a, o)
	}
	return err
}
