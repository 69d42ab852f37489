package tensor

import (
	"errors"
	"os"
	"path/filepath"

	"lycoris/internal/fault"
)

// WriteFolder makes a folder all or nothing: fill writes into a temporary one beside it, which then takes the name path. size is what will be written (0: it isn't known); the
// free space is compared first. A folder that stands there, which the caller said may go, is replaced only if it is empty or holds a file called mark: a slip of the
// command line shall not remove somebody's pictures.
func WriteFolder(path string, size int64, mark string, fill func(temp string) error) error {
	path = filepath.Clean(path)
	parent := filepath.Dir(path)
	if err := CheckSpace(path, size); err != nil {
		return err
	}
	if err := replaceable(path, mark); err != nil {
		return err
	}
	temp, guard, err := TempFolder(parent)
	if err != nil {
		return writeError(path, parent, size, err)
	}
	defer guard.Close() // nil is harmless
	defer os.RemoveAll(temp)
	if err := fill(temp); err != nil {
		var known *fault.Error
		if errors.As(err, &known) && known.Kind == fault.Output {
			known.Path = path
		}
		return err
	}
	if err := PlaceFolder(temp, path); err != nil {
		return writeError(path, parent, size, err)
	}
	return nil
}

// replaceable refuses what isn't a folder of the kind that is written in its place.
func replaceable(path, mark string) error {
	stat, err := os.Lstat(path)
	if err != nil {
		return nil
	}
	if !stat.IsDir() {
		return fault.BadOutput(path, "is not a folder, and a folder is written").Advise("write to another place")
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return writeError(path, path, 0, err)
	}
	if _, err := os.Stat(filepath.Join(path, mark)); err != nil && len(entries) > 0 {
		return fault.BadOutput(path, "is a folder with other things in it: it has no %s", mark).Advise("write to another folder")
	}
	return nil
}
