//go:build cuda && cgo

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestCUDA runs testdata/cuda/*.txtar on the build with CUDA. "fakedriver FILE [FLAG...]" compiles the driver of the tests of internal/kernels/cuda.
func TestCUDA(t *testing.T) {
	source, err := filepath.Abs("../../internal/kernels/cuda/testdata/driver.c")
	if err != nil {
		t.Fatal(err)
	}
	cc := os.Getenv("CC")
	if cc == "" {
		cc = "cc"
	}
	fakeDriver := func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) == 0 {
			ts.Fatalf("usage: fakedriver FILE [FLAG...]")
		}
		cmd := exec.Command(cc, append([]string{"-shared", "-fPIC", source, "-o", ts.MkAbs(args[0])}, args[1:]...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			ts.Fatalf("%v: %v\n%s", cmd, err, out)
		}
	}
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/cuda",
		UpdateScripts: *update,
		Cmds:          map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "fakedriver": fakeDriver},
	})
}
