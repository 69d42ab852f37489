package tensor

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"lycoris/internal/fault"
)

func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return strings.Join(list, " ")
}

// TestWriteAtomicFails: whatever fails, the old file is intact and nothing else is left.
func TestWriteAtomicFails(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.json")
	if err := WriteAtomic(path, func(w io.Writer) error { _, err := w.Write([]byte("old")); return err }); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		err   error
		kind  fault.Kind
		words string
	}{
		{"full disk", syscall.ENOSPC, fault.Output, "the disk is too full: needs 3 bytes, "},
		{"quota", syscall.EDQUOT, fault.Output, "the disk is too full"},
		{"file size limit", syscall.EFBIG, fault.Output, "larger than this process may write"},
		{"I/O error", syscall.EIO, fault.Output, "can't be written: input/output error"},
		{"a fault of its own", fault.BadInput("b", "is odd"), fault.Input, "b: is odd"},
	} {
		err := WriteAtomic(path, func(w io.Writer) error {
			w.Write([]byte("new"))
			if f, ok := w.(interface{ Flush() error }); ok {
				f.Flush()
			}
			return c.err
		})
		wantFault(t, err, c.kind, c.words)
		if !errors.Is(err, c.err) {
			t.Errorf("%s: the cause is lost", c.name)
		}
		if got, _ := os.ReadFile(path); string(got) != "old" || names(t, dir) != "a.json" {
			t.Errorf("%s: %q is left, with %q", c.name, names(t, dir), got)
		}
	}
}

func TestWriteAtomicPlaces(t *testing.T) {
	dir := t.TempDir()
	put := func(w io.Writer) error { return nil }
	wantFault(t, WriteAtomic(filepath.Join(dir, "no", "a"), put), fault.Output, "does not exist")
	wantFault(t, WriteAtomic(dir, put), fault.Output, "is a folder")
	wantFault(t, WriteAtomic(filepath.Join(dir, strings.Repeat("x", 300)), put), fault.Output, "the name is too long")
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	wantFault(t, WriteAtomic(filepath.Join(dir, "file", "a"), put), fault.Output, "is not a folder")
	if got := names(t, dir); got != "file" {
		t.Errorf("left: %q", got)
	}
}

// TestWriteNeedsSpace: what can't fit is refused before anything is written.
func TestWriteNeedsSpace(t *testing.T) {
	dir := t.TempDir()
	if FreeSpace(dir) < 0 {
		t.Skip("this system doesn't tell the free space")
	}
	called := false
	err := WriteStream(filepath.Join(dir, "big"), []Lazy{{"a", U8, []int{1 << 55}, func() ([]byte, error) { called = true; return nil, nil }}}, nil)
	wantFault(t, err, fault.Output, "the disk is too full: needs 36028797.02 GB")
	if called || names(t, dir) != "" {
		t.Errorf("called %t, left %q", called, names(t, dir))
	}
}

// TestStreamFails: an error while a tensor is made comes out as it is.
func TestStreamFails(t *testing.T) {
	dir := t.TempDir()
	cause := fault.BadInput("base", "is gone")
	err := WriteStream(filepath.Join(dir, "x"), []Lazy{{"a", U8, []int{1}, func() ([]byte, error) { return nil, cause }}}, nil)
	if !errors.Is(err, cause) || names(t, dir) != "" {
		t.Errorf("got %v, left %q", err, names(t, dir))
	}
}

func TestFormatBytes(t *testing.T) {
	for n, want := range map[int64]string{0: "0 bytes", 999: "999 bytes", 1500: "1.5 kB", 2_132_625_894: "2.13 GB", 12_000_000: "12.0 MB"} {
		if got := FormatBytes(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}
