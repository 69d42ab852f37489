package tensor

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/nlpodyssey/safetensors"

	"lycoris/internal/fault"
)

// build returns a file with the header text and n data bytes.
func build(header string, n int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), make([]byte, n)...)
}

func write(t testing.TB, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

// wantFault fails unless err is of the kind and has the words; it never has a line break.
func wantFault(t *testing.T, err error, kind fault.Kind, words string) {
	t.Helper()
	if err == nil || fault.KindOf(err) != kind || !strings.Contains(err.Error(), words) || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v (%v)\nwant a fault of kind %v with %q", err, fault.KindOf(err), kind, words)
	}
}

// TestBadFiles has a case for each row of the reference on bad inputs (2) about safetensors files.
func TestBadFiles(t *testing.T) {
	const entry = `"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}`
	pair := func(from, to int) string {
		return fmt.Sprintf(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[%d,%d]}}`, from, to)
	}
	shape := func(s string, n int) []byte {
		return build(`{"a":{"dtype":"F32","shape":`+s+`,"data_offsets":[0,`+fmt.Sprint(n)+`]}}`, n)
	}
	for _, c := range []struct {
		name  string
		data  []byte
		words string
	}{
		{"empty", nil, "is not a safetensors file: too short (0 bytes)"},
		{"seven bytes", []byte{1, 2, 3, 4, 5, 6, 7}, "is not a safetensors file: too short (7 bytes)"},
		{"header longer than file", append(binary.LittleEndian.AppendUint64(nil, 1000), `{"a`...), "header says 1000 bytes, the file has 11"},
		{"header over the limit", append(binary.LittleEndian.AppendUint64(nil, MaxHeaderBytes+1), `{"a`...), "header of 100000001 bytes is over the limit"},
		{"header length 2^64-1", append(binary.LittleEndian.AppendUint64(nil, math.MaxUint64), "\x00\x01"...), "header of 18446744073709551615 bytes is over the limit"},

		{"blank first", build(" {"+entry+"}", 8), "header is damaged at byte 8: it does not start with {"},
		{"empty header", build("", 0), "header is damaged at byte 8"},
		{"list", build("[]", 0), "header is damaged at byte 8"},
		{"bad UTF-8", build("{\"\xff\":1}", 0), "header is damaged at byte 10: not UTF-8"},
		{"duplicate name", build("{"+entry+","+entry+"}", 8), `header is damaged at byte 62: "a" stands there twice`},
		{"duplicate name, escaped", build("{"+entry+","+strings.Replace(entry, `"a"`, `"\u0061"`, 1)+"}", 8), `"a" stands there twice`},
		{"duplicate field", build(`{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, 8), `tensor "a" has "dtype" twice`},
		{"unknown field", build(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":[]}}`, 8), `unknown field "x"`},
		{"missing field", build(`{"a":{"dtype":"F32","shape":[2]}}`, 8), `tensor "a" has no "data_offsets"`},
		{"trailing text", build("{"+entry+"} x", 8), "text after the end: found \"x\""},
		{"second object", build("{"+entry+"}{}", 8), "text after the end"},
		{"nesting", build(`{"a":{"dtype":{"x":1},"shape":[2],"data_offsets":[0,8]}}`, 8), "type is not text"},
		{"nested shape", build(`{"a":{"dtype":"F32","shape":[[2]],"data_offsets":[0,8]}}`, 8), "size is not a number"},
		{"deep nesting", build(strings.Repeat(`{"a":`, 100000), 0), "header is damaged at byte"},
		{"null entry", build(`{"a":null}`, 0), "header is damaged at byte 13: want {: found \"null}\""},
		{"null type", build(`{"a":{"dtype":null,"shape":[],"data_offsets":[0,4]}}`, 4), "type is not text"},
		{"null metadata", build(`{"__metadata__":null}`, 0), "header is damaged at byte 24"},
		{"cut text", build(`{"a`, 0), "a text without an end"},
		{"control byte in text", build("{\"a\x01\":1}", 0), "control byte"},
		{"half a surrogate", build(`{"\ud800":1}`, 0), "half a surrogate pair"},
		{"bad escape", build(`{"\x61":1}`, 0), "unknown escape"},
		{"missing comma", build(`{"a":{"dtype":"F32" "shape":[2],"data_offsets":[0,8]}}`, 8), "want , or }"},
		{"ends early", build(`{"a":{"dtype":"F32"`, 0), "the header ends there"},

		{"hole at start", build(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}`, 12), `tensor "a": starts at byte 4, a hole of 4 bytes`},
		{"hole", build(pair(12, 20), 20), `tensor "b": starts at byte 12, a hole of 4 bytes after the one before, which ends at 8`},
		{"overlap", build(pair(4, 12), 12), `tensor "b": starts at byte 4 and overlaps "a", which ends at 8`},
		{"same bytes", build(pair(0, 8), 8), `tensor "b": starts at byte 0 and overlaps "a"`},
		{"end before start", build(pair(16, 8), 16), `tensor "b": ends at byte 8 before it starts at 16`},
		{"end past file", build(pair(8, 16), 12), `is damaged: tensor "b" ends at byte 132, the file has 128 (96 %)`},
		{"bytes after the last", build("{"+entry+"}", 9), "is damaged: 1 bytes after the last tensor"},
		{"size of shape", shape("[3]", 8), `tensor "a": shape [3] of F32 takes 12 bytes, its offsets 0 to 8 hold 8`},
		{"overflow", shape("[4294967296,4294967296]", 8), `tensor "a": shape [4294967296 4294967296] of F32 overflows`},
		{"overflow times the type's size", shape("[9223372036854775807]", 8), "overflows"},
		{"negative size", shape("[-2]", 8), `tensor "a": size -2 is not a whole number`},
		{"float size", shape("[2.0]", 8), `tensor "a": size 2.0 is not a whole number`},
		{"exponent size", shape("[2e0]", 8), `tensor "a": size 2e0 is not a whole number`},
		{"size over 2^63", shape("[99999999999999999999]", 8), `tensor "a": size 99999999999999999999 is not`},
		{"leading zero", shape("[02]", 8), `tensor "a": size 02 is not a whole number`},
		{"size as text", shape(`["2"]`, 8), "size is not a number"},
		{"17 axes", shape("[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,2]", 8), "more than 16 sizes"},
		{"three offsets", build(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8,9]}}`, 8), "more than 2 offsets"},
		{"one offset", build(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}}`, 8), "1 offsets, want 2"},
		{"empty with huge axes", shape("[0,9223372036854775807,9]", 0), "overflows"},
		{"unknown type", build(`{"a":{"dtype":"F33","shape":[2],"data_offsets":[0,8]}}`, 8), `tensor "a": element type "F33" is not known`},
		{"fp8", build(`{"a":{"dtype":"F8_E8M0","shape":[8],"data_offsets":[0,8]}}`, 8), `tensor "a": element type "F8_E8M0" is not supported yet`},

		{"metadata number", build(`{"__metadata__":{"x":1}}`, 0), `metadata "x" is not text: found "1}}"`},
		{"metadata list", build(`{"__metadata__":[]}`, 0), "header is damaged at byte 24"},
		{"metadata twice", build(`{"__metadata__":{"x":"1","x":"2"}}`, 0), `metadata "x" stands there twice`},
		{"metadata of 17 MB", build(`{"__metadata__":{"x":"`+strings.Repeat("y", MaxMetadataValue+1)+`"}}`, 0), `metadata "x" has 16777217 bytes`},
		{"two metadata", build(`{"__metadata__":{},"__metadata__":{}}`, 0), `"__metadata__" stands there twice`},

		{"LFS pointer", []byte("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 134\n"), "is a Git LFS pointer, not a model"},
		{"web page", []byte("<!DOCTYPE html><html><head><title>Sign in</title>"), "is a web page, not a model"},
		{"web page with blanks", []byte("\n\n <html lang=\"en\">"), "is a web page, not a model"},
		{"zip", []byte("PK\x03\x04\x00\x00\x08\x08\x00\x00archive/data.pkl"), "is a zip archive or a PyTorch .ckpt, not a model"},
		{"gguf", []byte("GGUF\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00"), "is a GGUF file, not a model"},
		{"pickle", []byte("\x80\x02}q\x00X\x0a\x00\x00\x00state_dict"), "is a PyTorch pickle, not a model"},
		{"picture", []byte("\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"), "is a picture (PNG), not a model"},
		{"JSON", []byte(`{"_class_name": "UNet2DConditionModel"}`), "is a JSON text, not a model"},
		{"text", []byte("Not Found: the file is gone"), "is a text file, not a model"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := OpenFile(write(t, "model.safetensors", c.data))
			wantFault(t, err, fault.Input, c.words)
		})
	}
}

func TestBadPaths(t *testing.T) {
	dir := t.TempDir()
	_, err := OpenFile(filepath.Join(dir, "none"))
	wantFault(t, err, fault.Input, "there is no such file")
	_, err = OpenFile(dir)
	wantFault(t, err, fault.Input, "is a folder, not a file")
	if err := os.Symlink("loop", filepath.Join(dir, "loop")); err != nil {
		t.Fatal(err)
	}
	_, err = OpenFile(filepath.Join(dir, "loop"))
	wantFault(t, err, fault.Input, "leads in a circle")
	_, err = OpenFile("/dev/null")
	wantFault(t, err, fault.Input, "is not a regular file")
}

// TestTooManyTensors: the limit is a limit, and reading that far stays cheap.
func TestTooManyTensors(t *testing.T) {
	var b strings.Builder
	b.WriteString("{")
	for i := range MaxTensors + 1 {
		fmt.Fprintf(&b, `"t%d":{"dtype":"U8","shape":[1],"data_offsets":[%d,%d]},`, i, i, i+1)
	}
	header := strings.TrimSuffix(b.String(), ",") + "}"
	_, err := OpenFile(write(t, "many.safetensors", build(header, MaxTensors+1)))
	wantFault(t, err, fault.Input, "more than 500000 tensors")
}

// sample has every kind of tensor: rank 0, empty, odd sizes, all types.
func sample() []Named {
	return []Named{
		{"b.alpha", FromFloat32(F32, nil, []float32{4})},
		{"half", FromFloat32(F16, []int{3}, []float32{1, -2, 0.5})},
		{"a", FromFloat32(BF16, []int{1, 3}, []float32{1, 2, 3})},
		{"wide", FromFloat32(F64, []int{2}, []float32{1, 2})},
		{"empty", Tensor{F32, []int{0, 5}, nil}},
		{"index", FromInt64([]int{2}, []int64{-1, 1 << 40})},
		{"byte \"é\n", Tensor{U8, []int{5}, []byte{1, 2, 3, 4, 255}}},
		{"flag", Tensor{Bool, []int{2}, []byte{0, 1}}},
		{"z.alpha", FromFloat32(F32, nil, []float32{8})},
	}
}

func readAll(t *testing.T, path string) (map[string]Tensor, *File) {
	t.Helper()
	f, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	all := map[string]Tensor{}
	for _, name := range f.Names() {
		if all[name], err = f.Read(name); err != nil {
			t.Fatal(err)
		}
	}
	return all, f
}

func TestRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.safetensors")
	meta := map[string]string{"ss_v2": "False", "note": "line\nbreak, <tag>, \x01, é"}
	if err := WriteFile(path, sample(), meta); err != nil {
		t.Fatal(err)
	}
	got, f := readAll(t, path)
	for _, want := range sample() {
		g, ok := got[want.Name]
		if !ok || g.DType != want.DType || len(g.Shape) != len(want.Shape) || !SameShape(g.Shape, want.Shape) || !bytes.Equal(g.Data, want.Data) {
			t.Errorf("%q: got %v, want %v", want.Name, g, want.Tensor)
		}
	}
	if len(got) != len(sample()) || !reflect.DeepEqual(f.Metadata(), meta) {
		t.Errorf("%d tensors, metadata %q", len(got), f.Metadata())
	}
	// The reference writer's order: wider types first, then by name. A tensor without elements may stand anywhere among its neighbours.
	if want := []string{"index", "wide", "b.alpha", "empty", "z.alpha", "a", "half", "byte \"é\n", "flag"}; !slices.Equal(f.Names(), want) {
		t.Errorf("order %q, want %q", f.Names(), want)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := binary.LittleEndian.Uint64(raw)
	if n%8 != 0 || string(raw[8:10]) != `{"` || int64(n)+8 != f.DataOffset() || f.Size() != int64(len(raw)) {
		t.Errorf("header of %d bytes, begins %q", n, raw[8:10])
	}
	// The same tensors in another order give the same bytes.
	again := sample()
	slices.Reverse(again)
	var buffer bytes.Buffer
	if err := Encode(&buffer, again, meta); err != nil || !bytes.Equal(buffer.Bytes(), raw) {
		t.Errorf("Encode in another order differs (%v)", err)
	}
	hash, err := DataHash(sample())
	fromFile, err2 := HashFileData(f)
	if err != nil || err2 != nil || hash != fromFile || len(hash) != 64 {
		t.Errorf("DataHash %s (%v), of the file %s (%v)", hash, err, fromFile, err2)
	}
	if stat, err := os.Stat(path); err != nil || stat.Mode().Perm()&0o400 == 0 {
		t.Errorf("mode %v, %v", stat.Mode(), err)
	}
}

// TestReadInto and friends: what is asked for isn't there.
func TestMissing(t *testing.T) {
	f, err := OpenFile(write(t, "a.safetensors", build(`{"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}  `, 1)))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, err = f.Read("b")
	wantFault(t, err, fault.Input, `has no tensor "b"`)
	if info, ok := f.Info("a"); !ok || info.Size != 1 || len(info.Shape) != 0 || f.Has("b") {
		t.Errorf("info %+v %t", info, ok)
	}
}

// TestShrinks: a file cut while it is in use is an error, not a crash, and Unchanged notices.
func TestShrinks(t *testing.T) {
	path := write(t, "a.safetensors", build(`{"a":{"dtype":"U8","shape":[4096],"data_offsets":[0,4096]}}`, 4096))
	f, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Unchanged(); err != nil {
		t.Error(err)
	}
	if err := os.Truncate(path, 100); err != nil {
		t.Fatal(err)
	}
	_, err = f.Read("a")
	wantFault(t, err, fault.Input, "became shorter while it was read")
	wantFault(t, f.Unchanged(), fault.Input, "changed while it was in use")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	wantFault(t, f.Unchanged(), fault.Input, "vanished")
}

func TestConversions(t *testing.T) {
	values := []float32{0, 1, -2.5, 65504, float32(math.Inf(1))}
	for _, d := range []DType{F64, F32, F16, BF16} {
		got := FromFloat32(d, []int{5}, values).Float32()
		want := slices.Clone(values)
		if d == BF16 {
			want[3] = 65536 // 8 bits of fraction
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", d, got, want)
		}
	}
	ints := []int64{0, 1, -3, 1 << 50}
	if got := FromInt64([]int{4}, ints).Int64(); !slices.Equal(got, ints) {
		t.Errorf("Int64: %v, want %v", got, ints)
	}
	for _, c := range []struct {
		t    Tensor
		want float32
	}{
		{Tensor{I32, nil, []byte{255, 255, 255, 255}}, -1}, {Tensor{U32, nil, []byte{1, 0, 0, 0}}, 1}, {Tensor{I16, nil, []byte{254, 255}}, -2},
		{Tensor{U16, nil, []byte{254, 255}}, 65534}, {Tensor{I8, nil, []byte{255}}, -1}, {Tensor{U8, nil, []byte{255}}, 255}, {Tensor{Bool, nil, []byte{1}}, 1},
	} {
		if got := c.t.Float32(); len(got) != 1 || got[0] != c.want {
			t.Errorf("%s: %v, want %v", c.t.DType, got, c.want)
		}
	}
	nan := float32(math.NaN())
	for _, d := range []DType{F64, F32, F16, BF16} {
		if n, first := FromFloat32(d, []int{4}, []float32{0, nan, 1, float32(math.Inf(-1))}).NonFinite(); n != 2 || first != 1 {
			t.Errorf("%s: NonFinite %d, %d, want 2, 1", d, n, first)
		}
		if n, first := FromFloat32(d, []int{2}, []float32{0, 3}).NonFinite(); n != 0 || first != -1 {
			t.Errorf("%s: NonFinite %d, %d, want 0, -1", d, n, first)
		}
	}
}

// FuzzHeader: whatever is accepted lies inside the file without overlap, is accepted by the Go library with the same answers, and reads back
// equal after being written.
func FuzzHeader(f *testing.F) {
	var buffer bytes.Buffer
	if err := Encode(&buffer, sample(), map[string]string{"k": "v"}); err != nil {
		f.Fatal(err)
	}
	f.Add(buffer.Bytes())
	f.Add(build(`{}`, 0))
	f.Add(build(`{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}`, 4))
	f.Add(build(`{"a":{"shape":[0,3],"data_offsets":[0,0],"dtype":"F16"},"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}} `, 1))
	f.Add(build(`{"__metadata__":{"a":"\u00e9\ud83d\ude00"}}`, 0))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) < 8 {
			return
		}
		n := binary.LittleEndian.Uint64(data)
		if n > uint64(len(data)-8) {
			return
		}
		h, end, err := parseHeader(data[8 : 8+n])
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("message of several lines: %q", err)
			}
			return
		}
		at := int64(0)
		for i, info := range h.infos {
			if info.Offset != at || info.Size != int64(Elems(info.Shape)*info.DType.Size()) {
				t.Fatalf("%q at %d with %d bytes, expected at %d", h.names[i], info.Offset, info.Size, at)
			}
			at += info.Size
		}
		if at != end {
			t.Fatalf("end %d, want %d", end, at)
		}
		if end != int64(len(data)-8)-int64(n) {
			return // OpenFile refuses it
		}
		_, m, err := safetensors.ReadMetadata(data)
		if err != nil {
			t.Fatalf("accepted, the library says %v", err)
		}
		var tensors []Named
		for i, name := range h.names {
			theirs := m.Tensors()[name]
			if theirs == nil || theirs.DataOffsets[0] != uint64(h.infos[i].Offset) && h.infos[i].Size > 0 {
				t.Fatalf("%q: the library has %+v", name, theirs)
			}
			from := 8 + int64(n) + h.infos[i].Offset
			tensors = append(tensors, Named{name, Tensor{h.infos[i].DType, h.infos[i].Shape, data[from : from+h.infos[i].Size]}})
		}
		var out bytes.Buffer
		if err := Encode(&out, tensors, h.metadata); err != nil {
			t.Fatal(err)
		}
		written := out.Bytes()
		n = binary.LittleEndian.Uint64(written)
		again, _, err := parseHeader(written[8 : 8+n])
		if err != nil {
			t.Fatalf("written header is refused: %v", err)
		}
		if len(again.names) != len(h.names) || len(h.metadata) > 0 && !reflect.DeepEqual(again.metadata, h.metadata) {
			t.Fatalf("read %d tensors, %q, wrote %d, %q", len(again.names), again.metadata, len(h.names), h.metadata)
		}
	})
}
