//go:build linux || darwin

package tensor

import "golang.org/x/sys/unix"

// FreeSpace returns the bytes that may still be written in the folder, -1 when that can't be told.
func FreeSpace(folder string) int64 {
	var s unix.Statfs_t
	if err := unix.Statfs(folder, &s); err != nil {
		return -1
	}
	return int64(s.Bavail) * int64(s.Bsize)
}
