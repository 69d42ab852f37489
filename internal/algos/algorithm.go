// Package algos turns a frozen weight into a trainable one, one file per algorithm.
//
// A [Target] is a Linear or Conv2d of a base model, its weight [O,I] or [O,I,kh,kw]. An [Adapter] owns the trained factors for one target, emits the
// adapted layer into a graph and computes its weight change. An [Algorithm] makes adapters and knows their file keys. A [Network] is the adapters of
// one run.
//
// A new adapter changes nothing. Factors are float32 whatever the base is; they live in the backend's memory once [Network.Allocate] was called,
// and [Network.Pull] brings their values to the host, where [Adapter.Tensors] and [Adapter.Delta] read them. Adapters aren't safe for concurrent use.
//
// Start at [All], then read lora.go. Key names and scaling follow the LyCORIS file format (lycoris-lora 4.1.3).
package algos

import (
	"strings"

	"lycoris/internal/fault"
	"lycoris/internal/nn"
	"lycoris/internal/rng"
	"lycoris/internal/tensor"
)

// Target is one layer that an adapter is made for.
type Target struct {
	Path        string // with the component: "unet.down_blocks.0.…"
	Name        string // in adapter files: "lora_unet_down_blocks_0_…"
	Shape       []int  // of the weight: [O,I] or [O,I,kh,kw]
	Stride, Pad int    // convolutions
}

// IsConv reports whether the layer is a convolution, 1×1 included.
func (t Target) IsConv() bool { return len(t.Shape) == 4 }

// HasWindow reports whether the layer is a convolution with a kernel larger than one pixel.
func (t Target) HasWindow() bool { return t.IsConv() && t.Shape[2]*t.Shape[3] > 1 }

// Out and In return the layer's features or channels.
func (t Target) Out() int { return t.Shape[0] }

// In returns the input features or channels.
func (t Target) In() int { return t.Shape[1] }

// Options are the settings of an adapter, already chosen for its layer.
type Options struct {
	Rank          int
	Alpha         float64 // 0 = rank
	Tucker        bool    // a core tensor for kernels larger than one pixel
	UseScalar     bool    // a trained scalar that starts at 0 in place of a zero factor
	RSLoRA        bool    // scale alpha/√rank
	RankDropout   float64 // probability that an output row of the change is left out, drawn per layer and forward
	ModuleDropout float64 // probability that a layer's adapter is left out
	NeuronDropout float64 // ordinary dropout on the adapter's output
	Strength      float64 // what the change of a loaded adapter is multiplied by; 0 = 1
	MaxNorm       bool    // the change's norm will be bounded: keep a scalar for it
}

// Adapter is the trained change of one layer.
type Adapter interface {
	nn.Adapter
	Target() Target
	Algorithm() *Algorithm
	Rank() int
	// Factors returns everything that training reads or writes, in a fixed order.
	Factors() []*Factor
	// Inputs returns what a step must fill in for this layer.
	Inputs() []StepInput
	// Tensors returns the file form of the pulled values, keys without the module name.
	Tensors() []tensor.Named
	// Delta returns the weight change at strength 1 of the pulled values, shaped like the weight.
	Delta() []float32
	// BoundNorm scales the pulled change down to a norm of at most limit and returns the norm before and after.
	BoundNorm(limit float64) (before, after float64)
}

// StepInput is a program input that changes with every forward.
type StepInput struct {
	Name string
	Size int
	Fill func(dst []float32, s *rng.Stream)
}

// Algorithm makes adapters of one kind.
type Algorithm struct {
	Name    string
	Aliases []string
	Doc     string
	Keys    []string // suffixes of its tensors in files
	Mark    []string // a module whose tensors include one of these is of this algorithm
	New     func(t Target, o Options, s *rng.Stream) (Adapter, error)
	Load    func(t Target, tensors map[string]tensor.Tensor, o Options) (Adapter, error)
}

// All lists the algorithms, in the order in which a file's keys are tried.
var All = []*Algorithm{&LoRA}

// ByName returns the algorithm called name or by one of its aliases.
func ByName(name string) (*Algorithm, error) {
	var names []string
	for _, a := range All {
		for _, n := range append([]string{a.Name}, a.Aliases...) {
			if strings.EqualFold(n, name) {
				return a, nil
			}
			names = append(names, n)
		}
	}
	return nil, fault.BadUsage("algo", "%q is not an algorithm of this version", name).Advise("there are: %s", strings.Join(names, ", "))
}

// Detect returns the algorithm of a module in a file from its keys, nil if none fits.
func Detect(has func(key string) bool) *Algorithm {
	for _, a := range All {
		for _, k := range a.Mark {
			if has(k) {
				return a
			}
		}
	}
	return nil
}
