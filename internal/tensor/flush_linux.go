package tensor

import (
	"os"

	"golang.org/x/sys/unix"
)

// startFlush asks the kernel to begin writing a range of f to disk, so that the flush at the end has less to wait for. It promises nothing: an error is the flush's to find.
func startFlush(f *os.File, at, n int64) {
	unix.SyncFileRange(int(f.Fd()), at, n, unix.SYNC_FILE_RANGE_WRITE)
}

// startRead asks the kernel to begin reading a range of f. It promises nothing: an error is the read's to find.
func startRead(f *os.File, at, n int64) {
	unix.Fadvise(int(f.Fd()), at, n, unix.FADV_WILLNEED)
}
