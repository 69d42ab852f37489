package tensor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"lycoris/internal/fault"
)

// TempPrefix and TempSuffix surround the names of files and folders that are being written. Their writer holds a lock on them; one that nobody has locked is left over
// from a process that was killed, and [Sweep] removes it.
const (
	TempPrefix = ".lycoris-"
	TempSuffix = ".tmp"
)

// WriteAtomic writes a file all or nothing: write fills a temporary file in the same folder, which is flushed to disk and then takes the name
// path; last, the folder is flushed. On any failure nothing is left and what stood at path is intact. Errors are of kind
// fault.Output, except those of write that carry a kind of their own.
func WriteAtomic(path string, write func(io.Writer) error) error {
	return writeAtomic(path, 0, write)
}

// writeAtomic is WriteAtomic for a file of which the size is known (0: it isn't): the free space is compared first.
func writeAtomic(path string, size int64, write func(io.Writer) error) error {
	return replace(path, size, func(f *os.File, written *int64) error {
		counted := &countWriter{w: f}
		buffered := bufio.NewWriterSize(counted, 1<<20)
		err := write(buffered)
		if err == nil {
			err = buffered.Flush()
		}
		*written = counted.n
		return err
	})
}

// replace makes the file at path anew: fill writes to a file beside it, which takes its name when everything is on the disk. fill keeps count of what it has written.
func replace(path string, size int64, fill func(f *os.File, written *int64) error) (err error) {
	folder := filepath.Dir(path)
	if err := CheckSpace(path, size); err != nil {
		return err
	}
	if stat, err := os.Stat(path); err == nil && stat.IsDir() {
		return fault.BadOutput(path, "is a folder").Advise("give the name of a file")
	}
	f, guard, err := createTemp(folder)
	if err != nil {
		return writeError(path, folder, size, err)
	}
	defer guard.Close() // nil is harmless
	defer func() {
		if err != nil {
			f.Close() // a second close is harmless
			os.Remove(f.Name())
		}
	}()
	var written int64
	if err := fill(f, &written); err != nil {
		var known *fault.Error
		if errors.As(err, &known) || errors.Is(err, context.Canceled) {
			return err
		}
		return writeError(path, folder, max(size, written), err)
	}
	for _, step := range []func() error{f.Sync, f.Close, func() error { return os.Rename(f.Name(), path) }, func() error { return syncFolder(folder) }} {
		if err := step(); err != nil {
			return writeError(path, folder, max(size, written), err)
		}
	}
	return nil
}

type countWriter struct {
	w io.Writer
	n int64
}

func (c *countWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// createTemp makes a temporary file. Nobody takes it for left over until guard, which may be nil, is closed.
func createTemp(folder string) (f, guard *os.File, err error) {
	for {
		f, err := os.OpenFile(tempName(folder), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		if guard, ok := claim(f.Name()); ok {
			return f, guard, nil
		}
		f.Close()
		os.Remove(f.Name())
	}
}

// syncFolder makes a rename in the folder durable. File systems that can't flush a folder (EINVAL, ENOTSUP) do without.
func syncFolder(folder string) error {
	d, err := os.Open(folder)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOTSUP) {
		return err
	}
	return nil
}

// CheckSpace returns an error, of kind fault.Output, if the disk of path has no room for a file or folder of so many bytes.
func CheckSpace(path string, size int64) error {
	if free := FreeSpace(filepath.Dir(path)); size > 0 && free >= 0 && free < size {
		return spaceError(path, size, free)
	}
	return nil
}

func spaceError(path string, need, free int64) *fault.Error {
	return fault.BadOutput(path, "the disk is too full: needs %s, %s free", FormatBytes(need), FormatBytes(free)).Advise("make room or write to another disk")
}

// writeError says why a file couldn't be written.
func writeError(path, folder string, need int64, err error) error {
	var e *fault.Error
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		e = spaceError(path, need, max(FreeSpace(folder), 0))
	case errors.Is(err, fs.ErrNotExist):
		e = fault.BadOutput(path, "the folder %q does not exist", folder).Advise("make it first: mkdir -p %q", folder)
	case errors.Is(err, syscall.ENOTDIR):
		e = fault.BadOutput(path, "%q is not a folder", folder).Advise("write to a file in a folder that exists")
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		e = fault.BadOutput(path, "the folder %q is read-only for this user", folder).Advise("write to another folder")
	case errors.Is(err, syscall.ENAMETOOLONG):
		e = fault.BadOutput(path, "the name is too long").Advise("give it a shorter one")
	case errors.Is(err, syscall.EFBIG):
		e = fault.BadOutput(path, "the file would be larger than this process may write").Advise("raise the limit (ulimit -f), or write to another disk")
	default:
		var pathErr *fs.PathError
		if errors.As(err, &pathErr) {
			err = fmt.Errorf("%s: %w", pathErr.Op, pathErr.Err)
		}
		return fault.BadOutput(path, "can't be written: %w", err).Advise("check the disk, or write to another one")
	}
	e.Err = err
	return e
}

// FormatBytes writes a size for people, in decimal units as disks are sold: 2.13 GB.
func FormatBytes(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.2f GB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	case n >= 1e3:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%d bytes", n)
}
