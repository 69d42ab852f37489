//go:build cgo

package cpu

import (
	"fmt"
	"testing"

	"lycoris/internal/kernels/kernelstest"
)

// TestSuite runs the suite that every backend passes, on each instruction set, with one thread and with more than there are processors here.
func TestSuite(t *testing.T) {
	for _, isa := range ISAs() {
		for _, threads := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s/threads=%d", isa, threads), func(t *testing.T) {
				b, err := Open(Options{Threads: threads, ISA: isa})
				if err != nil {
					t.Fatal(err)
				}
				defer b.Close()
				kernelstest.Run(t, b, kernelstest.Bounds())
			})
		}
	}
}
