package algos_test

import (
	"testing"

	"lycoris/internal/algos"
	"lycoris/internal/algos/algostest"
	"lycoris/internal/kernels/cpu"
)

// Every algorithm passes the suite.
func TestSuite(t *testing.T) {
	b, err := cpu.Open(cpu.Options{Threads: 2, DirectConv: true})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for _, a := range algos.All {
		t.Run(a.Name, func(t *testing.T) { algostest.Run(t, a, b) })
	}
}
