package tensor

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"lycoris/internal/fault"
)

// Slot is a tensor's place in a file whose bytes are still to come.
type Slot struct {
	Name  string
	DType DType
	Shape []int
}

// Bytes returns the size of the slot's values.
func (s Slot) Bytes() int64 { return int64(Elems(s.Shape)) * int64(s.DType.Size()) }

// WritePlaced writes a safetensors file all or nothing, as [WriteAtomic], with its tensors in the order of slots. fill writes the data section, every byte of it once, in
// any order and from several goroutines at once; at 0 is its start. The free space is checked first. Unlike [WriteStream] nothing is sorted: tools keep the order of the
// file that they change.
func WritePlaced(path string, slots []Slot, meta map[string]string, fill func(io.WriterAt) error) error {
	header, size, err := encodeHeader(slots, meta)
	if err != nil {
		return fault.BadOutput(path, "%v", err)
	}
	return replace(path, int64(len(header))+size, func(f *os.File, written *int64) error {
		if _, err := f.Write(header); err != nil {
			return err
		}
		*written = int64(len(header))
		if err := fill(&section{f, int64(len(header))}); err != nil {
			return err
		}
		if stat, err := f.Stat(); err != nil || stat.Size() != int64(len(header))+size {
			return fmt.Errorf("its last byte was not written")
		}
		return nil
	})
}

// section is the data section of a file that is being written.
type section struct {
	f    *os.File
	from int64
}

func (s *section) WriteAt(p []byte, at int64) (int, error) {
	n, err := s.f.WriteAt(p, s.from+at)
	if err == nil {
		startFlush(s.f, s.from+at, int64(n))
	}
	return n, err
}

// encodeHeader returns everything before the data section, its length a multiple of 8, and the length of the data section.
func encodeHeader(slots []Slot, meta map[string]string) (header []byte, size int64, err error) {
	var b bytes.Buffer
	b.Write(make([]byte, 8))
	sep := "{"
	field := func(name string, value any) {
		key, _ := json.Marshal(name) // a string and a map of strings always can be
		text, _ := json.Marshal(value)
		b.WriteString(sep)
		b.Write(key)
		b.WriteByte(':')
		b.Write(text)
		sep = ","
	}
	if len(meta) > 0 {
		field("__metadata__", meta) // keys sorted
	}
	seen := make(map[string]bool, len(slots))
	for _, s := range slots {
		if seen[s.Name] || s.Name == "__metadata__" {
			panic(fmt.Sprintf("tensor: writing %q twice or under a reserved name", s.Name))
		}
		seen[s.Name] = true
		shape := s.Shape
		if shape == nil {
			shape = []int{}
		}
		field(s.Name, struct {
			DType   string   `json:"dtype"`
			Shape   []int    `json:"shape"`
			Offsets [2]int64 `json:"data_offsets"`
		}{s.DType.String(), shape, [2]int64{size, size + s.Bytes()}})
		size += s.Bytes()
	}
	if sep == "{" {
		b.WriteString(sep)
	}
	b.WriteByte('}')
	for b.Len()%8 != 0 {
		b.WriteByte(' ')
	}
	if b.Len()-8 > MaxHeaderBytes {
		return nil, 0, errors.New("its header would be over the limit of the format")
	}
	header = b.Bytes()
	binary.LittleEndian.PutUint64(header, uint64(len(header)-8))
	return header, size, nil
}

// ReadPart copies a part of a tensor's bytes, from byte at of it, to dst.
func (f *File) ReadPart(name string, dst []byte, at int64) error {
	info, ok := f.Info(name)
	if !ok {
		return fault.BadInput(f.path, "has no tensor %q", name)
	}
	if at < 0 || at+int64(len(dst)) > info.Size {
		panic(fmt.Sprintf("tensor: ReadPart %q: bytes %d to %d of %d", name, at, at+int64(len(dst)), info.Size))
	}
	return f.readData(dst, info.Offset+at, name)
}

// StartRead says that a tensor will be read soon, so that the disk works meanwhile.
func (f *File) StartRead(name string) {
	if info, ok := f.Info(name); ok {
		startRead(f.f, f.data+info.Offset, info.Size)
	}
}

// ReadData copies bytes of the data section, which may be several tensors', to dst.
func (f *File) ReadData(dst []byte, at int64) error {
	if at < 0 || f.data+at+int64(len(dst)) > f.size {
		panic(fmt.Sprintf("tensor: ReadData: bytes %d to %d of %d", at, at+int64(len(dst)), f.size-f.data))
	}
	return f.readData(dst, at, "")
}

func (f *File) readData(dst []byte, at int64, name string) error {
	n, err := f.f.ReadAt(dst, f.data+at)
	if n == len(dst) {
		return nil
	}
	where := ""
	if name != "" {
		where = fmt.Sprintf(" (tensor %q)", name)
	}
	if errors.Is(err, io.EOF) {
		return fault.BadInput(f.path, "became shorter while it was read: it has %s bytes now%s", group(f.data+at+int64(n)), where)
	}
	return fault.BadInput(f.path, "can't be read at byte %s%s: %w", group(f.data+at+int64(n)), where, err)
}

// CloneMetadata returns a copy of a file's metadata that may be changed; never nil.
func (f *File) CloneMetadata() map[string]string {
	if f.header.metadata == nil {
		return map[string]string{}
	}
	return maps.Clone(f.header.metadata)
}

// Slots returns the tensors of f as slots, in their order.
func (f *File) Slots() []Slot {
	all := make([]Slot, len(f.header.names))
	for i, name := range f.header.names {
		info := f.header.infos[i]
		all[i] = Slot{name, info.DType, slices.Clone(info.Shape)}
	}
	return all
}
