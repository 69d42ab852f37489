package runs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"lycoris/internal/fault"
	"lycoris/internal/tensor"
)

// tempPrefix begins the name of folders that aren't whole yet; files have tensor's own.
const tempPrefix = ".tmp-"

// isTemp reports whether a name is that of something unfinished.
func isTemp(name string) bool {
	return strings.HasPrefix(name, tempPrefix) || strings.HasPrefix(name, tensor.TempPrefix) && strings.HasSuffix(name, tensor.TempSuffix)
}

// writeFile replaces path atomically with data.
func writeFile(path string, data []byte) error {
	return tensor.WriteAtomic(path, func(w io.Writer) error { _, err := w.Write(data); return err })
}

// syncDir makes the names in a folder durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return outputError(dir, err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTSUP) {
		return outputError(dir, err)
	}
	return nil
}

// removeLeftOvers removes what an earlier process didn't finish.
func removeLeftOvers(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if isTemp(e.Name()) {
			os.RemoveAll(filepath.Join(dir, e.Name()))
		}
	}
}

// outputError says why something can't be written, in words; an error that is a fault already stays what it is.
func outputError(path string, err error) error {
	var fe *fault.Error
	if errors.As(err, &fe) {
		return err
	}
	e := &fault.Error{Kind: fault.Output, Path: path, Err: err}
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		e.Message = "can't be written: the disk is full"
		if free := tensor.FreeSpace(filepath.Dir(path)); free >= 0 {
			e.Message += fmt.Sprintf(" (%s free)", tensor.FormatBytes(free))
		}
		e.Advice = "make room, then continue with --resume"
	case errors.Is(err, unix.EFBIG):
		e.Message = "can't be written: the file would be larger than this process may write"
		e.Advice = "raise the limit (ulimit -f), then continue with --resume"
	case errors.Is(err, unix.EROFS):
		e.Message, e.Advice = "can't be written: the file system is read-only", "give a folder that can be written: --out DIR"
	case errors.Is(err, fs.ErrPermission):
		e.Message, e.Advice = "can't be written: no permission", "give a folder of your own: --out DIR"
	case errors.Is(err, unix.ENOTDIR):
		e.Message, e.Advice = "can't be made: a part of the path is a file", "give another folder: --out DIR"
	case errors.Is(err, fs.ErrExist):
		e.Message, e.Advice = "exists and is not a folder", "give another folder: --out DIR"
	case errors.Is(err, unix.ENAMETOOLONG):
		e.Message, e.Advice = "can't be made: the name is too long", "give a shorter one: --out DIR, --name NAME"
	default:
		e.Message = fmt.Sprintf("can't be written: %v", plainCause(err))
	}
	return e
}

// plainCause strips the operation and the path that package os puts before the cause.
func plainCause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// CheckSpace returns a fault.Output error when fewer than need bytes are free for the run; where the file system doesn't tell, it is nil.
func (r *Run) CheckSpace(need int64) error {
	free := tensor.FreeSpace(r.dir)
	if free < 0 || free >= need {
		return nil
	}
	e := fault.BadOutput(r.dir, "the disk is too full: needs %s, %s free", tensor.FormatBytes(need), tensor.FormatBytes(free))
	if r.Worthless() {
		return e.Advise("make room, or give another folder: --out DIR")
	}
	return e.Advise("make room, then continue with --resume %s", r.dir)
}

// sortedKeys returns the keys of m in order.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
