package testutil

import (
	"os"
	"path/filepath"
	"testing"

	"lycoris/internal/tensor"
)

// Root returns the folder of the checkout: the one with go.mod.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatal("no go.mod above the test")
		}
		dir = up
	}
}

// GoldenPath returns the path of a file under testdata/golden.
func GoldenPath(t testing.TB, parts ...string) string {
	return filepath.Join(append([]string{Root(t), "testdata", "golden"}, parts...)...)
}

// Tensors reads a whole safetensors file.
func Tensors(t testing.TB, path string) map[string]tensor.Tensor {
	t.Helper()
	f, err := tensor.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all := map[string]tensor.Tensor{}
	for _, name := range f.Names() {
		if all[name], err = f.Read(name); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// ChannelsLast reorders [N,C,H,W] to [N,H,W,C].
func ChannelsLast(x tensor.Tensor) []float32 {
	n, c, p := x.Shape[0], x.Shape[1], tensor.Elems(x.Shape[2:])
	return swap(x.Float32(), n, c, p)
}

// ChannelsFirst reorders values [N,P,C] to [N,C,P].
func ChannelsFirst(v []float32, n, pixels, c int) []float32 { return swap(v, n, pixels, c) }

// swap transposes each item [A,B] of [N,A,B].
func swap(v []float32, n, a, b int) []float32 {
	out := make([]float32, len(v))
	for i := range n {
		for j := range a {
			for k := range b {
				out[(i*b+k)*a+j] = v[(i*a+j)*b+k]
			}
		}
	}
	return out
}
