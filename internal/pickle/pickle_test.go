package pickle

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lycoris/internal/fault"
	"lycoris/internal/tensor"
)

// Files that torch 2 wrote (scripts/goldens/pickles.py): the zip form and the one before 1.6, with a transposed tensor, two views of one storage, a parameter,
// numbers beside the weights, and Lightning's callback as in original SD1 checkpoints.
func TestFilesOfTorch(t *testing.T) {
	for _, name := range []string{"zip.ckpt", "legacy.pt"} {
		t.Run(name, func(t *testing.T) {
			f, err := Open(filepath.Join("testdata", name))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			want := map[string]struct {
				d     tensor.DType
				shape []int
				v     []float32
			}{
				"plain.weight":      {tensor.F32, []int{2, 3}, []float32{0, 1, 2, 3, 4, 5}},
				"transposed.weight": {tensor.F16, []int{3, 2}, []float32{0, 3, 1, 4, 2, 5}},
				"tail.bias":         {tensor.F32, []int{2}, []float32{4, 5}},
				"half":              {tensor.BF16, []int{2}, []float32{0.5, -2}},
				"count":             {tensor.I64, []int{}, []float32{7}},
				"flags":             {tensor.Bool, []int{2}, []float32{1, 0}},
				"parameter":         {tensor.F32, []int{2}, []float32{1, 1}},
				"empty":             {tensor.F32, []int{0, 4}, nil},
			}
			if len(f.Names()) != len(want) {
				t.Errorf("%d tensors %q, want %d", len(f.Names()), f.Names(), len(want))
			}
			for _, name := range f.Names() {
				w, ok := want[name]
				if !ok {
					t.Errorf("a tensor %q, want none", name)
					continue
				}
				got, err := f.Read(name)
				if err != nil {
					t.Fatal(err)
				}
				if got.DType != w.d || !tensor.SameShape(got.Shape, w.shape) {
					t.Errorf("%q is %s %v, want %s %v", name, got.DType, got.Shape, w.d, w.shape)
				}
				for i, x := range got.Float32() {
					if x != w.v[i] {
						t.Errorf("%q[%d] = %v, want %v", name, i, x, w.v[i])
					}
				}
			}
			if f.Numbers["global_step"] != 42 || f.Numbers["epoch"] != 3 {
				t.Errorf("numbers beside the weights %v, want global_step 42 and epoch 3", f.Numbers)
			}
			if f.Others == 0 {
				t.Error("the callback was not counted")
			}
		})
	}
}

// An embedding as AUTOMATIC1111 saves it.
func TestEmbedding(t *testing.T) {
	f, err := Open(filepath.Join("testdata", "embedding.pt"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	v, err := f.Read("string_to_param.*")
	if err != nil {
		t.Fatal(err)
	}
	if !tensor.SameShape(v.Shape, []int{2, 4}) || v.Float32()[7] != 7 {
		t.Errorf("embedding %v %v", v.Shape, v.Float32())
	}
}

// op writes instructions: strings as they are.
func op(parts ...string) []byte { return []byte("\x80\x02" + strings.Join(parts, "") + ".") }

func text(s string) string {
	var n [4]byte
	binary.LittleEndian.PutUint32(n[:], uint32(len(s)))
	return "X" + string(n[:]) + s
}

func number32(n uint32) string {
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], n)
	return "J" + string(b[:])
}

// tensorOf are the instructions of a float32 tensor of elems elements in storage "0".
func tensorOf(elems uint32, offset uint32, shape, steps string) string {
	return "ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + "ctorch\nFloatStorage\n" + text("0") + text("cpu") + number32(elems) + "tQ" + number32(offset) +
		"(" + shape + "t(" + steps + "t\x89ccollections\nOrderedDict\n)RtR"
}

// archive writes the zip form.
func archive(t testing.TB, description []byte, data map[string][]byte) string {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, name := range []string{"data.pkl", "data/0", "byteorder"} {
		content, ok := data[name]
		if name == "data.pkl" {
			content, ok = description, true
		}
		if !ok {
			continue
		}
		w, err := z.CreateHeader(&zip.FileHeader{Name: "archive/" + name, Method: zip.Deflate})
		if err != nil {
			t.Fatal(err)
		}
		w.Write(content)
	}
	z.Close()
	path := filepath.Join(t.TempDir(), "x.pt")
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func floats(v ...float32) []byte {
	var b []byte
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

// What a hostile or damaged file gets is a sentence, and nothing runs.
func TestRefused(t *testing.T) {
	marker := filepath.Join(t.TempDir(), "ran")
	one := map[string][]byte{"data/0": floats(1, 2)}
	for _, c := range []struct {
		name, want  string
		description []byte
		data        map[string][]byte
	}{
		{"os.system", `wants to run code when opened ("os.system"); refused`, op("cos\nsystem\n(", text("touch "+marker), "tR"), nil},
		{"posix.system by stack", `wants to run code when opened ("posix.system"); refused`, op(text("posix"), text("system"), "\x93(", text("touch "+marker), "tR"), nil},
		{"eval", `wants to run code when opened ("builtins.eval"); refused`, op("c__builtin__\neval\n(", text("1"), "tR"), nil},
		{"exec as INST", `wants to run code when opened ("builtins.exec"); refused`, op("(", text("1"), "i__builtin__\nexec\n"), nil},
		{"getattr", `wants to run code when opened ("builtins.getattr"); refused`, op("cbuiltins\ngetattr\n(tR"), nil},
		{"a method of a torch module", `wants to run code when opened ("torch.hub.load"); refused`, op("ctorch.hub\nload\n(tR"), nil},
		{"a name that only begins well", `wants to run code when opened ("torch.load"); refused`, op("ctorch\nload\n(tR"), nil},
		{"lightning lookalike", `wants to run code when opened ("pytorch_lightning_evil.run"); refused`, op("cpytorch_lightning_evil\nrun\n(tR"), nil},
		{"a call of a text", "calls what is no name", op(text("os.system"), "(tR"), nil},
		{"extension registry", "extension registry", op("\x82\x01"), nil},
		{"state of a class", "", op("ccollections\nOrderedDict\n}b"), nil},
		{"a text of 4 GB", "has a value of 4294967295 bytes", op("X\xff\xff\xff\xff"), nil},
		{"a text of 2^63 bytes", "has a length of", op("\x8d\xff\xff\xff\xff\xff\xff\xff\xff"), nil},
		{"a number of 2 GB", "has a number of", op("\x8b\xff\xff\xff\x7f"), nil},
		{"recalls what was not kept", "recalls value 1000000000", op("j\x00\xca\x9a\x3b"), nil},
		{"pops too much", "takes what it did not put", op("00"), nil},
		{"ends early", "ends too early", []byte("\x80\x02}"), nil},
		{"protocol 9", "protocol 9", []byte("\x80\x09."), nil},
		{"unknown instruction", "instruction 0xff", op("\xff"), nil},
		{"no tensors", "holds no tensors", op("}"), nil},
		{"a list", "holds no tensors by name", op("]"), nil},
		{"itself inside itself", "holds no tensors", op("}q\x00", text("a"), "h\x00s"), nil},
		{"nested deep", "nests more than", op(strings.Repeat("}"+text("a"), 40), "N", strings.Repeat("s", 40)), nil},
		{"missing data", `the data "0" are missing`, op("}", text("a"), tensorOf(2, 0, "K\x02", "K\x01"), "s"), nil},
		{"data of another size", "expands to 8 bytes, its description says 4", op("}", text("a"), tensorOf(1, 0, "K\x01", "K\x01"), "s"), one},
		{"2^31 elements", "its description says 8589934588", op("}", text("a"), tensorOf(math.MaxInt32, 0, "K\x01", "K\x01"), "s"), one},
		{"shape beyond the data", "reaches beyond its 8 bytes", op("}", text("a"), tensorOf(2, 0, "K\x03", "K\x01"), "s"), one},
		{"offset beyond the data", "reaches beyond its 8 bytes", op("}", text("a"), tensorOf(2, 2, "K\x01", "K\x01"), "s"), one},
		{"stride beyond the data", "reaches beyond its 8 bytes", op("}", text("a"), tensorOf(2, 0, "K\x02", "K\x09"), "s"), one},
		{"one element, a billion times", "reaches beyond its 8 bytes", op("}", text("a"), tensorOf(2, 0, number32(1<<30), "K\x00"), "s"), one},
		{"a product that overflows", "has a size of", op("}", text("a"), tensorOf(2, 0, number32(1<<30)+number32(1<<30)+number32(1<<30), "K\x00K\x00K\x00"), "s"), one},
		{"negative size", "has a size -1", op("}", text("a"), tensorOf(2, 0, number32(math.MaxUint32), "K\x01"), "s"), one},
		{"big-endian", `byte order "big"`, op("}", text("a"), tensorOf(2, 0, "K\x02", "K\x01"), "s"), map[string][]byte{"data/0": floats(1, 2), "byteorder": []byte("big")}},
		{"a reserved name", "__metadata__", op("}", text("__metadata__"), tensorOf(2, 0, "K\x02", "K\x01"), "s"), one},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := Open(archive(t, c.description, c.data))
			if err == nil {
				f.Close()
				t.Fatal("opened")
			}
			if fault.KindOf(err) != fault.Input || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q of kind input", err, c.want)
			}
			var e *fault.Error
			if !errors.As(err, &e) || e.Advice == "" {
				t.Error("no advice")
			}
		})
	}
	if _, err := os.Stat(marker); err == nil {
		t.Error("a command of a file ran")
	}
}

// A small archive that expands to gigabytes is refused by what its directory says, and by what comes out of it.
func TestBomb(t *testing.T) {
	zeros := bytes.Repeat([]byte{0}, maxStream+1)
	_, err := Open(archive(t, zeros, nil))
	if err == nil || !strings.Contains(err.Error(), "expands to more than") {
		t.Errorf("got %v", err)
	}
}

// Damage in the data is noticed by the archive's checksum.
func TestChecksum(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.ckpt")
	b, err := os.ReadFile(filepath.Join("testdata", "zip.ckpt"))
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(b, floats(0, 1, 2, 3, 4, 5))
	if at < 0 {
		t.Fatal("the tensor isn't found in the file")
	}
	b[at+4] ^= 1
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Read("plain.weight"); err == nil || fault.KindOf(err) != fault.Input {
		t.Errorf("a flipped bit: got %v, want an input error", err)
	}
}

// Whatever the bytes are: a sentence or tensors that can be read, in bounded memory.
func FuzzOpen(f *testing.F) {
	for _, name := range []string{"zip.ckpt", "legacy.pt", "embedding.pt"} {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add(op("cos\nsystem\n(", text("true"), "tR"))
	f.Add(op("}", text("a"), tensorOf(2, 0, "K\x02", "K\x01"), "s"))
	f.Add([]byte("PK\x03\x04"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, form := range []string{"file", "description"} {
			path := filepath.Join(t.TempDir(), "x.pt")
			if form == "description" {
				path = archive(t, b, map[string][]byte{"data/0": floats(1, 2)})
			} else if err := os.WriteFile(path, b, 0o644); err != nil {
				t.Fatal(err)
			}
			p, err := Open(path)
			if err != nil {
				if fault.KindOf(err) != fault.Input {
					t.Fatalf("an error of kind %s: %v", fault.KindOf(err), err)
				}
				continue
			}
			for _, name := range p.Names() {
				info, _ := p.Info(name)
				v, err := p.Read(name)
				if err == nil && int64(len(v.Data)) != info.Size {
					t.Errorf("%q has %d bytes, want %d", name, len(v.Data), info.Size)
				}
			}
			p.Close()
		}
	})
}

func TestIs(t *testing.T) {
	for _, c := range []struct {
		head string
		want bool
	}{
		{"PK\x03\x04\x00\x00\x08\x08\x00", true}, {"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9", true}, {"\x80\x02].", true}, {"\x80", false}, {"", false},
		{"\x80\x02\x00\x00\x00\x00\x00\x00{", false}, {"<html>", false},
	} {
		if got := Is([]byte(c.head)); got != c.want {
			t.Errorf("Is(%q) = %v", c.head, got)
		}
	}
}
