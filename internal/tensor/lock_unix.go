//go:build linux || darwin

package tensor

import (
	"os"

	"golang.org/x/sys/unix"
)

// lock takes the lock of an open file or folder, which goes when f is closed and with the process. errLocked: somebody has it; any other error: there are no locks here.
func lock(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == unix.EWOULDBLOCK {
		return errLocked
	}
	return err
}
