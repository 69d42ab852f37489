package tensor

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/nlpodyssey/safetensors"

	"lycoris/internal/fault"
)

// Named is a tensor with its name in a file.
type Named struct {
	Name string
	Tensor
}

// Lazy is a tensor whose bytes are made when they are written, so that a large file never is in memory as a whole.
type Lazy struct {
	Name  string
	DType DType
	Shape []int
	Data  func() ([]byte, error) // called once, in file order; the slice may be reused after the next call
}

// WriteFile writes a safetensors file all or nothing, as [WriteAtomic]. Tensors are laid out as the reference writer does: wider types
// first, then by name. The free space is checked first.
func WriteFile(path string, tensors []Named, meta map[string]string) error {
	return WriteStream(path, lazy(tensors), meta)
}

// WriteStream is WriteFile for tensors that are made one at a time.
func WriteStream(path string, tensors []Lazy, meta map[string]string) error {
	size := int64(0)
	for _, t := range tensors {
		size += int64(Elems(t.Shape)) * int64(t.DType.Size())
	}
	return writeAtomic(path, size, func(w io.Writer) error { return encode(w, tensors, meta) })
}

// DataHash returns the SHA-256 (hex) of the data section that WriteFile writes for these tensors, whatever the metadata: sd-scripts'
// sshs_model_hash.
func DataHash(tensors []Named) (string, error) {
	h := sha256.New()
	skip := &headerSkipper{w: h}
	if err := encode(skip, lazy(tensors), nil); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Encode writes the bytes of a safetensors file to w.
func Encode(w io.Writer, tensors []Named, meta map[string]string) error {
	return encode(w, lazy(tensors), meta)
}

// EncodeStream is Encode for tensors that are made one at a time.
func EncodeStream(w io.Writer, tensors []Lazy, meta map[string]string) error {
	return encode(w, tensors, meta)
}

// HashFileData returns the SHA-256 (hex) of a file's data section, everything after the header.
func HashFileData(f *File) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f.f, f.data, f.size-f.data)); err != nil {
		return "", fault.BadInput(f.path, "can't be read: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// HashFile returns the SHA-256 (hex) of a whole file.
func HashFile(path string) (string, error) {
	f, err := OpenRegular(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fault.BadInput(path, "can't be read: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func lazy(tensors []Named) []Lazy {
	out := make([]Lazy, len(tensors))
	for i, t := range tensors {
		out[i] = Lazy{t.Name, t.DType, t.Shape, func() ([]byte, error) { return t.Data, nil }}
	}
	return out
}

// headerSkipper passes on what follows the header. The encoder writes the length, the header and each tensor in calls of their own.
type headerSkipper struct {
	w     io.Writer
	calls int
}

func (s *headerSkipper) Write(p []byte) (int, error) {
	if s.calls++; s.calls <= 2 {
		return len(p), nil
	}
	return s.w.Write(p)
}

// encode hands the tensors to the library's writer. Its own tensors can't be of rank 0, as alpha is; views are an interface, and ours can.
func encode(w io.Writer, tensors []Lazy, meta map[string]string) (err error) {
	views := make(map[string]view, len(tensors))
	for _, t := range tensors {
		if _, twice := views[t.Name]; twice || t.Name == "__metadata__" {
			panic(fmt.Sprintf("tensor: writing %q twice or under a reserved name", t.Name))
		}
		if t.DType.IsF8() {
			return fault.New(fault.Failed, "", "tensor %q is of type %s, which is read and not written", t.Name, t.DType).Advise("name another element type: --dtype fp16")
		}
		views[t.Name] = view{t}
	}
	defer func() {
		switch e := recover().(type) {
		case nil:
		case dataError:
			err = e.err
		default:
			panic(e)
		}
	}()
	return safetensors.SerializeToWriter(views, meta, w)
}

// dataError carries a failure of Lazy.Data through the library's writer, whose views can't fail.
type dataError struct{ err error }

// view is a Lazy as the library sees it.
type view struct{ t Lazy }

func (v view) DType() safetensors.DType {
	d, err := safetensors.ParseDType(v.t.DType.String())
	if err != nil {
		panic(fmt.Sprintf("tensor: writing %q: %v", v.t.Name, err))
	}
	return d
}

func (v view) Shape() []uint64 {
	shape := make([]uint64, len(v.t.Shape))
	for i, n := range v.t.Shape {
		shape[i] = uint64(n)
	}
	return shape
}

func (v view) DataLen() uint64 { return uint64(Elems(v.t.Shape) * v.t.DType.Size()) }

func (v view) Data() []byte {
	data, err := v.t.Data()
	if err != nil {
		panic(dataError{err})
	}
	if uint64(len(data)) != v.DataLen() {
		panic(fmt.Sprintf("tensor: writing %q: %d bytes for shape %v of %s", v.t.Name, len(data), v.t.Shape, v.t.DType))
	}
	return data
}
