package main

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"lycoris/internal/adapter"
	"lycoris/internal/algos"
	"lycoris/internal/checkpoint"
	"lycoris/internal/network"
	"lycoris/internal/rng"
	"lycoris/internal/tensor"
	"lycoris/internal/testutil/tinymodel"
	"lycoris/internal/ui"
)

// tools is a folder with a tiny model, m.safetensors, and an adapter of it, a.safetensors, in which tools run inside this process.
type tools struct {
	t   *testing.T
	dir string
}

func newTools(t *testing.T) *tools {
	t.Helper()
	w := &tools{t, t.TempDir()}
	if err := tinymodel.WriteTiny(w.path("m.safetensors"), 1, checkpoint.SingleFile); err != nil {
		t.Fatal(err)
	}
	base, err := checkpoint.Open(w.path("m.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer base.Close()
	preset, err := network.PresetByName("attn-only")
	if err != nil {
		t.Fatal(err)
	}
	targets, err := network.Select(base, network.Selection{Preset: preset})
	if err != nil {
		t.Fatal(err)
	}
	var all []algos.Adapter
	for i, target := range targets {
		s := rng.New(1, "test", 0, uint64(i))
		a, err := algos.LoRA.New(target.Target, algos.Options{Rank: 2}, s)
		if err != nil {
			t.Fatal(err)
		}
		s.FillNormal(a.Factors()[0].Host)
		all = append(all, a)
	}
	if err := adapter.Save(w.path("a.safetensors"), algos.NewNetwork(all).Tensors(), nil, tensor.F32); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *tools) path(name string) string { return filepath.Join(w.dir, name) }

func (w *tools) write(name string, data []byte) {
	w.t.Helper()
	if err := os.WriteFile(w.path(name), data, 0o644); err != nil {
		w.t.Fatal(err)
	}
}

func (w *tools) read(name string) []byte {
	w.t.Helper()
	data, err := os.ReadFile(w.path(name))
	if err != nil {
		w.t.Fatal(err)
	}
	return data
}

// run runs a command line, of which words that begin with @ are files of the folder.
func (w *tools) run(ctx context.Context, args ...string) (code int, stdout, stderr string) {
	w.t.Helper()
	var said, told bytes.Buffer
	out := &output{term: ui.Terminal{Env: func(string) string { return "" }}, stdout: &told, stderr: &said}
	code = out.run(ctx, w.args(args))
	return code, told.String(), said.String()
}

func (w *tools) args(args []string) []string {
	args = slices.Clone(args)
	for i, a := range args {
		if name, ok := strings.CutPrefix(a, "@"); ok {
			args[i] = w.path(name)
		}
	}
	return args
}

// refused wants a command line to end with the code and one error that has the words and an advice, in text and as JSON, and to leave the folder as it was.
func (w *tools) refused(code int, words string, args ...string) {
	w.t.Helper()
	before := w.list()
	got, stdout, stderr := w.run(context.Background(), args...)
	lines := strings.Split(strings.TrimSpace(stderr), "\n")
	switch {
	case got != code || !strings.Contains(stderr, words) || stdout != "":
		w.t.Errorf("%q: exit %d, want %d with %q\n%s%s", args, got, code, words, stdout, stderr)
	case strings.Count(stderr, "error: ") != 1 || strings.Contains(stderr, "goroutine"):
		w.t.Errorf("%q: want one error\n%s", args, stderr)
	case !strings.HasPrefix(lines[len(lines)-1], "  "):
		w.t.Errorf("%q: the error says what is wrong and not what to do\n%s", args, stderr)
	}
	got, stdout, _ = w.run(context.Background(), append(args[:len(args):len(args)], "--json", "--progress", "none")...)
	last := w.lines(stdout)
	e, _ := last["error"].(map[string]any)
	message, _ := e["message"].(string)
	if got != code || last["ok"] != false || last["exit"] != float64(code) || e["kind"] == nil || e["path"] == nil || e["fix"] == "" || !strings.Contains(fmt.Sprintf("%v: %s %v %s %v", e["path"], message, e["path"], message, e["fix"]), words) {
		w.t.Errorf("%q --json: exit %d, want %d with %q\n%s", args, got, code, words, stdout)
	}
	if after := w.list(); !slices.Equal(before, after) {
		w.t.Errorf("%q: the folder held %q and now holds %q", args, before, after)
	}
}

// lines wants a JSON object on every line, the last of type result, and returns that.
func (w *tools) lines(stdout string) (last map[string]any) {
	w.t.Helper()
	all := strings.Split(strings.TrimSuffix(stdout, "\n"), "\n")
	for _, line := range all {
		last = nil
		if err := json.Unmarshal([]byte(line), &last); err != nil || last["type"] == nil {
			w.t.Errorf("%q is not a JSON line: %v", line, err)
		}
	}
	if last["type"] != "result" {
		w.t.Errorf("the last line is %q, want the result", all[len(all)-1])
	}
	return last
}

// list returns the names in the folder with their sizes.
func (w *tools) list() (all []string) {
	w.t.Helper()
	entries, err := os.ReadDir(w.dir)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			w.t.Fatal(err)
		}
		size := info.Size()
		if info.IsDir() {
			size = 0
		}
		all = append(all, fmt.Sprint(e.Name(), " ", size))
	}
	return all
}

// everyTool are the command lines that read a file, IN, as what each of them takes.
var everyTool = [][]string{
	{"inspect", "@IN"}, {"merge", "--model", "@IN", "--adapter", "@a.safetensors", "--out", "@never.safetensors"}, {"merge", "--model", "@m.safetensors", "--adapter", "@IN", "--out", "@never.safetensors"},
	{"resize", "--in", "@IN", "--dim", "1", "--out", "@never.safetensors"}, {"convert", "--in", "@IN", "--out", "@never.safetensors"},
	{"extract", "--base", "@IN", "--tuned", "@m.safetensors", "--dim", "1", "--out", "@never.safetensors"}, {"extract", "--base", "@m.safetensors", "--tuned", "@IN", "--dim", "1", "--out", "@never.safetensors"},
}

// with returns a command line with the file's name in it.
func with(line []string, name string) []string {
	line = slices.Clone(line)
	for i := range line {
		line[i] = strings.ReplaceAll(line[i], "IN", name)
	}
	return line
}

// file makes a safetensors file of a header's text and zeros.
func file(header string, zeros int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), make([]byte, zeros)...)
}

// unreadable is a file that no tool reads, and the words that say why.
type unreadable struct {
	name  string
	data  []byte
	words string
}

// damaged is a function, for the program's children start with the variables of this package, and one of these files is large.
func damaged() []unreadable {
	return []unreadable{
		{"empty", nil, "is not a safetensors file: too short (0 bytes)"},
		{"seven", []byte("\x10\x00\x00\x00\x00\x00\x00"), "is not a safetensors file: too short (7 bytes)"},
		{"long", append(binary.LittleEndian.AppendUint64(nil, 5000), "{}"...), "is damaged: header says 5000 bytes, the file has 10"},
		{"over", append(binary.LittleEndian.AppendUint64(nil, 200_000_000), "{}"...), "header of 200000000 bytes is over the limit of 100000000"},
		{"list", file(`[1,2,3]`, 0), "header is damaged at byte 8: it does not start with {"},
		{"null", file(`null`, 0), "header is damaged at byte 8: it does not start with {"},
		{"latin", file("{\"\xff\xfe\":1}", 0), "header is damaged at byte 10: not UTF-8 text"},
		{"behind", file(`{} x`, 0), `header is damaged at byte 11: text after the end: found "x"`},
		{"nested", file(`{"a":{"dtype":{"x":1},"shape":[],"data_offsets":[0,4]}}`, 4), "header is damaged at byte 22"},
		{"twice", file(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}`, 16), `"a" stands there twice`},
		{"field", file(`{"a":{"dtype":"F32","dtype":"F16","shape":[2],"data_offsets":[0,8]}}`, 8), `tensor "a" has "dtype" twice`},
		{"unknown", file(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1}}`, 8), `tensor "a" has an unknown field "x"`},
		{"hole", file(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[12,20]}}`, 20), `tensor "b": starts at byte 12, a hole of 4 bytes`},
		{"overlap", file(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}`, 12), `tensor "b": starts at byte 4 and overlaps "a"`},
		{"reversed", file(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}`, 8), `tensor "a": ends at byte 0 before it starts at 8`},
		{"beyond", file(`{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}`, 12), `is damaged: tensor "a" ends at byte 79, the file has 75 (94 %)`},
		{"more", file(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, 12), "is damaged: 4 bytes after the last tensor"},
		{"size", file(`{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}`, 8), `tensor "a": shape [3] of F32 takes 12 bytes, its offsets 0 to 8 hold 8`},
		{"product", file(`{"a":{"dtype":"F32","shape":[4611686018427387904,8],"data_offsets":[0,8]}}`, 8), "overflows"},
		{"void", file(`{"a":{"dtype":"F32","shape":[0,4611686018427387904,8],"data_offsets":[0,0]}}`, 0), "overflows"},
		{"negative", file(`{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}`, 8), "size -2 is not a whole number"},
		{"float", file(`{"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}}`, 8), "size 2.0 is not a whole number"},
		{"type", file(`{"a":{"dtype":"F33","shape":[2],"data_offsets":[0,8]}}`, 8), `element type "F33" is not known`},
		{"e8m0", file(`{"a":{"dtype":"F8_E8M0","shape":[2],"data_offsets":[0,2]}}`, 2), `element type "F8_E8M0" is not`},
		{"metadata", file(`{"__metadata__":{"a":1}}`, 0), `metadata "a" is not text`},
		{"thumbnail", file(`{"__metadata__":{"a":"`+strings.Repeat("x", 17<<20)+`"}}`, 0), `metadata "a" has 17825792 bytes, more than 16777216`},
		{"lfs", []byte("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"), "is a Git LFS pointer, not a model"},
		{"page", []byte("<!DOCTYPE html><html><head><title>x</title>"), "is a web page, not a model"},
		{"answer", []byte(`{"error":"there is no such model here"}`), "is a JSON text, not a model"},
		{"text", []byte("Access denied, please log in first.\n"), "is a text file, not a model"},
		{"gguf", []byte("GGUF\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), "is a GGUF file, not a model"},
		{"picture", []byte("\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"), "is a picture (PNG), not a model"},
	}
}

// Every tool says of every file that can't be read what is wrong and what to do, and writes nothing.
func TestToolsRefuseDamagedFiles(t *testing.T) {
	w := newTools(t)
	for _, d := range damaged() {
		w.write(d.name, d.data)
		for _, line := range everyTool {
			w.refused(4, d.words, with(line, d.name)...)
		}
		if err := os.Remove(w.path(d.name)); err != nil {
			t.Fatal(err)
		}
	}
}

// Names under which there is no file that can be read: nothing waits for a pipe's writer.
func TestToolsRefuseWhatIsNoFile(t *testing.T) {
	w := newTools(t)
	for _, make := range []error{syscall.Mkfifo(w.path("pipe"), 0o644), os.Symlink("circle", w.path("circle")), os.Symlink("nowhere", w.path("dangling")), os.Mkdir(w.path("folder"), 0o755)} {
		if make != nil {
			t.Fatal(make)
		}
	}
	for name, words := range map[string]string{
		"pipe": "is not a regular file but a pipe, a device or the like", "circle": "is a symbolic link that leads in a circle", "dangling": "there is no such file", "none": "there is no such file",
		"folder": "folder", strings.Repeat("n", 300): "the name is too long", "a.safetensors/x": "can't be opened: not a directory",
	} {
		for _, line := range everyTool {
			w.refused(4, words, with(line, name)...)
		}
	}
	if err := os.Symlink("/dev/null", w.path("device")); err != nil {
		t.Fatal(err)
	}
	for _, line := range everyTool {
		w.refused(4, "is not a regular file but a pipe, a device or the like", with(line, "device")...)
	}
}

// Files of torch's: only convert reads them, and never what would run code.
func TestToolsRefusePickles(t *testing.T) {
	w := newTools(t)
	evil, err := hex.DecodeString("800263706f7369780a73797374656d0a2858040000007472756574522e")
	if err != nil {
		t.Fatal(err)
	}
	w.write("evil.ckpt", evil)
	archive := func(name string, members map[string][]byte) {
		var b bytes.Buffer
		z := zip.NewWriter(&b)
		for member, data := range members {
			f, err := z.Create(member)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.Write(data); err != nil {
				t.Fatal(err)
			}
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		w.write(name, b.Bytes())
	}
	archive("evil.pt", map[string][]byte{"archive/data.pkl": evil})
	archive("other.zip", map[string][]byte{"../../x": evil})
	archive("bomb.pt", map[string][]byte{"archive/data.pkl": make([]byte, 100<<20)})
	w.write("short.pt", w.read("evil.pt")[:60])
	for name, words := range map[string]string{"evil.ckpt": `wants to run code when opened ("posix.system"); refused`, "evil.pt": `wants to run code when opened ("posix.system"); refused`,
		"other.zip": "is a zip archive that torch did not write", "bomb.pt": `entry "archive/data.pkl" that expands to more than`, "short.pt": "is damaged: not a whole zip archive"} {
		for _, line := range everyTool {
			if line[0] == "convert" {
				w.refused(4, words, with(line, name)...)
			} else {
				w.refused(4, "PyTorch", with(line, name)...)
				w.refused(4, "lycoris convert --in", with(line, name)...)
			}
		}
	}
}

// adapt copies a.safetensors, or another file, with tensors changed: change is asked for each one and returns it, or a name of "" to drop it.
func (w *tools) adapt(from, to string, change func(n tensor.Named) tensor.Named) {
	w.t.Helper()
	f, err := tensor.OpenFile(w.path(from))
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	var all []tensor.Named
	changed := false
	for _, name := range f.Names() {
		v, err := f.Read(name)
		if err != nil {
			w.t.Fatal(err)
		}
		n := change(tensor.Named{Name: name, Tensor: v})
		changed = changed || n.Name != name || !bytes.Equal(n.Data, v.Data) || !slices.Equal(n.Shape, v.Shape)
		if n.Name != "" {
			all = append(all, n)
		}
	}
	if !changed {
		w.t.Fatalf("%s: nothing changed", to)
	}
	if err := tensor.WriteFile(w.path(to), all, f.Metadata()); err != nil {
		w.t.Fatal(err)
	}
}

// Adapters whose header is sound and whose tensors aren't a whole adapter for the model.
func TestToolsRefuseBrokenAdapters(t *testing.T) {
	w := newTools(t)
	const module = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
	first := func(suffix string, change func(n tensor.Named) tensor.Named) func(tensor.Named) tensor.Named {
		return func(n tensor.Named) tensor.Named {
			if n.Name == module+suffix {
				return change(n)
			}
			return n
		}
	}
	value := func(x float64) func(tensor.Named) tensor.Named {
		return func(n tensor.Named) tensor.Named {
			v := n.Float32()
			v[0] = float32(x)
			n.Tensor = tensor.FromFloat32(tensor.F32, n.Shape, v)
			return n
		}
	}
	rename := func(name string) func(tensor.Named) tensor.Named {
		return func(n tensor.Named) tensor.Named { n.Name = name; return n }
	}
	merge := []string{"merge", "--model", "@m.safetensors", "--adapter", "@x.safetensors", "--out", "@never.safetensors"}
	resize := []string{"resize", "--in", "@x.safetensors", "--dim", "1", "--out", "@never.safetensors"}
	rewrite := []string{"convert", "--in", "@x.safetensors", "--to", "diffusers", "--out", "@never.safetensors"}
	keep := []string{"convert", "--in", "@x.safetensors", "--dtype", "fp16", "--out", "@never.safetensors"}
	look := []string{"inspect", "@x.safetensors"}
	for _, c := range []struct {
		what   string
		change func(tensor.Named) tensor.Named
		words  string
		by     [][]string
	}{
		{"NaN", first(".lora_up.weight", value(math.NaN())), `.lora_up.weight" holds 1 NaN or infinite values, the first at index 0`, [][]string{merge, resize, rewrite, keep}},
		{"infinite", first(".lora_down.weight", value(math.Inf(-1))), `.lora_down.weight" holds 1 NaN or infinite values, the first at index 0`, [][]string{merge, resize, rewrite, keep}},
		{"NaN alpha", first(".alpha", value(math.NaN())), `.alpha" holds 1 NaN or infinite values`, [][]string{merge, resize, rewrite, keep}},
		{"alpha of two", first(".alpha", func(n tensor.Named) tensor.Named {
			n.Tensor = tensor.FromFloat32(tensor.F32, []int{2}, []float32{1, 1})
			return n
		}), "alpha", [][]string{merge, resize, rewrite}},
		{"half a pair", first(".lora_down.weight", rename("")), "have no partner (lora_up without lora_down or the like)", [][]string{merge, resize, rewrite, look}},
		{"unknown suffix", first(".alpha", rename(module+".lora_magic")), "lora_magic", [][]string{merge, resize, rewrite, look}},
		{"no such layer", func(n tensor.Named) tensor.Named {
			n.Name = strings.Replace(n.Name, "mid_block", "mad_block", 1)
			return n
		}, "belong to no layer", [][]string{merge, rewrite, look}},
		{"SDXL", func(n tensor.Named) tensor.Named {
			n.Name = strings.Replace(n.Name, "lora_te_", "lora_te2_", 1)
			return n
		}, "SDXL", [][]string{merge}},
		{"ranks", first(".lora_down.weight", func(n tensor.Named) tensor.Named {
			n.Tensor = tensor.FromFloat32(tensor.F32, []int{1, n.Shape[1]}, n.Float32()[:n.Shape[1]])
			return n
		}), "the ranks don't match", [][]string{merge, resize, rewrite, look}},
		{"inputs", first(".lora_down.weight", func(n tensor.Named) tensor.Named {
			n.Tensor = tensor.FromFloat32(tensor.F32, []int{2, n.Shape[1] / 2}, n.Float32()[:n.Shape[1]])
			return n
		}), "shape", [][]string{merge}},
		{"empty", func(n tensor.Named) tensor.Named { n.Name = ""; return n }, "holds no ", [][]string{merge, resize, rewrite, look}},
	} {
		t.Run(c.what, func(t *testing.T) {
			w.t = t
			w.adapt("a.safetensors", "x.safetensors", c.change)
			for _, line := range c.by {
				w.refused(4, c.words, line...)
			}
		})
	}
	w.t = t
	// A value of the model that isn't finite: refused where it would be changed, told where it is copied.
	spoil := func(part string) {
		done := false
		w.adapt("m.safetensors", "nan.safetensors", func(n tensor.Named) tensor.Named {
			if !done && strings.Contains(n.Name, part) {
				done = true
				v := n.Float32()
				v[1] = float32(math.NaN())
				n.Tensor = tensor.FromFloat32(n.DType, n.Shape, v)
			}
			return n
		})
	}
	spoil("attn1.to_q.weight")
	w.refused(4, "holds NaN or infinite values, the first at index 1", "merge", "--model", "@nan.safetensors", "--adapter", "@a.safetensors", "--out", "@never.safetensors")
	spoil("first_stage_model.")
	if code, _, said := w.run(context.Background(), "merge", "--model", "@nan.safetensors", "--adapter", "@a.safetensors", "--out", "@copied.safetensors"); code != 0 || !strings.Contains(said, "warn: 1 tensors that were copied hold NaN") {
		t.Errorf("exit %d\n%s", code, said)
	}
	// No alpha: scale 1, one line.
	w.adapt("a.safetensors", "x.safetensors", func(n tensor.Named) tensor.Named {
		if strings.HasSuffix(n.Name, ".alpha") {
			n.Name = ""
		}
		return n
	})
	for _, line := range [][]string{merge, resize} {
		code, _, said := w.run(context.Background(), append(line, "--force", "--progress", "none")...)
		if code != 0 || strings.Count(said, "alpha") != 1 || !strings.Contains(said, "scale") {
			t.Errorf("%q without alpha: exit %d\n%s", line, code, said)
		}
	}
}
