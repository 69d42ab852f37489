package merge

import "fmt"

// farOut collects the modules of one adapter whose weight is far outside the usual: one warning, however many there are.
type farOut struct {
	modules int
	weight  float64 // of the first
	name    string
}

func (f *farOut) add(weight float64, name string) {
	if f.modules++; f.modules == 1 {
		f.weight, f.name = weight, name
	}
}

func (f farOut) String() string {
	if f.modules == 1 {
		return fmt.Sprintf("weight %g of %q is far outside the usual", f.weight, f.name)
	}
	return fmt.Sprintf("weight %g of %q and %d more is far outside the usual", f.weight, f.name, f.modules-1)
}
