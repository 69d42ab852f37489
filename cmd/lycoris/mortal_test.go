package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// mortal runs a command for which the permissions of files hold, as they do for everybody but root: mortal lycoris train …. What root has over
// others is taken from the set of rights that a started program can have.
func mortal() {
	runtime.LockOSThread()
	if os.Geteuid() == 0 {
		for _, right := range []uintptr{unix.CAP_DAC_OVERRIDE, unix.CAP_DAC_READ_SEARCH} {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, right, 0, 0, 0); err != nil {
				fail("mortal: root's rights can't be dropped: %v", err)
			}
		}
	}
	path, err := exec.LookPath(os.Args[1])
	if err != nil {
		fail("mortal: %v", err)
	}
	fail("mortal: %v", syscall.Exec(path, os.Args[1:], os.Environ()))
}

func fail(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(99)
}
