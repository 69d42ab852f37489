package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lycoris/internal/testutil"
	"lycoris/internal/testutil/tinymodel"
)

// argumentsVariable carries the arguments of a child that is the whole program.
const argumentsVariable = "LYCORIS_TEST_ARGUMENTS"

func init() {
	children["program"] = func() { os.Exit(Main(strings.Split(os.Getenv(argumentsVariable), "\n"))) }
}

// program starts the program as a process of its own.
func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestChildren$")
	cmd.Env = append(os.Environ(), childVariable+"=program", argumentsVariable+"="+strings.Join(args, "\n"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// A run that is killed without warning, twice, and resumed writes the bytes of one that was left alone.
func TestKilledRunResumesExactly(t *testing.T) {
	dir := t.TempDir()
	model := filepath.Join(dir, "tiny.safetensors")
	if err := tinymodel.WriteTiny(model, 1, ""); err != nil {
		t.Fatal(err)
	}
	train := func(out string) *exec.Cmd {
		return program(t, "train", "--no-config", "-q", "--model", model, "--data", filepath.Join(testutil.Root(t), "demo", "photos"), "--resolution", "64",
			"--steps", "40", "--dim", "2", "--batch-size", "2", "--name", "x", "--out", filepath.Join(dir, out), "--set", "bucket.min=64", "--set", "save.every_epochs=0",
			"--set", "save.state_every=3", "--set", "dropout.rank=0.1", "--set", "cache.dir="+filepath.Join(dir, "cache"))
	}
	if err := train("whole").Wait(); err != nil {
		t.Fatal(err)
	}
	killed := filepath.Join(dir, "killed", "x")
	killAt(t, train("killed"), filepath.Join(killed, "state", "step-00000003"))
	killAt(t, program(t, "train", "--resume", killed, "-q"), filepath.Join(killed, "state", "step-00000012"))
	if err := program(t, "train", "--resume", killed, "-q").Wait(); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join(dir, "whole", "x", "x.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(killed, "x.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("the adapter differs from the one of the run that was left alone")
	}
}

// killAt kills the process as soon as path exists; a process that ends before is a failure.
func killAt(t *testing.T, cmd *exec.Cmd, path string) {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	deadline := time.After(time.Minute)
	for {
		if _, err := os.Stat(path); err == nil {
			cmd.Process.Kill()
			if err := <-ended; err == nil {
				t.Fatalf("the run ended by itself before it could be killed at %s", filepath.Base(path))
			}
			return
		}
		select {
		case err := <-ended:
			t.Fatalf("the run ended before %s: %v", filepath.Base(path), err)
		case <-deadline:
			cmd.Process.Kill()
			t.Fatalf("no %s after a minute", filepath.Base(path))
		case <-time.After(2 * time.Millisecond):
		}
	}
}
