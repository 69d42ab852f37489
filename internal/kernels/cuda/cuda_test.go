//go:build cuda && cgo

package cuda

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"gorgonia.org/cu"
)

// The driver is chosen once for a process, so every case runs in a child: this test binary with LYC_TEST_CHILD = what to do.
func TestMain(m *testing.M) {
	do := os.Getenv("LYC_TEST_CHILD")
	if do == "" {
		os.Exit(m.Run())
	}
	out, err := json.Marshal(children[do]())
	if err != nil {
		panic(err)
	}
	fmt.Printf("%s\n", out)
	os.Exit(0)
}

// report is what a child says.
type report struct {
	Devices []Device
	Why     string
	Errors  []string // of calls
}

var children = map[string]func() report{
	"devices": func() report { return report{Devices: Devices(), Why: WhyAbsent()} },
	"nothing": func() report { return report{} },
	"calls": func() report { // the first call is one with arguments on the stack
		eight := uint64(8)
		launch := cu.Function{}.Launch(1, 2, 3, 4, 5, 6, 7, cu.Stream{}, []unsafe.Pointer{unsafe.Pointer(&eight)})
		_, alloc := cu.MemAlloc(16)
		_, count := cu.NumDevices()
		return report{Errors: []string{fmt.Sprint(launch), fmt.Sprint(alloc), fmt.Sprint(count)}}
	},
	"many at once": func() report {
		errs := make([]string, 16)
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() {
				n, err := cu.NumDevices()
				errs[i] = fmt.Sprint(n, err)
			})
		}
		wg.Wait()
		return report{Errors: slices.Compact(errs)}
	},
}

// child runs one of children with more environment variables, and returns its report and how long it took.
func child(t *testing.T, do string, env ...string) (report, time.Duration) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "LYCORIS_CUDA_") })
	cmd.Env = append(append(cmd.Env, "LYC_TEST_CHILD="+do), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	start := time.Now()
	out, err := cmd.Output()
	took := time.Since(start)
	if err != nil {
		t.Fatalf("%s with %v: %v\n%s%s", do, env, err, out, stderr.Bytes())
	}
	var r report
	if err := json.Unmarshal(out, &r); err != nil { // also where a driver's words stand in it
		t.Fatalf("%s with %v says %q: %v", do, env, out, err)
	}
	return r, took
}

// fake compiles testdata/driver.c with flaws into dir/libcuda.so.1 and returns its path.
func fake(t *testing.T, flaws ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "libcuda.so.1")
	args := append([]string{"-shared", "-fPIC", "-o", path, "testdata/driver.c"}, flaws...)
	cc := os.Getenv("CC")
	if cc == "" {
		cc = "cc"
	}
	if out, err := exec.Command(cc, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", cc, args, err, out)
	}
	return path
}

func TestDevices(t *testing.T) {
	want := []Device{
		{Index: 0, Name: "Fake GPU A", MemoryBytes: 24 << 30, ComputeCapability: "8.0"},
		{Index: 1, Name: "Fake GPU B", MemoryBytes: 48 << 30, ComputeCapability: "8.1"},
	}
	for _, c := range []struct {
		name    string
		flaws   []string
		devices []Device
		why     string // DRIVER stands for the path
	}{
		{"two devices", nil, want, ""},
		{"one of them without a name", []string{"-DNAME_FAILS"}, want[:1], "the CUDA driver does not describe device 1: name: Unknown"},
		{"no device", []string{"-DDEVICES=0"}, nil, "the CUDA driver DRIVER sees no device"},
		{"cuInit says that there is no device", []string{"-DINIT_ANSWERS=100"}, nil, "the CUDA driver DRIVER sees no device: cuInit answers 100 (CUDA_ERROR_NO_DEVICE)"},
		{"cuInit fails", []string{"-DINIT_ANSWERS=999"}, nil, "the CUDA driver DRIVER does not start: cuInit answers 999 (CUDA_ERROR_UNKNOWN)"},
		{"cuInit fails in a way without a name", []string{"-DINIT_ANSWERS=4321"}, nil, "the CUDA driver DRIVER does not start: cuInit answers 4321 (an error without a name)"},
		{"devices aren't counted", []string{"-DCOUNT_ANSWERS=999"}, nil,
			"the CUDA driver DRIVER does not count its devices: cuDeviceGetCount answers 999 (CUDA_ERROR_UNKNOWN)"},
		{"a function is missing", []string{"-DOLD"}, nil, "the CUDA driver DRIVER is too old, or is none: it has no cuDeviceTotalMem_v2"},
		{"cuInit crashes", []string{"-DINIT_CRASHES"}, nil, "the CUDA driver DRIVER crashes when it is asked for its devices: Segmentation fault"},
		{"a name crashes", []string{"-DNAME_CRASHES"}, nil, "the CUDA driver DRIVER crashes when it is asked for its devices: Aborted"},
		{"cuInit ends the process", []string{"-DINIT_EXITS"}, nil, "the CUDA driver DRIVER ends the process that asks for its devices"},
		{"loading ends the process", []string{"-DLOAD_EXITS"}, nil, "the CUDA driver DRIVER ends the process that asks for its devices"},
		{"cuInit hangs", []string{"-DINIT_HANGS"}, nil, "the CUDA driver DRIVER gives no answer within 1 s (LYCORIS_CUDA_WAIT=60 gives it a minute)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			driver := fake(t, c.flaws...)
			got, took := child(t, "devices", "LYCORIS_CUDA_DRIVER="+driver, "LYCORIS_CUDA_WAIT=1", "LC_ALL=C")
			if !slices.Equal(got.Devices, c.devices) {
				t.Errorf("devices: got %v, want %v", got.Devices, c.devices)
			}
			if want := strings.ReplaceAll(c.why, "DRIVER", driver); got.Why != want {
				t.Errorf("why: got %q, want %q", got.Why, want)
			}
			if limit := 4 * time.Second; took > limit {
				t.Errorf("took %v, want less than %v", took, limit)
			}
		})
	}
}

func TestNoDriver(t *testing.T) {
	garbage := filepath.Join(t.TempDir(), "libcuda.so.1")
	if err := os.WriteFile(garbage, bytes.Repeat([]byte("no library "), 100), 0o666); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(t.TempDir(), "libcuda.so.1")
	const unloadable = "no CUDA driver library could be loaded: "
	for _, c := range []struct{ name, env, why string }{
		{"switched off", "LYCORIS_CUDA_DRIVER=none", "CUDA is switched off by LYCORIS_CUDA_DRIVER=none"},
		{"not a library", "LYCORIS_CUDA_DRIVER=" + garbage, unloadable + garbage + ": "},
		{"not a library, found by the system's search", "LD_LIBRARY_PATH=" + filepath.Dir(garbage), unloadable + garbage + ": "},
		{"not there", "LYCORIS_CUDA_DRIVER=" + missing, unloadable + missing + ": "},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, _ := child(t, "devices", c.env)
			if len(got.Devices) != 0 {
				t.Errorf("devices: got %v, want none", got.Devices)
			}
			if !strings.HasPrefix(got.Why, c.why) {
				t.Errorf("why: got %q, want %q…", got.Why, c.why)
			}
		})
	}
}

// Without an override it is the driver of the machine: one that the system's search finds, or a sentence.
func TestMachineDriver(t *testing.T) {
	got, _ := child(t, "devices")
	t.Logf("this machine: %+v", got)
	if (len(got.Devices) == 0) != (got.Why != "") {
		t.Errorf("%d devices and the reason %q", len(got.Devices), got.Why)
	}
	got, _ = child(t, "devices", "LD_LIBRARY_PATH="+filepath.Dir(fake(t)))
	if len(got.Devices) != 2 || got.Why != "" {
		t.Errorf("a driver in LD_LIBRARY_PATH: got %+v, want its two devices", got)
	}
}

func TestCalls(t *testing.T) {
	for _, c := range []struct {
		name, driver string
		want         []string // launch, allocate, count
	}{
		{"no driver", "none", []string{"NotInitialized", "NotInitialized", "<nil>"}},
		{"a driver without cuMemAlloc", fake(t), []string{"<nil>", "NotSupported", "<nil>"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, _ := child(t, "calls", "LYCORIS_CUDA_DRIVER="+c.driver); !slices.Equal(got.Errors, c.want) {
				t.Errorf("launch, allocate, count: got %q, want %q", got.Errors, c.want)
			}
		})
	}
}

func TestManyFirstCalls(t *testing.T) {
	if got, _ := child(t, "many at once", "LYCORIS_CUDA_DRIVER="+fake(t)); !slices.Equal(got.Errors, []string{"2 <nil>"}) {
		t.Errorf("16 threads that ask first get %q, want 2 devices each", got.Errors)
	}
}

// A program that doesn't ask for devices doesn't even load the driver.
func TestStartOpensNothing(t *testing.T) {
	child(t, "nothing", "LYCORIS_CUDA_DRIVER="+fake(t, "-DLOAD_EXITS"))
}

// The program needs no library of CUDA to start, and keeps its trampolines to itself.
func TestLinkage(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.Open(exe)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	libraries, err := f.ImportedLibraries()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range libraries {
		if strings.Contains(l, "cuda") || strings.Contains(l, "nvidia") {
			t.Errorf("needs %s to start; wants the C library alone, has %v", l, libraries)
		}
	}
	symbols, err := f.DynamicSymbols()
	if err != nil {
		t.Fatal(err)
	}
	driver := driverSymbols(t)
	for _, s := range symbols {
		if slices.Contains(driver, s.Name) {
			t.Errorf("%s is a dynamic symbol: a driver that calls it by name would land in the trampolines", s.Name)
		}
	}
}

// driverSymbols returns the functions that the trampolines stand for.
func driverSymbols(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, list := range []string{"libcuda/symbols.txt", "libcuda/symbols_extra.txt"} {
		text, err := os.ReadFile(list)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, strings.Fields(string(text))...)
	}
	if want := 160; len(names) < want {
		t.Fatalf("%d driver functions, want %d or more", len(names), want)
	}
	return names
}
