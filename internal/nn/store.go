package nn

import (
	"lycoris/internal/fault"
	"lycoris/internal/graph"
	"lycoris/internal/kernels"
	"lycoris/internal/tensor"
)

// Source is one component of a base model: named tensors in their file's precision.
type Source interface {
	// Lookup returns the shape and element type of a tensor.
	Lookup(name string) (shape []int, d tensor.DType, ok bool)
	// Read returns the tensor; its bytes belong to the caller.
	Read(name string) (tensor.Tensor, error)
}

// Store hands out the frozen arrays of one component and reads each once.
type Store struct {
	source  Source
	path    string // of the model, for messages
	entries map[string]*entry
	order   []*entry
	missing []string
	wrong   *fault.Error
}

type entry struct {
	name   string
	weight *graph.Weight // or
	vector *graph.Vector
	dtype  tensor.DType
	loaded bool
}

// NewStore returns a store on source; path names the model in messages.
func NewStore(source Source, path string) *Store {
	return &Store{source: source, path: path, entries: map[string]*entry{}}
}

// Weight returns the matrix or kernel called name. A shape [O,I,1,1] in the file serves for [O,I] and the other way round. What is missing or has
// another shape is remembered for [Store.Err].
func (s *Store) Weight(name string, shape ...int) *graph.Weight {
	return s.entry(name, shape, true).weight
}

// Vector returns the bias or gain called name, kept as float32.
func (s *Store) Vector(name string, shape ...int) *graph.Vector {
	return s.entry(name, shape, false).vector
}

// Has reports whether the component has a tensor called name.
func (s *Store) Has(name string) bool {
	_, _, ok := s.source.Lookup(name)
	return ok
}

func (s *Store) entry(name string, shape []int, weight bool) *entry {
	if e, ok := s.entries[name]; ok {
		return e
	}
	e := &entry{name: name}
	if weight {
		e.weight = &graph.Weight{Name: name, Shape: shape}
	} else {
		e.vector = &graph.Vector{Name: name, Shape: shape}
	}
	got, d, ok := s.source.Lookup(name)
	e.dtype = d
	switch {
	case !ok:
		s.missing = append(s.missing, name)
	case !tensor.SameShape(squeeze(got), squeeze(shape)) && s.wrong == nil:
		s.wrong = fault.BadInput(s.path, "%q has shape %v, want %v", name, got, shape)
	}
	s.entries[name] = e
	s.order = append(s.order, e)
	return e
}

// squeeze drops the trailing ones of a 1×1 kernel.
func squeeze(shape []int) []int {
	for len(shape) > 2 && shape[len(shape)-1] == 1 {
		shape = shape[:len(shape)-1]
	}
	return shape
}

// Err returns what was wrong with the arrays asked for so far.
func (s *Store) Err() error {
	if n := len(s.missing); n > 0 {
		rest := ""
		if n > 1 {
			rest = " and others"
		}
		return fault.BadInput(s.path, "%d tensors of the model are missing: %q%s", n, s.missing[0], rest).
			Advise("the file is incomplete or of another architecture; lycoris was looking for a Stable Diffusion 1.x model")
	}
	if s.wrong != nil {
		return s.wrong
	}
	return nil
}

// Bytes returns the memory that everything asked for takes once it is read.
func (s *Store) Bytes() int64 {
	var n int64
	for _, e := range s.order {
		if e.weight != nil {
			size := e.dtype.Size()
			if size == 8 {
				size = 4
			}
			n += int64(tensor.Elems(e.weight.Shape)) * int64(size)
		} else {
			n += int64(tensor.Elems(e.vector.Shape)) * 4
		}
	}
	return n
}

// Load reads what was asked for since the last Load into b's memory. read, when not nil, is called with the bytes done so far.
func (s *Store) Load(b kernels.Backend, read func(bytes int64)) error {
	if err := s.Err(); err != nil {
		return err
	}
	var done int64
	for _, e := range s.order {
		if e.loaded {
			continue
		}
		t, err := s.source.Read(e.name)
		if err != nil {
			return err
		}
		if e.weight != nil {
			t.Shape = e.weight.Shape
			if t.DType == tensor.F64 {
				t = tensor.FromFloat32(tensor.F32, t.Shape, t.Float32())
			}
			if e.weight.Packed, err = b.Pack(t); err != nil {
				return err
			}
		} else {
			v := t.Float32()
			if e.vector.Data, err = b.Alloc(len(v)); err != nil {
				return err
			}
			b.Upload(e.vector.Data, v)
		}
		e.loaded = true
		done += int64(len(t.Data))
		if read != nil {
			read(done)
		}
	}
	return nil
}

// Release frees everything that was read. The graphs that use it must not run any more.
func (s *Store) Release(b kernels.Backend) {
	for _, e := range s.order {
		if !e.loaded {
			continue
		}
		if e.weight != nil {
			b.Release(e.weight.Packed)
			e.weight.Packed = nil
		} else {
			b.Free(e.vector.Data)
			e.vector.Data = nil
		}
		e.loaded = false
	}
}
