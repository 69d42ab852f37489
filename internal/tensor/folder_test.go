package tensor

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"lycoris/internal/fault"
)

// TestWriteFolder: a folder appears whole or not at all, and replaces only one of its kind.
func TestWriteFolder(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "m")
	put := func(text string) func(string) error {
		return func(temp string) error { return os.WriteFile(filepath.Join(temp, "mark"), []byte(text), 0o666) }
	}
	read := func() string { text, _ := os.ReadFile(filepath.Join(path, "mark")); return string(text) }
	if err := WriteFolder(path, 10, "mark", put("one")); err != nil || read() != "one" {
		t.Fatalf("%q, %v", read(), err)
	}
	broken := errors.New("broken")
	if err := WriteFolder(path, 10, "mark", func(string) error { return broken }); !errors.Is(err, broken) || read() != "one" {
		t.Errorf("%q, %v", read(), err)
	}
	if err := WriteFolder(path, 10, "mark", put("two")); err != nil || read() != "two" {
		t.Errorf("%q, %v", read(), err)
	}
	wantFault(t, WriteFolder(path, 10, "other", put("three")), fault.Output, "other things in it")
	wantFault(t, WriteFolder(filepath.Join(dir, "none", "m"), 10, "mark", put("x")), fault.Output, "does not exist")
	wantFault(t, WriteFolder(path, 1<<62, "mark", put("x")), fault.Output, "free")
	if read() != "two" {
		t.Errorf("the folder holds %q", read())
	}
	if left := names(t, dir); left != "m" {
		t.Errorf("the folder has %s", left)
	}
}
