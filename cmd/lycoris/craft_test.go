package main

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"image"
	"image/color"
	"image/png"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"lycoris/internal/rng"
	"lycoris/internal/tensor"
)

// craft are the commands of the scripts that make inputs, mostly bad ones, and look at what a command left.
var craft = map[string]func(*testscript.TestScript, bool, []string){
	"picture": picture, "pngsize": pngSize, "cut": cut, "bytes": writeBytes, "safetensors": emptyTensors, "spoil": spoil,
	"refused": refused, "whole": whole, "await": await, "same": same,
}

func usage(ts *testscript.TestScript, neg bool, ok bool, text string) {
	if neg || !ok {
		ts.Fatalf("usage: %s", text)
	}
}

func number(ts *testscript.TestScript, s string) int {
	n, err := strconv.Atoi(s)
	ts.Check(err)
	return n
}

// picture writes a picture of noise: picture cat.png 80 64 SEED.
func picture(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 4, "picture FILE WIDTH HEIGHT SEED")
	m := image.NewNRGBA(image.Rect(0, 0, number(ts, args[1]), number(ts, args[2])))
	s := rng.New(uint64(number(ts, args[3])), "picture", 0, 0)
	for y := range m.Rect.Dy() {
		for x := range m.Rect.Dx() {
			v := s.Uint32()
			m.SetNRGBA(x, y, color.NRGBA{byte(v), byte(v >> 8), byte(v >> 16), 255})
		}
	}
	ts.Check(os.MkdirAll(filepath.Dir(ts.MkAbs(args[0])), 0o755))
	f, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Check(png.Encode(f, m))
	ts.Check(f.Close())
}

// pngSize makes a PNG file claim another size, with a right checksum: pngsize bomb.png 60000 30000.
func pngSize(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 3, "pngsize FILE WIDTH HEIGHT")
	b, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	binary.BigEndian.PutUint32(b[16:], uint32(number(ts, args[1])))
	binary.BigEndian.PutUint32(b[20:], uint32(number(ts, args[2])))
	binary.BigEndian.PutUint32(b[29:], crc32.ChecksumIEEE(b[12:29]))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o644))
}

// cut makes a file shorter: cut m.safetensors 1000.
func cut(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 2, "cut FILE BYTES")
	ts.Check(os.Truncate(ts.MkAbs(args[0]), int64(number(ts, args[1]))))
}

// writeBytes writes bytes given in hexadecimal, or overwrites a file's from an offset on: bytes a.txt 61ff62; bytes a.txt @300 ff.
func writeBytes(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 2 || len(args) == 3, "bytes FILE [@OFFSET] HEX")
	b, err := hex.DecodeString(args[len(args)-1])
	ts.Check(err)
	path := ts.MkAbs(args[0])
	if len(args) == 2 {
		ts.Check(os.WriteFile(path, b, 0o644))
		return
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	ts.Check(err)
	_, err = f.WriteAt(b, int64(number(ts, strings.TrimPrefix(args[1], "@"))))
	ts.Check(err)
	ts.Check(f.Close())
}

// emptyTensors writes a safetensors file of zeros: safetensors x.safetensors encoder.conv_in.weight=2,4 …
func emptyTensors(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) >= 2, "safetensors FILE NAME=SHAPE...")
	var all []tensor.Named
	for _, a := range args[1:] {
		name, text, _ := strings.Cut(a, "=")
		var shape []int
		for _, n := range strings.Split(text, ",") {
			shape = append(shape, number(ts, n))
		}
		all = append(all, tensor.Named{Name: name, Tensor: tensor.FromFloat32(tensor.F32, shape, make([]float32, tensor.Elems(shape)))})
	}
	ts.Check(tensor.WriteFile(ts.MkAbs(args[0]), all, nil))
}

// spoil copies an adapter and does something to the first tensor whose name matches: spoil a.safetensors b.safetensors WHAT REGEXP [NEW].
// WHAT is drop, keep (nothing else), nan, narrow (the last axis halved), or rename, which replaces the match by NEW.
func spoil(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 4 || len(args) == 5, "spoil FROM TO WHAT REGEXP [NEW]")
	f, err := tensor.OpenFile(ts.MkAbs(args[0]))
	ts.Check(err)
	defer f.Close()
	re := regexp.MustCompile(args[3])
	var all []tensor.Named
	found := false
	for _, name := range f.Names() {
		t, err := f.Read(name)
		ts.Check(err)
		n := tensor.Named{Name: name, Tensor: t}
		if match := re.MatchString(name); found || !match {
			if args[2] != "keep" || match {
				all = append(all, n)
			}
			continue
		}
		found = true
		switch v := t.Float32(); args[2] {
		case "drop":
			continue
		case "nan":
			v[0] = float32(math.NaN())
			n.Tensor = tensor.FromFloat32(t.DType, t.Shape, v)
		case "narrow":
			shape := append([]int(nil), t.Shape...)
			shape[len(shape)-1] /= 2
			n.Tensor = tensor.FromFloat32(t.DType, shape, v[:len(v)/2])
		case "rename":
			n.Name = re.ReplaceAllString(name, args[4])
		}
		all = append(all, n)
	}
	if !found {
		ts.Fatalf("no tensor of %s matches %s", args[0], args[3])
	}
	ts.Check(tensor.WriteFile(ts.MkAbs(args[1]), all, f.Metadata()))
}

// refused wants `lycoris train -q --config run.yaml ARG...` to end with the code and one error whose first line matches, with an advice
// below it unless it is about a value (2), and to leave no run folder: refused 4 '^error: …$' --model none.
func refused(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) >= 2, "refused CODE REGEXP [ARG...]")
	exits(ts, false, append([]string{args[0], "lycoris", "train", "-q", "--config", "run.yaml"}, args[2:]...))
	if out := ts.ReadFile("stdout"); out != "" {
		ts.Fatalf("standard output: %q, want nothing", out)
	}
	lines := strings.Split(strings.TrimRight(ts.ReadFile("stderr"), "\n"), "\n")
	var errs []int
	for i, l := range lines {
		if strings.HasPrefix(l, "error: ") {
			errs = append(errs, i)
		}
	}
	if len(errs) != 1 || !regexp.MustCompile(args[1]).MatchString(lines[errs[0]]) {
		ts.Fatalf("want one error that matches %s", args[1])
	}
	if args[0] != "2" && errs[0] == len(lines)-1 {
		ts.Fatalf("the error says what is wrong and not what to do")
	}
	if _, err := os.Lstat(ts.MkAbs("runs")); err == nil {
		ts.Fatalf("a folder of runs is left")
	}
	whole(ts, false, []string{"."})
}

// whole wants nothing half-written below a folder: no temporary files or folders.
func whole(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 1, "whole FOLDER")
	ts.Check(wholeFolder(ts.MkAbs(args[0])))
}

// wholeFolder is whole without a script.
func wholeFolder(dir string) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrPermission) {
			return nil // a folder that a script closed
		}
		if err != nil {
			return err
		}
		switch name := e.Name(); {
		case strings.HasPrefix(name, tensor.TempPrefix) || strings.HasPrefix(name, ".tmp-") || strings.HasSuffix(name, tensor.TempSuffix) && name != ".tmp":
			return &fs.PathError{Op: "left over", Path: path, Err: fs.ErrExist}
		}
		return nil
	})
}

// await waits until a file exists, at most a minute: await runs/x/run.json.
func await(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 1, "await FILE")
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if _, err := os.Stat(ts.MkAbs(args[0])); err == nil {
			return
		}
	}
	ts.Fatalf("no %s after a minute", args[0])
}

// same wants two files of the same bytes, or, with !, of others; unlike cmp it doesn't print them.
func same(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, false, len(args) == 2, "same FILE FILE")
	a, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	b, err := os.ReadFile(ts.MkAbs(args[1]))
	ts.Check(err)
	if bytes.Equal(a, b) == neg {
		ts.Fatalf("%s and %s: equal is %v", args[0], args[1], neg)
	}
}
