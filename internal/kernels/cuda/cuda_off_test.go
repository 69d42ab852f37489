//go:build !cuda || !cgo

package cuda

import (
	"strings"
	"testing"
)

func TestNothingWithoutTheTag(t *testing.T) {
	if d := Devices(); len(d) != 0 {
		t.Errorf("Devices() = %v, want none", d)
	}
	if why := WhyAbsent(); !strings.HasPrefix(why, "built without CUDA") {
		t.Errorf("WhyAbsent() = %q, want it to say that there is no CUDA in this build", why)
	}
}
