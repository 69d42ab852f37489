// Package pickle reads what torch.save wrote (.ckpt, .pt, .bin) without running anything.
//
// Such a file is a pickle, a program for Python's object machine, beside raw data. A [File] is an open one: its tensors by name, and what else it says ([File.Numbers],
// [File.Others]). The program is interpreted by a machine that knows torch's few functions by name and places data; every other name ends the reading with a
// sentence. Nothing is imported, called or written.
//
// Sizes are bounded before memory is taken. Files stay open until [File.Close]. Start at [Open].
//
// Formats: torch/serialization.py (zip since 1.6, before that a stream of pickles), Python's Lib/pickletools.py.
package pickle

import (
	"archive/zip"
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"lycoris/internal/fault"
	"lycoris/internal/tensor"
)

// maxEntries bounds the members of an archive: a tensor each and a few more.
const maxEntries = tensor.MaxTensors + 1000

// File is an open file of torch's.
type File struct {
	Numbers map[string]float64 // epoch, global_step and other numbers beside the weights
	Others  int                // values beside the weights that are neither: what an optimizer or a callback left
	path    string
	f       *os.File
	names   []string
	views   map[string]*view
	place   map[string]place // of storages
	last    string           // key of the storage in data
	data    []byte
}

// place is where the bytes of a storage are: an archive's member, or a range of the file.
type place struct {
	member *zip.File
	offset int64
	size   int64
}

// Is reports whether a file begins, with at least 9 bytes of head where it has them, as torch's files do. A safetensors file may begin with the same two bytes: the length of its
// header is followed by zeros and a brace.
func Is(head []byte) bool {
	if len(head) > 8 && head[8] == '{' && head[5]|head[6]|head[7] == 0 {
		return false
	}
	return bytes.HasPrefix(head, []byte("PK\x03\x04")) || len(head) > 1 && head[0] == 0x80 && head[1] <= 5
}

// Open opens a file and reads its description. Errors are of kind fault.Input.
func Open(name string) (*File, error) {
	f, err := tensor.OpenRegular(name)
	if err != nil {
		return nil, err
	}
	p := &File{path: name, f: f, views: map[string]*view{}, place: map[string]place{}, Numbers: map[string]float64{}}
	if err := p.open(); err != nil {
		f.Close()
		var known *fault.Error
		var no refusal
		switch {
		case errors.As(err, &known):
			return nil, err
		case errors.As(err, &no) && strings.HasPrefix(no.msg, "wants to run code"):
			return nil, fault.BadInput(name, "%s", no.msg).Advise("don't open it with other programs; look for the .safetensors form of the model")
		}
		return nil, fault.BadInput(name, "%v", err).Advise("download it again, or look for the .safetensors form of the model")
	}
	return p, nil
}

func (p *File) open() (err error) {
	defer caught(&err)
	stat, err := p.f.Stat()
	if err != nil {
		return err
	}
	head := make([]byte, min(stat.Size(), 16))
	if _, err := p.f.ReadAt(head, 0); err != nil {
		return err
	}
	var root any
	switch {
	case bytes.HasPrefix(head, []byte("PK\x03\x04")):
		root, err = p.openZip(stat.Size())
	case Is(head):
		root, err = p.openStream(stat.Size())
	default:
		return refusal{"is not a file that torch wrote"}
	}
	if err != nil {
		return err
	}
	return p.collect(root)
}

// openZip reads the form of torch 1.6 and later: NAME/data.pkl beside NAME/data/KEY.
func (p *File) openZip(size int64) (any, error) {
	z, err := zip.NewReader(p.f, size)
	if err != nil {
		return nil, refusal{"is damaged: not a whole zip archive"}
	}
	if len(z.File) > maxEntries {
		return nil, refusal{fmt.Sprintf("has %d members, over the limit of %d", len(z.File), maxEntries)}
	}
	members := map[string]*zip.File{}
	var description *zip.File
	for _, m := range z.File {
		if _, twice := members[m.Name]; twice {
			return nil, refusal{fmt.Sprintf("is damaged: %q is in it twice", m.Name)}
		}
		members[m.Name] = m
		if folder, base := path.Split(m.Name); base == "data.pkl" && strings.Count(folder, "/") <= 1 {
			if description != nil {
				return nil, refusal{"is damaged: it has two descriptions"}
			}
			description = m
		}
	}
	if description == nil {
		return nil, refusal{"is a zip archive that torch did not write: it has no data.pkl"}
	}
	folder := strings.TrimSuffix(description.Name, "data.pkl")
	if order, ok := members[folder+"byteorder"]; ok {
		text, err := readMember(order, 16)
		if err != nil {
			return nil, err
		}
		if s := strings.TrimSpace(string(text)); s != "little" {
			return nil, refusal{fmt.Sprintf("holds numbers in the byte order %q, this version reads little", s)}
		}
	}
	text, err := readMember(description, maxStream)
	if err != nil {
		return nil, err
	}
	stores := map[string]*storage{}
	root, _, err := run(bufio.NewReader(bytes.NewReader(text)), stores)
	if err != nil {
		return nil, err
	}
	for key, s := range stores {
		m, ok := members[folder+"data/"+key]
		if !ok {
			return nil, refusal{fmt.Sprintf("is damaged: the data %q are missing", key)}
		}
		if want := s.bytes(); m.UncompressedSize64 != uint64(want) {
			return nil, refusal{fmt.Sprintf("is damaged: entry %q expands to %d bytes, its description says %d", m.Name, m.UncompressedSize64, want)}
		}
		p.place[key] = place{member: m, size: s.bytes()}
	}
	return root, nil
}

// readMember reads a small member whole.
func readMember(m *zip.File, limit int64) ([]byte, error) {
	if m.UncompressedSize64 > uint64(limit) {
		return nil, refusal{fmt.Sprintf("has an entry %q that expands to more than %d bytes", m.Name, limit)}
	}
	r, err := m.Open()
	if err != nil {
		return nil, refusal{fmt.Sprintf("is damaged: entry %q can't be opened", m.Name)}
	}
	defer r.Close()
	text, err := io.ReadAll(io.LimitReader(r, limit+1))
	switch {
	case err != nil:
		return nil, refusal{fmt.Sprintf("is damaged: entry %q: %v", m.Name, err)}
	case int64(len(text)) > limit:
		return nil, refusal{fmt.Sprintf("has an entry %q that expands to more than %d bytes", m.Name, limit)}
	}
	return text, nil
}

// bytes returns the size of a storage.
func (s *storage) bytes() int64 {
	d, _ := dtype(s.class)
	return mulOrRefuse(s.elems, int64(d.Size()))
}

// mulOrRefuse multiplies sizes that no file reaches in full.
func mulOrRefuse(a, b int64) int64 {
	if b != 0 && a > (1<<50)/b {
		refuse("is damaged: its description has a size of %d times %d", a, b)
	}
	return a * b
}

// The numbers that begin the form before torch 1.6.
var (
	legacyMagic         = number{0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19}
	legacyVersion int64 = 1001
)

// openStream reads the form before torch 1.6: five pickles (magic, version, system, object, keys), then for each key the count of elements and the bytes.
func (p *File) openStream(size int64) (any, error) {
	r := bufio.NewReader(io.NewSectionReader(p.f, 0, size))
	at, stores := int64(0), map[string]*storage{}
	next := func() (any, error) {
		v, n, err := run(r, stores)
		at += n
		return v, err
	}
	magic, err := next()
	if err != nil {
		return nil, err
	}
	if m, ok := magic.(number); !ok || !bytes.Equal(m, legacyMagic) {
		return nil, refusal{"is a pickle that torch.save did not write"}
	}
	version, err := next()
	if err != nil {
		return nil, err
	}
	if version != legacyVersion {
		return nil, refusal{fmt.Sprintf("is of torch's format %v, this version reads %d", version, legacyVersion)}
	}
	system, err := next()
	if err != nil {
		return nil, err
	}
	if d, ok := system.(*dict); ok {
		if little, ok := d.get("little_endian"); ok && little == false {
			return nil, refusal{`holds numbers in the byte order "big", this version reads little`}
		}
	}
	root, err := next()
	if err != nil {
		return nil, err
	}
	keys, err := next()
	if err != nil {
		return nil, err
	}
	order, ok := keys.(*list)
	if !ok {
		return nil, refusal{"is damaged: the list of its data is missing"}
	}
	for _, k := range order.items {
		key, _ := k.(string)
		s := stores[key]
		if _, twice := p.place[key]; s == nil || twice {
			return nil, refusal{fmt.Sprintf("is damaged: the list of its data names %q", fmt.Sprint(k))}
		}
		var count [8]byte
		if _, err := p.f.ReadAt(count[:], at); err != nil {
			return nil, refusal{fmt.Sprintf("is damaged: it ends before the data %q", key)}
		}
		if n := int64(binary.LittleEndian.Uint64(count[:])); n != s.elems {
			return nil, refusal{fmt.Sprintf("is damaged: the data %q have %d elements, its description says %d", key, n, s.elems)}
		}
		bytes, err := s.checkedBytes()
		if err != nil {
			return nil, err
		}
		if at+8+bytes > size {
			return nil, refusal{fmt.Sprintf("is damaged: the data %q end at byte %d, the file has %d", key, at+8+bytes, size)}
		}
		p.place[key] = place{offset: at + 8, size: bytes}
		at += 8 + bytes
	}
	for key := range stores {
		if _, ok := p.place[key]; !ok {
			return nil, refusal{fmt.Sprintf("is damaged: the data %q are missing", key)}
		}
	}
	return root, nil
}

// checkedBytes is bytes with an error in place of a panic.
func (s *storage) checkedBytes() (n int64, err error) {
	defer caught(&err)
	return s.bytes(), nil
}

func caught(err *error) {
	switch e := recover().(type) {
	case nil:
	case refusal:
		*err = e
	default:
		panic(e)
	}
}

// Path returns the path the file was opened with.
func (p *File) Path() string { return p.path }

// Names returns the tensors' names in the order of the file.
func (p *File) Names() []string { return p.names }

// Metadata returns nil: files of torch have none.
func (p *File) Metadata() map[string]string { return nil }

// Info describes a tensor; Size is what it takes when written out.
func (p *File) Info(name string) (tensor.Info, bool) {
	v, ok := p.views[name]
	if !ok {
		return tensor.Info{}, false
	}
	d, _ := dtype(v.class)
	shape := make([]int, len(v.shape))
	for i, n := range v.shape {
		shape[i] = int(n)
	}
	return tensor.Info{DType: d, Shape: shape, Size: int64(tensor.Elems(shape) * d.Size())}, true
}

// Read returns a tensor, row-major whatever its strides are in the file.
func (p *File) Read(name string) (tensor.Tensor, error) {
	v, ok := p.views[name]
	if !ok {
		return tensor.Tensor{}, fault.BadInput(p.path, "has no tensor %q", name)
	}
	data, err := p.bytes(v.storage)
	if err != nil {
		return tensor.Tensor{}, err
	}
	info, _ := p.Info(name)
	size := int64(info.DType.Size())
	t := tensor.Tensor{DType: info.DType, Shape: info.Shape, Data: make([]byte, 0, info.Size)}
	if v.contiguous() {
		t.Data = append(t.Data, data[v.offset*size:v.offset*size+info.Size]...)
		return t, nil
	}
	index := make([]int64, len(v.shape))
	for range tensor.Elems(info.Shape) {
		at := v.offset
		for i, x := range index {
			at += x * v.steps[i]
		}
		t.Data = append(t.Data, data[at*size:(at+1)*size]...)
		for i := len(index) - 1; i >= 0; i-- {
			if index[i]++; index[i] < v.shape[i] {
				break
			}
			index[i] = 0
		}
	}
	return t, nil
}

// contiguous reports whether the elements lie row-major without gaps.
func (v *view) contiguous() bool {
	step := int64(1)
	for i := len(v.shape) - 1; i >= 0; i-- {
		if v.shape[i] != 1 && v.steps[i] != step {
			return false
		}
		step *= v.shape[i]
	}
	return true
}

// bytes reads a storage; the last one is kept for its other tensors.
func (p *File) bytes(s *storage) ([]byte, error) {
	if p.data != nil && p.last == s.key {
		return p.data, nil
	}
	at := p.place[s.key]
	p.data, p.last = nil, s.key
	data := make([]byte, at.size)
	var err error
	if at.member == nil {
		_, err = p.f.ReadAt(data, at.offset)
	} else {
		var r io.ReadCloser
		if r, err = at.member.Open(); err == nil {
			_, err = io.ReadFull(r, data)
			if err == nil {
				_, err = io.Copy(io.Discard, io.LimitReader(r, 1)) // the checksum is compared at the end
			}
			r.Close()
		}
	}
	if err != nil {
		return nil, fault.BadInput(p.path, "is damaged: the data %q can't be read: %w", s.key, err).Advise("download it again")
	}
	p.data = data
	return data, nil
}

// Close closes the file.
func (p *File) Close() error { return p.f.Close() }

// collect finds the tensors below root: those of state_dict where there is one.
func (p *File) collect(root any) (err error) {
	defer caught(&err)
	d, ok := root.(*dict)
	if !ok {
		if v, is := root.(*view); is {
			return p.add("tensor", v)
		}
		return refusal{"holds no tensors by name"}
	}
	w := &walker{file: p, seen: map[*dict]bool{}}
	if inner, ok := d.get("state_dict"); ok {
		if weights, is := inner.(*dict); is {
			w.seen[weights] = true
			w.beside(d)
			delete(w.seen, weights)
			d = weights
		}
	}
	w.walk("", d, 0)
	if len(p.names) == 0 {
		return refusal{"holds no tensors by name"}
	}
	return nil
}

// walker goes through dicts; one that contains itself is entered once.
type walker struct {
	file *File
	seen map[*dict]bool
}

const maxDepth = 16

// beside counts what stands next to the weights.
func (w *walker) beside(d *dict) {
	for i, k := range d.keys {
		name, _ := k.(string)
		switch v := d.values[i].(type) {
		case int64:
			w.file.Numbers[name] = float64(v)
		case float64:
			w.file.Numbers[name] = v
		case *dict:
			if !w.seen[v] {
				w.file.Others++
			}
		default:
			w.file.Others++
		}
	}
}

func (w *walker) walk(prefix string, d *dict, depth int) {
	if w.seen[d] {
		return
	}
	if w.seen[d] = true; depth > maxDepth {
		refuse("nests more than %d levels deep", maxDepth)
	}
	for i, k := range d.keys {
		name := prefix + keyText(k)
		switch v := d.values[i].(type) {
		case *view:
			if err := w.file.add(name, v); err != nil {
				panic(err)
			}
		case *dict:
			w.walk(name+".", v, depth+1)
		case *object:
			w.object(name, v, depth)
		case int64:
			w.file.Numbers[name] = float64(v)
		case float64:
			w.file.Numbers[name] = v
		default:
			w.file.Others++
		}
	}
}

// object takes the tensors of a torch.nn.ParameterDict, as early embeddings are.
func (w *walker) object(name string, o *object, depth int) {
	if state, ok := o.state.(*dict); ok && o.class.name == "ParameterDict" {
		if inner, ok := state.get("_parameters"); ok {
			if d, ok := inner.(*dict); ok {
				w.walk(name+".", d, depth+1)
				return
			}
		}
	}
	w.file.Others++
}

func keyText(k any) string {
	switch v := k.(type) {
	case string:
		return strings.ToValidUTF8(v, "�")
	case int64:
		return fmt.Sprint(v)
	}
	return "?"
}

// add keeps a tensor after checking that it lies inside its storage. A tensor larger than its storage (strides of 0) is refused: there is no bound to its size.
func (p *File) add(name string, v *view) error {
	if _, twice := p.views[name]; twice {
		return refusal{fmt.Sprintf("names %q twice", name)}
	}
	if len(p.names) >= tensor.MaxTensors {
		return refusal{fmt.Sprintf("has more than %d tensors", tensor.MaxTensors)}
	}
	d, ok := dtype(v.class)
	if !ok || name == "__metadata__" {
		return refusal{fmt.Sprintf("holds a tensor %q of the type %q, which this version doesn't read", name, v.class.String())}
	}
	size, elems := int64(d.Size()), v.storage.bytes()/max(int64(d.Size()), 1)
	if len(v.steps) != len(v.shape) {
		return refusal{fmt.Sprintf("is damaged: tensor %q has %d sizes and %d strides", name, len(v.shape), len(v.steps))}
	}
	count, last, empty := int64(1), v.offset, slices.Contains(v.shape, 0)
	for i, n := range v.shape {
		if empty {
			break
		}
		count = mulOrRefuse(count, n)
		last += mulOrRefuse(n-1, v.steps[i])
	}
	if last < 0 || !empty && (last >= elems || count > elems) || v.offset > elems {
		return refusal{fmt.Sprintf("is damaged: tensor %q of shape %s reaches beyond its %d bytes of data", name, tensor.FormatShape64(v.shape), elems*size)}
	}
	p.names, p.views[name] = append(p.names, name), v
	return nil
}
