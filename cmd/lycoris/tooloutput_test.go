package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lycoris/internal/checkpoint"
	"lycoris/internal/testutil/tinymodel"
)

// everyWriter are the command lines that write OUT from a.safetensors and m.safetensors.
var everyWriter = [][]string{
	{"merge", "--model", "@m.safetensors", "--adapter", "@a.safetensors", "--out", "@OUT"},
	{"resize", "--in", "@a.safetensors", "--dim", "1", "--out", "@OUT"},
	{"convert", "--in", "@a.safetensors", "--to", "full", "--out", "@OUT"},
	{"convert", "--in", "@m.safetensors", "--dtype", "fp32", "--out", "@OUT"},
	{"extract", "--base", "@m.safetensors", "--tuned", "@tuned.safetensors", "--dim", "1", "--out", "@OUT"},
}

func to(line []string, name string) []string {
	line = append([]string(nil), line...)
	line[len(line)-1] = "@" + name
	return line
}

// withTuned writes the model that extract compares with m.safetensors.
func withTuned(t *testing.T) *tools {
	t.Helper()
	w := newTools(t)
	if code, _, said := w.run(context.Background(), "merge", "--model", "@m.safetensors", "--adapter", "@a.safetensors:0.3", "--out", "@tuned.safetensors"); code != 0 {
		t.Fatal(said)
	}
	return w
}

// What can't or mustn't be written is said before anything is read, with --force too where it would destroy an input.
func TestToolsRefuseOutputs(t *testing.T) {
	w := withTuned(t)
	w.write("old.safetensors", []byte("old"))
	w.write("plain", nil)
	for _, err := range []error{os.Mkdir(w.path("folder"), 0o755), os.Symlink("circle.safetensors", w.path("circle.safetensors"))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, line := range everyWriter {
		w.refused(5, "exists already", to(line, "old.safetensors")...)
		w.refused(5, "exists already", to(line, "circle.safetensors")...)
		w.refused(5, `does not exist`, to(line, "none/x.safetensors")...)
		w.refused(5, "is not a folder", to(line, "plain/x.safetensors")...)
		w.refused(5, "the name is too long", to(line, strings.Repeat("n", 250)+".safetensors")...)
		input := strings.TrimPrefix(line[2], "@")
		for kind, link := range map[string]func(string, string) error{"soft": os.Symlink, "hard": os.Link} {
			name := kind + ".safetensors"
			if err := link(w.path(input), w.path(name)); err != nil {
				t.Fatal(err)
			}
			w.refused(5, "is ", append(to(line, name), "--force")...)
			w.refused(5, " input", append(to(line, name), "--force")...)
			if err := os.Remove(w.path(name)); err != nil {
				t.Fatal(err)
			}
		}
		w.refused(5, " input", append(to(line, input), "--force")...)
	}
	w.refused(5, "is an input too", "convert", "--in", "@a.safetensors", "--to", "full", "--model", "@m.safetensors", "--force", "--out", "@m.safetensors")
	for _, line := range everyWriter {
		w.write("old.safetensors", []byte("old"))
		if code, _, said := w.run(context.Background(), append(to(line, "old.safetensors"), "--force", "-q")...); code != 0 || len(w.read("old.safetensors")) < 1000 {
			t.Errorf("%q --force: exit %d\n%s", line, code, said)
		}
	}
}

// A folder is never overwritten by one unless it is a model too and holds no input.
func TestMergeRefusesFolders(t *testing.T) {
	w := newTools(t)
	if err := tinymodel.WriteTiny(w.path("model"), 1, checkpoint.Folder); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{os.Mkdir(w.path("mine"), 0o755), os.WriteFile(w.path("mine/letter.txt"), []byte("dear"), 0o644), os.Symlink("model", w.path("link"))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	merge := []string{"merge", "--model", "@model", "--adapter", "@a.safetensors", "--force", "--out", "@OUT"}
	w.refused(5, "holds other things than a model", to(merge, "mine")...)
	w.refused(5, "is not a folder, and the merged model is one", to(merge, "m.safetensors")...)
	w.refused(5, "is an input too", to(merge, "link")...)
	w.refused(5, "lies inside the input", to(merge, "link/merged")...)
	if err := os.Rename(w.path("model"), w.path("mine/model")); err != nil {
		t.Fatal(err)
	}
	merge[2] = "@mine/model"
	w.refused(5, "is a folder that holds the input", to(merge, "mine")...)
}

// A signal stops a tool with its code; nothing is left and nothing is lost.
func TestToolsStop(t *testing.T) {
	w := withTuned(t)
	w.write("old.safetensors", []byte("old"))
	before := w.list()
	for signal, code := range map[syscall.Signal]int{syscall.SIGINT: 130, syscall.SIGTERM: 143, syscall.SIGHUP: 129} {
		ctx, cancel := context.WithCancelCause(context.Background())
		cancel(&stopped{signal})
		for _, line := range everyWriter {
			got, stdout, said := w.run(ctx, append(to(line, "old.safetensors"), "--force")...)
			if got != code || stdout != "" || !strings.Contains(said, "stopped by "+signalName(signal)+", nothing was written") || strings.Contains(said, "error: ") {
				t.Errorf("%v %q: exit %d, want %d\n%s%s", signal, line, got, code, stdout, said)
			}
			got, stdout, _ = w.run(ctx, append(to(line, "old.safetensors"), "--force", "--json")...)
			if last := w.lines(stdout); got != code || last["exit"] != float64(code) || last["ok"] != false {
				t.Errorf("%v %q --json: exit %d, want %d\n%s", signal, line, got, code, stdout)
			}
		}
	}
	if after := w.list(); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("the folder held %q and now holds %q", before, after)
	}
}

// Every tool's --json is JSON lines, or one document, on standard output and nothing else, whatever the progress is.
func TestToolsJSON(t *testing.T) {
	w := withTuned(t)
	for i, line := range everyWriter {
		code, stdout, said := w.run(context.Background(), append(to(line, fmt.Sprint(i, ".safetensors")), "--json", "--progress", "plain")...)
		last := w.lines(stdout)
		if code != 0 || last["ok"] != true || last["exit"] != 0.0 || last["path"] != w.path(fmt.Sprint(i, ".safetensors")) || !strings.HasPrefix(stdout, `{"schema":"lycoris.cli/1","type":"hello"`) {
			t.Errorf("%q: exit %d\n%s%s", line, code, stdout, said)
		}
	}
}

// A process that is killed at any moment leaves no output, or a whole one, and what it was to overwrite; the next one comes to the right bytes and leaves nothing beside them.
func TestToolsKilled(t *testing.T) {
	w := withTuned(t)
	base := w.read("m.safetensors")
	for i, line := range everyWriter {
		want := fmt.Sprint("want", i, "/x.safetensors") // of the same name: metadata have it
		if err := os.Mkdir(filepath.Dir(w.path(want)), 0o755); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := program(t, append(w.args(to(line, want)), "-q")...).Wait(); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		took := time.Since(began)
		whole := w.read(want)
		const moments = 6
		killed := 0
		for m := range moments {
			old := []byte("old")
			w.write("x.safetensors", old)
			cmd := program(t, append(w.args(to(line, "x.safetensors")), "-q", "--force")...)
			time.Sleep(took * time.Duration(m+1) / (moments + 1))
			cmd.Process.Kill()
			if cmd.Wait() != nil {
				killed++
			}
			if got := w.read("x.safetensors"); !bytes.Equal(got, old) && !bytes.Equal(got, whole) {
				t.Errorf("%q, killed at moment %d: the output is neither the old file nor the new one", line, m)
			}
		}
		if killed == 0 {
			t.Errorf("%q: no process could be killed before its end", line)
		}
		if err := program(t, append(w.args(to(line, "x.safetensors")), "-q", "--force")...).Wait(); err != nil {
			t.Errorf("%q after a kill: %v", line, err)
		}
		if !bytes.Equal(w.read("x.safetensors"), whole) || !bytes.Equal(w.read("m.safetensors"), base) {
			t.Errorf("%q after a kill: other bytes", line)
		}
		if err := wholeFolder(w.dir); err != nil {
			t.Errorf("%q after a kill: %v", line, err)
		}
	}
}

// shell runs the program under a shell that runs before first.
func (w *tools) shell(before string, args ...string) (code int, said string) {
	w.t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command("/bin/sh", "-c", before+`exec "$0" -test.run='^TestChildren$'`, os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"=program", argumentsVariable+"="+strings.Join(w.args(args), "\n"))
	cmd.Stderr = &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), stderr.String()
}

// A write that fails half way (a limit on the size of files stands for the disk) ends a tool with exit 5, leaves nothing, and what was to be overwritten as it was.
func TestToolsFailedWrite(t *testing.T) {
	w := withTuned(t)
	w.write("old.safetensors", []byte("old"))
	before := w.list()
	for _, line := range everyWriter {
		code, said := w.shell("ulimit -f 40; ", append(to(line, "old.safetensors"), "--force", "-q")...) // blocks of 512 bytes
		if code != 5 || strings.Count(said, "error: ") != 1 || !strings.Contains(said, "old.safetensors: the file would be larger than this process may write") {
			t.Errorf("%q: exit %d, want 5\n%s", line, code, said)
		}
		if after := w.list(); fmt.Sprint(after) != fmt.Sprint(before) || string(w.read("old.safetensors")) != "old" {
			t.Errorf("%q: the folder held %q and now holds %q", line, before, after)
		}
	}
}

// A disk without room, or on which nothing may be written, is said before anything is computed.
func TestToolsFullDisk(t *testing.T) {
	dir := os.Getenv(diskVariable)
	if dir == "" {
		ownMounts(t)
		return
	}
	w := withTuned(t)
	disk := w.path("disk")
	if err := os.Mkdir(disk, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("lycoris-test", disk, "tmpfs", 0, "size=16k,nr_inodes=100"); err != nil {
		t.Skipf("a full disk needs a tmpfs of its own, and this machine lets no process mount one: %v", err)
	}
	defer unix.Unmount(disk, unix.MNT_DETACH)
	fails := func(words string) {
		t.Helper()
		for _, line := range everyWriter {
			code, said := w.shell("", append(to(line, "disk/x.safetensors"), "-q")...)
			if code != 5 || strings.Count(said, "error: ") != 1 || !strings.Contains(said, words) {
				t.Errorf("%q: exit %d, want 5 with %q\n%s", line, code, words, said)
			}
			if entries, err := os.ReadDir(disk); err != nil || len(entries) > 0 {
				t.Errorf("%q: %d files are left, %v", line, len(entries), err)
			}
		}
	}
	fails("the disk is too full: needs ")
	if err := unix.Mount("lycoris-test", disk, "tmpfs", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	fails("is read-only for this user")
}

// A merged folder takes the place of another one as a whole, and what a killed process left is gone.
func TestMergeFolderKilled(t *testing.T) {
	w := newTools(t)
	if err := tinymodel.WriteTiny(w.path("model"), 1, checkpoint.Folder); err != nil {
		t.Fatal(err)
	}
	line := []string{"merge", "--model", "@model", "--adapter", "@a.safetensors", "-q", "--force", "--out", "@OUT"}
	began := time.Now()
	if err := program(t, w.args(to(line, "want"))...).Wait(); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	if err := os.CopyFS(w.path("x"), os.DirFS(w.path("model"))); err != nil {
		t.Fatal(err)
	}
	const moments = 8
	for m := range moments {
		cmd := program(t, w.args(to(line, "x"))...)
		time.Sleep(took * time.Duration(m+1) / (moments + 1))
		cmd.Process.Kill()
		cmd.Wait()
		if old, merged := sameFolder(t, w.path("x"), w.path("model")), sameFolder(t, w.path("x"), w.path("want")); !old && !merged {
			t.Errorf("killed at moment %d: the output is neither the old model nor the new one", m)
		}
	}
	if err := program(t, w.args(to(line, "x"))...).Wait(); err != nil {
		t.Fatal(err)
	}
	if !sameFolder(t, w.path("x"), w.path("want")) {
		t.Error("after the kills: other bytes")
	}
	if err := wholeFolder(w.dir); err != nil {
		t.Error(err)
	}
}

// sameFolder reports whether two folders hold the same files.
func sameFolder(t *testing.T, a, b string) bool {
	t.Helper()
	content := func(dir string) map[string]string {
		all := map[string]string{}
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			data, err := os.ReadFile(path)
			rel, _ := filepath.Rel(dir, path)
			all[rel] = string(data)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	x, y := content(a), content(b)
	if len(x) != len(y) || len(x) == 0 {
		return false
	}
	for name := range x {
		if x[name] != y[name] {
			return false
		}
	}
	return true
}
