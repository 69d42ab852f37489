package tensor

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
)

// temporary matches the names that tempName makes.
var temporary = regexp.MustCompile(`^\.lycoris-[0-9a-f]{12}\.tmp$`)

func tempName(folder string) string {
	var word [6]byte
	rand.Read(word[:])
	return filepath.Join(folder, TempPrefix+hex.EncodeToString(word[:])+TempSuffix)
}

// claim takes the lock that says that the file or folder at path, just made, is being written; it is held until guard is closed. guard is nil where there can't be one.
// A sweep that was faster has the lock and is about to remove what is at path: that isn't ok.
func claim(path string) (guard *os.File, ok bool) {
	guard, err := os.Open(path)
	if err != nil {
		return nil, !errors.Is(err, fs.ErrNotExist)
	}
	if err := lock(guard); err != nil {
		guard.Close()
		return nil, !errors.Is(err, errLocked)
	}
	there, err := os.Lstat(path)
	mine, mineErr := guard.Stat()
	if err != nil || mineErr != nil || !os.SameFile(there, mine) {
		guard.Close()
		return nil, false
	}
	return guard, true
}

// TempFolder makes a folder under a temporary name in parent. Done with it, remove it, if it still has that name, and close guard, which may be nil.
func TempFolder(parent string) (path string, guard *os.File, err error) {
	for {
		path := tempName(parent)
		if err := os.Mkdir(path, 0o777); errors.Is(err, fs.ErrExist) {
			continue
		} else if err != nil {
			return "", nil, err
		}
		if guard, ok := claim(path); ok {
			return path, guard, nil
		}
		os.Remove(path)
	}
}

// PlaceFolder gives the finished folder temp its name, path; what was there is removed. It changes place with temp in one step where the system can do that. Where it can't
// it is called path.old for a moment, so that a process that is killed then leaves it under a name that tells what it is.
func PlaceFolder(temp, path string) error {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return os.Rename(temp, path)
	}
	if exchange(temp, path) == nil {
		return os.RemoveAll(temp)
	}
	old := path + ".old"
	if err := os.Rename(path, old); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		os.Rename(old, path)
		return err
	}
	return os.RemoveAll(old)
}

// Writable returns an error, of kind fault.Output, if no file can be made at path: a name that is too long, a folder that is read-only, a disk without room for one more file.
func Writable(path string) error {
	folder := filepath.Dir(path)
	if _, err := os.Lstat(path); errors.Is(err, syscall.ENAMETOOLONG) {
		return writeError(path, folder, 0, err)
	}
	f, guard, err := createTemp(folder)
	if err != nil {
		return writeError(path, folder, 0, err)
	}
	defer guard.Close() // nil is harmless
	defer f.Close()
	return os.Remove(f.Name())
}

// Sweep removes what processes that were killed have left half-written in a folder: temporary files and folders that nobody has locked. It does what it can.
func Sweep(folder string) {
	entries, _ := os.ReadDir(folder)
	for _, e := range entries {
		if !temporary.MatchString(e.Name()) || !e.Type().IsRegular() && !e.IsDir() {
			continue
		}
		path := filepath.Join(folder, e.Name())
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		if lock(f) == nil {
			os.RemoveAll(path)
		}
		f.Close()
	}
}

// errLocked says that another has the lock.
var errLocked = errors.New("locked")
