package extract

import (
	"slices"
	"strings"

	"lycoris/internal/arch"
	"lycoris/internal/fault"
	"lycoris/internal/kernels"
	"lycoris/internal/tensor"
)

// Algorithms lists what can be extracted; locon is lora with the kernels too.
var Algorithms = []string{"lora", "locon", "loha", "lokr", "full", "ia3", "diag-oft"}

// Options say what is extracted.
type Options struct {
	Algorithm  string
	Rule       Rule             // of Linear layers and 1×1 kernels
	ConvDim    int              // rank of larger kernels; 0: left out
	Factor     int              // lokr: as in training; 0 or -1: nearest to square
	Components []arch.Component // nil: all that both models have
	Norms      bool             // gains and biases of norms too (always of full)
	KeepNoise  bool             // keep differences that are the rounding of the files only
	DType      tensor.DType     // of the factors in the file

	// Backend opens an engine of one thread for a worker; it is closed with close.
	Backend func() (b kernels.Backend, close func(), err error)
	Workers int   // 1 or more
	Memory  int64 // bytes of layers in work at most; a larger layer is worked on alone

	// Started is told how many modules there are; Done that one more is done, from any goroutine.
	Started func(modules int)
	Done    func()
}

// The rank where none is given; a LoHa's fit takes time that grows with the square of it.
const (
	defaultDim  = 16
	defaultLoHa = 4
)

// check returns an error for options that don't go together.
func (o *Options) check() error {
	if o.Algorithm == "locon" {
		o.Algorithm = "lora"
		if o.ConvDim == 0 {
			o.ConvDim = max(o.Rule.Dim, 0)
			if o.Rule.Dim == 0 && !o.Rule.dynamic() {
				o.ConvDim = defaultDim
			}
			if o.Rule.dynamic() && o.Rule.Dim == 0 {
				o.ConvDim = noLimit
			}
		}
	}
	if !slices.Contains(Algorithms, o.Algorithm) {
		e := fault.BadUsage("--algo", "%q can't be extracted", o.Algorithm)
		if o.Algorithm == "boft" {
			return e.Advise("its factors can't be told apart; diag-oft and lora can")
		}
		return e.Advise("there are: %s", strings.Join(Algorithms, ", "))
	}
	if o.Rule.dynamic() && o.Algorithm != "lora" {
		return fault.BadUsage("", "the --sv- rules are for lora and locon").Advise("%s takes --dim", o.Algorithm)
	}
	return o.Rule.check()
}

// noLimit is a rank above every layer's.
const noLimit = 1 << 30

// rules returns the rank rule of Linear layers and of kernels larger than a pixel.
func (o *Options) rules() (linear, conv Rule) {
	linear = o.Rule
	if linear.Dim == 0 && !linear.dynamic() {
		linear.Dim = defaultDim
		if o.Algorithm == "loha" {
			linear.Dim = defaultLoHa
		}
	}
	conv = o.Rule
	conv.Dim = o.ConvDim
	return linear, conv
}
