//go:build cgo

package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"syscall"
	"testing"
	"unsafe"

	"lycoris/internal/fault"
	"lycoris/internal/kernels/ref"
	"lycoris/internal/tensor"
)

var reference = ref.Backend{}

// forEach runs fn once per instruction set, with backends of one, two and three threads.
func forEach(t *testing.T, o Options, fn func(t *testing.T, backends []*Backend)) {
	for _, isa := range ISAs() {
		t.Run(isa, func(t *testing.T) {
			var backends []*Backend
			for _, threads := range []int{1, 2, 3} {
				o.Threads, o.ISA = threads, isa
				b, err := Open(o)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(b.Close)
				backends = append(backends, b)
			}
			fn(t, backends)
		})
	}
}

// values returns n numbers from the standard normal distribution, always the same for a seed, that end at a page which can't be touched.
func values(t testing.TB, seed uint64, n int) []float32 {
	x := guarded(t, n)
	r := rand.New(rand.NewPCG(seed, 7))
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

// guarded returns n floats, the last right before a page without access and the first behind a page without access or, where the length is
// not a whole number of pages, behind canaries that are looked at when the test ends.
func guarded(t testing.TB, n int) []float32 {
	page := syscall.Getpagesize()
	size := (4*n + page - 1) / page * page
	mem, err := syscall.Mmap(-1, 0, size+2*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	for _, guard := range [][]byte{mem[:page], mem[page+size:]} {
		if err := syscall.Mprotect(guard, syscall.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	front := mem[page : page+size-4*n]
	for i := range front {
		front[i] = 0xA5
	}
	t.Cleanup(func() {
		for i, c := range front {
			if c != 0xA5 {
				t.Errorf("byte %d before a buffer of %d floats was written", len(front)-i, n)
				break
			}
		}
		if err := syscall.Munmap(mem); err != nil {
			t.Error(err)
		}
	})
	if n == 0 {
		return []float32{}
	}
	return unsafe.Slice((*float32)(unsafe.Pointer(&mem[page+size-4*n])), n)
}

// packed returns a tensor of random values rounded to dtype.
func packed(t testing.TB, seed uint64, dtype tensor.DType, shape ...int) tensor.Tensor {
	return tensor.FromFloat32(dtype, shape, values(t, seed, tensor.Elems(shape)))
}

// near fails unless every element is within tol of the largest wanted one.
func near(t *testing.T, what string, got, want []float32, tol float64) {
	t.Helper()
	var worst, largest float64
	at := 0
	for i, w := range want {
		largest = max(largest, math.Abs(float64(w)))
		if d := math.Abs(float64(got[i]) - float64(w)); !(d <= worst) {
			worst, at = d, i
		}
	}
	if !(worst <= tol*largest) {
		t.Errorf("%s: element %d is %g, want %g: off by %.2g of the largest (%g), allowed %.2g", what, at, got[at], want[at], worst/largest, largest, tol)
	}
}

// same fails unless a and b have the same bits.
func same(t *testing.T, what string, a, b []float32) {
	t.Helper()
	for i := range a {
		if math.Float32bits(a[i]) != math.Float32bits(b[i]) {
			t.Errorf("%s: element %d is %g with one thread and %g with more", what, i, a[i], b[i])
			return
		}
	}
}

// check runs op on each backend with a fresh output of n elements, which holds `before` at first if that isn't nil; it compares the
// first output with want and the others with the first.
func check(t *testing.T, what string, backends []*Backend, want, before []float32, tol float64, op func(b *Backend, out []float32)) {
	t.Helper()
	var first []float32
	for _, b := range backends {
		out := guarded(t, len(want))
		for i := range out {
			out[i] = float32(math.NaN())
		}
		copy(out, before)
		op(b, out)
		if first == nil {
			first = out
			near(t, what, out, want, tol)
		} else {
			same(t, fmt.Sprintf("%s, %d threads", what, b.Threads()), first, out)
		}
	}
}

func TestOpen(t *testing.T) {
	if _, err := Open(Options{ISA: "mmx"}); fault.KindOf(err) != fault.Device {
		t.Errorf("Open with an unknown instruction set: %v, want a device error", err)
	}
	if _, err := Open(Options{Threads: -1}); fault.KindOf(err) != fault.Usage {
		t.Errorf("Open with -1 threads: %v, want a usage error", err)
	}
	b, err := Open(Options{Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if got, want := b.Name(), "cpu/"+ISAs()[0]; got != want {
		t.Errorf("Name() = %q, want %q", got, want)
	}
	if b.Threads() != 2 {
		t.Errorf("Threads() = %d, want 2", b.Threads())
	}
}

func TestAlloc(t *testing.T) {
	b, err := Open(Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for _, n := range []int{0, 1, 1023, 1 << 21} {
		x, err := b.Alloc(n)
		if err != nil {
			t.Fatal(err)
		}
		if len(x) != n {
			t.Errorf("Alloc(%d) has length %d", n, len(x))
		}
		if n > 0 && uintptr(unsafe.Pointer(&x[0]))%64 != 0 {
			t.Errorf("Alloc(%d) is not at a 64-byte boundary", n)
		}
		for i, v := range x {
			if v != 0 {
				t.Fatalf("Alloc(%d)[%d] = %g, want 0", n, i, v)
			}
		}
		y := make([]float32, n)
		for i := range y {
			y[i] = float32(i)
		}
		b.Upload(x, y)
		z := make([]float32, n)
		b.Download(z, x)
		same(t, "Upload, Download", y, z)
		b.Free(x)
	}
	if _, err := b.Alloc(1 << 50); fault.KindOf(err) != fault.Memory {
		t.Errorf("Alloc of 4 PiB: %v, want a memory error", err)
	}
}
