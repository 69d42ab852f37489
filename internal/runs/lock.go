package runs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"lycoris/internal/fault"
)

// lock is the ownership of a run folder. The folder itself is locked too, so that deleting the file doesn't make room for a second owner.
type lock struct {
	dir  *os.File
	file *os.File
}

// lockPatience is how long a start waits for a reader that looks at the lock.
const lockPatience = 300 * time.Millisecond

// takeLock locks a run folder, or says who holds it. The kernel gives the lock back when the process ends, however it ends.
func takeLock(dir string) (*lock, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, outputError(dir, err)
	}
	path := filepath.Join(dir, lockName)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		d.Close()
		return nil, outputError(path, err)
	}
	l := &lock{dir: d, file: f}
	for _, h := range []*os.File{d, f} {
		if err := flockPatiently(h); err != nil {
			defer l.release()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, busy(dir, path)
			}
			return nil, fault.BadOutput(dir, "its file system has no locks: %w", err).Advise("put the runs on a local disk: --out DIR")
		}
	}
	text := fmt.Sprintf("pid %d\nsince %s\n", os.Getpid(), time.Now().Format(time.RFC3339))
	if err := f.Truncate(0); err == nil {
		_, err = f.WriteAt([]byte(text), 0)
		if err == nil {
			return l, nil
		}
	}
	l.release()
	return nil, outputError(path, err)
}

// flockPatiently takes an exclusive lock; a reader holds it shared for an instant only.
func flockPatiently(f *os.File) error {
	for deadline := time.Now().Add(lockPatience); ; time.Sleep(20 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) || time.Now().After(deadline) {
			return err
		}
	}
}

// busy names the owner of a locked folder.
func busy(dir, path string) error {
	var pid int
	var since string
	data, _ := os.ReadFile(path)
	for line := range strings.Lines(string(data)) {
		fmt.Sscanf(line, "pid %d", &pid)
		fmt.Sscanf(line, "since %s", &since)
	}
	who := "another process"
	if pid > 0 {
		who = fmt.Sprintf("process %d", pid)
	}
	if t, err := time.Parse(time.RFC3339, since); err == nil {
		layout := "15:04"
		if time.Since(t) > 20*time.Hour {
			layout = "2006-01-02 15:04"
		}
		who += " (since " + t.Local().Format(layout) + ")"
	}
	return &fault.Error{Kind: fault.Busy, Message: fmt.Sprintf("%s is in use by %s", dir, who),
		Advice: "wait for it, or start under another --name"}
}

// release gives the lock back; the file stays.
func (l *lock) release() error { return errors.Join(l.file.Close(), l.dir.Close()) }

// isHeld reports whether some process owns the run folder.
func isHeld(dir string) bool {
	for _, p := range []string{dir, filepath.Join(dir, lockName)} {
		f, err := os.Open(p)
		if err != nil {
			continue
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return true
		}
	}
	return false
}
