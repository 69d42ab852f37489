package tensor

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"lycoris/internal/fault"
)

// Info describes a tensor of a file without its values.
type Info struct {
	DType  DType
	Shape  []int
	Offset int64 // first byte in the data section
	Size   int64 // bytes
}

// File is an open safetensors file: 8 bytes of header length, a JSON header, the data. Only the header is in memory; [File.Read] copies a
// tensor's bytes out (the file is never mapped: a mapped file that shrinks kills the process). Safe for concurrent use.
type File struct {
	path    string
	f       *os.File
	size    int64 // of the file
	modTime time.Time
	data    int64 // where the data section starts
	hash    [32]byte
	header  *header
	index   map[string]int
}

// OpenFile opens a file and checks its header and length under every rule of the format. Errors are of kind fault.Input.
func OpenFile(path string) (*File, error) {
	f, err := OpenRegular(path)
	if err != nil {
		return nil, err
	}
	file, err := open(path, f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return file, nil
}

// OpenRegular opens a file for reading, and nothing else: a pipe without a writer would block for ever. Errors are of kind fault.Input.
func OpenRegular(path string) (*os.File, error) {
	stat, err := os.Stat(path)
	if err != nil {
		return nil, InputError(path, err)
	}
	if err := regular(path, stat); err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, InputError(path, err)
	}
	return f, nil
}

// regular refuses what is no file with a size and a content of its own.
func regular(path string, stat fs.FileInfo) error {
	switch {
	case stat.IsDir():
		return fault.BadInput(path, "is a folder, not a file").Advise("%s", sniffAdvice("", path))
	case !stat.Mode().IsRegular():
		return fault.BadInput(path, "is not a regular file but a pipe, a device or the like").Advise("pass the path of a file: it is read more than once")
	}
	return nil
}

// InputError says why a file can't be opened.
func InputError(path string, err error) error {
	const rights = "check the rights of the file and of the folders above it"
	switch {
	case path == "":
		return fault.BadInput("", "the name of an input is empty").Advise("check the path: a variable of the shell that isn't set?")
	case errors.Is(err, fs.ErrNotExist):
		return fault.BadInput(path, "there is no such file").Advise("check the path")
	case errors.Is(err, fs.ErrPermission):
		return fault.BadInput(path, "may not be read: %w", fs.ErrPermission).Advise(rights)
	case errors.Is(err, syscall.ELOOP):
		return fault.BadInput(path, "is a symbolic link that leads in a circle").Advise("pass the file itself")
	case errors.Is(err, syscall.ENAMETOOLONG):
		return fault.BadInput(path, "the name is too long").Advise("check the path")
	}
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		err = pathErr.Err
	}
	return fault.BadInput(path, "can't be opened: %w", err).Advise(rights)
}

func open(path string, f *os.File) (*File, error) {
	stat, err := f.Stat()
	if err != nil {
		return nil, InputError(path, err)
	}
	if err := regular(path, stat); err != nil {
		return nil, err
	}
	file := &File{path: path, f: f, size: stat.Size(), modTime: stat.ModTime()}
	head := make([]byte, min(file.size, 512))
	if _, err := f.ReadAt(head, 0); err != nil {
		return nil, fault.BadInput(path, "can't be read at byte 0: %w", err)
	}
	n := int64(-1) // header length; -1 where there is none
	if len(head) >= 8 {
		n = int64(min(binary.LittleEndian.Uint64(head), 1<<62))
	}
	if likely := n >= 2 && n <= MaxHeaderBytes && len(head) > 8 && head[8] == '{'; !likely {
		if what := Sniff(head); what != "" {
			return nil, fault.BadInput(path, "is %s, not a model", what).Advise("%s", sniffAdvice(what, path))
		}
	}
	switch {
	case n < 0:
		return nil, fault.BadInput(path, "is not a safetensors file: too short (%d bytes)", file.size).Advise("%s", sniffAdvice("", path))
	case n > MaxHeaderBytes:
		return nil, fault.BadInput(path, "is not a safetensors file: header of %d bytes is over the limit of %d", binary.LittleEndian.Uint64(head), MaxHeaderBytes).Advise("%s", sniffAdvice("", path))
	case n > file.size-8:
		return nil, fault.BadInput(path, "is damaged: header says %d bytes, the file has %d", n, file.size).Advise("download it again")
	}
	text := make([]byte, n)
	if _, err := f.ReadAt(text, 8); err != nil {
		return nil, fault.BadInput(path, "can't be read at byte 8: %w", err)
	}
	h, end, err := parseHeader(text)
	if err != nil {
		var strange *typeError
		if errors.As(err, &strange) {
			return nil, fault.BadInput(path, "%v", err).Advise("look for the model in fp16, bf16 or fp32")
		}
		return nil, fault.BadInput(path, "%v", err).Advise("download it again")
	}
	file.header, file.data, file.hash = h, 8+n, sha256.Sum256(text)
	if err := file.checkEnd(end); err != nil {
		return nil, err
	}
	file.index = make(map[string]int, len(h.names))
	for i, name := range h.names {
		file.index[name] = i
	}
	return file, nil
}

// checkEnd compares the end of the last tensor with the file's length.
func (f *File) checkEnd(end int64) error {
	have := f.size - f.data
	if end == have {
		return nil
	}
	if end < have {
		return fault.BadInput(f.path, "is damaged: %d bytes after the last tensor, which ends at byte %s", have-end, group(f.data+end)).Advise("download it again")
	}
	for i, info := range f.header.infos {
		if last := info.Offset + info.Size; last > have {
			return fault.BadInput(f.path, "is damaged: tensor %q ends at byte %s, the file has %s (%d %%)", f.header.names[i],
				group(f.data+last), group(f.size), int(100*float64(f.size)/float64(f.data+end))).Advise("download it again; expected size %s", group(f.data+end))
		}
	}
	return nil
}

// Path returns the path the file was opened with.
func (f *File) Path() string { return f.path }

// Names returns the tensors' names in the order of their bytes. The slice is the file's own.
func (f *File) Names() []string { return f.header.names }

// Has reports whether the file has the tensor.
func (f *File) Has(name string) bool { _, ok := f.index[name]; return ok }

// Info describes a tensor.
func (f *File) Info(name string) (Info, bool) {
	i, ok := f.index[name]
	if !ok {
		return Info{}, false
	}
	return f.header.infos[i], true
}

// Read copies a tensor out of the file into memory of its own.
func (f *File) Read(name string) (Tensor, error) {
	info, ok := f.Info(name)
	if !ok {
		return Tensor{}, fault.BadInput(f.path, "has no tensor %q", name)
	}
	t := Tensor{DType: info.DType, Shape: append([]int(nil), info.Shape...), Data: make([]byte, info.Size)}
	return t, f.ReadInto(name, t.Data)
}

// ReadInto copies a tensor's bytes to dst, which is as long as they are.
func (f *File) ReadInto(name string, dst []byte) error {
	info, ok := f.Info(name)
	if !ok {
		return fault.BadInput(f.path, "has no tensor %q", name)
	}
	if int64(len(dst)) != info.Size {
		panic(fmt.Sprintf("tensor: ReadInto %q: len(dst) = %d, size = %d", name, len(dst), info.Size))
	}
	at := f.data + info.Offset
	n, err := f.f.ReadAt(dst, at)
	if n == len(dst) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return fault.BadInput(f.path, "became shorter while it was read: tensor %q ends at byte %s, the file has %s now",
			name, group(at+info.Size), group(at+int64(n)))
	}
	return fault.BadInput(f.path, "can't be read at byte %s (tensor %q): %w", group(at+int64(n)), name, err)
}

// Metadata returns the header's __metadata__; nil when there is none. The map is the file's own.
func (f *File) Metadata() map[string]string { return f.header.metadata }

// Size returns the file's length in bytes at the time it was opened.
func (f *File) Size() int64 { return f.size }

// ModTime returns the file's modification time when it was opened.
func (f *File) ModTime() time.Time { return f.modTime }

// HeaderHash returns the SHA-256 of the header's text.
func (f *File) HeaderHash() [32]byte { return f.hash }

// DataOffset returns where the data section starts in the file.
func (f *File) DataOffset() int64 { return f.data }

// Unchanged returns an error if the file was written to, or another file took its place, since it was opened.
func (f *File) Unchanged() error {
	now, err := os.Stat(f.path)
	if err != nil {
		return fault.BadInput(f.path, "vanished while it was in use").Advise("nothing was written: run it again when the file is there")
	}
	mine, err := f.f.Stat()
	if err != nil || !os.SameFile(now, mine) || now.Size() != f.size || !now.ModTime().Equal(f.modTime) {
		return fault.BadInput(f.path, "changed while it was in use").Advise("nothing was written: run it again when nobody writes to it")
	}
	return nil
}

// Close closes the file. The tensors read from it stay valid.
func (f *File) Close() error { return f.f.Close() }
