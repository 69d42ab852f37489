package ref_test

import (
	"testing"

	"lycoris/internal/kernels/kernelstest"
	"lycoris/internal/kernels/ref"
)

// TestSuite runs the suite on ref itself, without any tolerance: it shows that the suite's sizes and aliases are legal, that ref assigns every
// output, stays inside it and is deterministic. That its values are right is shown by the other tests here.
func TestSuite(t *testing.T) {
	kernelstest.Run(t, ref.Open(), kernelstest.Tolerance{})
}
