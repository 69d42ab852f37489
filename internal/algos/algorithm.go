// Package algos turns a frozen weight into a trainable one, one file per algorithm.
//
// A [Target] is a Linear or Conv2d of a base model, its weight [O,I] or [O,I,kh,kw]. An [Adapter] owns the trained factors for one target, emits the
// adapted layer into a graph and computes its weight change. An [Algorithm] makes adapters and knows their file keys. A [Network] is the adapters of
// one run.
//
// A new adapter changes nothing. Factors are float32 whatever the base is; they live in the backend's memory once [Network.Allocate] was called,
// and [Network.Pull] brings their values to the host, where [Adapter.Tensors] and [Change] read them. Adapters aren't safe for concurrent use.
//
// Start at [All], then read lora.go. Key names and scaling follow the LyCORIS file format (lycoris-lora 4.1.3).
package algos

import (
	"slices"
	"strings"

	"lycoris/internal/fault"
	"lycoris/internal/graph"
	"lycoris/internal/nn"
	"lycoris/internal/rng"
	"lycoris/internal/tensor"
)

// Target is one layer that an adapter is made for.
type Target struct {
	Path        string // with the component: "unet.down_blocks.0.…"
	Name        string // in adapter files: "lora_unet_down_blocks_0_…"
	Shape       []int  // of the weight: [O,I] or [O,I,kh,kw]; [C] of a norm
	Bias        bool   // the layer has one
	Stride, Pad int    // convolutions
}

// Window returns the kernel's pixels: 1 for a Linear.
func (t Target) Window() int { return tensor.Elems(t.Shape[2:]) }

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
	DoRA          string  // "", "in", "out": direction and magnitude of the weight apart, magnitudes per input or output channel
	Factor        int     // lokr, glokr: how a layer is split; -1 or 0 = nearest to square
	DecomposeBoth bool    // lokr, glokr: low rank for the small factor too
	FullMatrix    bool    // lokr, glokr: no low rank at all
	Unbalanced    bool    // lokr, glokr: the larger part of the outputs goes to the small factor
	BlockSize     int     // dylora: ranks that are trained together
	MinRank       int     // tlora: ranks left at the highest noise; 0 = 1, or all where a file of lycoris-lora goes on
	Constraint    float64 // diag-oft, boft: bound on the rotation, 0 = none
	Rescaled      bool    // diag-oft, boft: a trained factor per output
	OnInput       bool    // ia3: scale inputs instead of outputs
	RankDropout   float64 // probability that an output row of the change is left out, drawn per layer and forward
	ModuleDropout float64 // probability that a layer's adapter is left out
	NeuronDropout float64 // ordinary dropout on the adapter's output
	Strength      float64 // what the change of a loaded adapter is multiplied by; 0 = 1
	MaxNorm       bool    // the change's norm will be bounded: keep a scalar for it
	BlockScale    string  // dylora: a rule of BlockScales for the scale at some of the ranks; "" = active
	Form          Form
}

// Form says how a layer with its change is computed.
type Form uint8

// The forms. All give the same values.
const (
	FormAuto    Form = iota // the one of less work for the layer's size
	FormWeight              // by the changed weight: the reference
	FormFactors             // by the factors, without ΔW
)

// strength returns Strength, 1 where it is not set.
func (o Options) strength() float64 {
	if o.Strength == 0 {
		return 1
	}
	return o.Strength
}

// byFactors reports whether a form by the factors is taken, whose step costs work multiply-adds next to the frozen layer's; for a layer with rows rows of output the
// form by the weight costs a third product of the layer's size, and building, the cost of the change itself and its gradient.
func (o Options) byFactors(t Target, rows int, work, building float64) bool {
	switch o.Form {
	case FormWeight:
		return false
	case FormFactors:
		return true
	}
	return work < float64(rows)*float64(tensor.Elems(t.Shape))+building
}

// Adapter is the trained change of one layer.
type Adapter interface {
	nn.Adapter
	Target() Target
	Options() Options
	Algorithm() *Algorithm
	Rank() int
	// Factors returns everything that training reads or writes, in a fixed order.
	Factors() []*Factor
	// Inputs returns what a step must fill in for this layer.
	Inputs() []StepInput
	// Tensors returns the file form of the pulled values, keys without the module name.
	Tensors() []tensor.Named
	// Change emits ΔW, shaped like the weight, from the weight's values w: the reference form, and what tools merge. Strength and masks are in it.
	Change(b *nn.Builder, w *graph.Node) *graph.Node
}

// Bounded is an adapter that max-norm regularisation works on.
type Bounded interface {
	// BoundNorm scales the pulled change down to a norm of at most limit and returns the norm before and after.
	BoundNorm(limit float64) (before, after float64)
}

// Weighed is a Bounded adapter whose norm depends on the frozen weight: the one that its Forward saw, whose values Weigh shows it before each BoundNorm.
type Weighed interface {
	Frozen() *graph.Weight
	Weigh(weight []float32)
}

// Starter is an adapter whose first values depend on the frozen weight. Start is called once, before [Network.Allocate]; it changes host values only and
// does nothing for an adapter that came from a file.
type Starter interface{ Start(weight []float32) error }

// StepInput is a program input that changes with every forward.
type StepInput struct {
	Name string
	Size int
	Fill func(dst []float32, s *rng.Stream, step Step)
	Keep func(dst []float32) // the values by which nothing is left out; nil: ones
	// Trains reports whether a forward with these values gives a part of the adapter's factors a gradient. nil: it does.
	Trains func(values []float32, part int) bool
}

// Step is what a forward is about.
type Step struct{ Timesteps []int } // of the batch items

// Algorithm makes adapters of one kind.
type Algorithm struct {
	Name    string
	Aliases []string
	Doc     string
	Takes   []string // configuration keys that mean something to it, beside the dropouts' and those of every algorithm
	Keys    []string // suffixes of its tensors in files
	// Is reports whether a module of a file is of this algorithm, from the shapes of its tensors by suffix (nil: absent).
	Is   func(shape func(suffix string) []int) bool
	New  func(t Target, o Options, s *rng.Stream) (Adapter, error)
	Load func(t Target, tensors map[string]tensor.Tensor, o Options) (Adapter, error)
}

// All lists the algorithms, in the order in which a file's keys are tried.
var All = []*Algorithm{
	&LoRA,
	&LoHa,
	&IA3,
	&LoKr,
	&GLoKr,
	&Full,
	&Norm,
	&DiagOFT,
	&BOFT,
	&GLoRA,
	&DyLoRA,
	&TLoRA,
}

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

// marked returns an Is for modules that have one of keys.
func marked(keys ...string) func(func(string) []int) bool {
	return func(shape func(string) []int) bool {
		return slices.ContainsFunc(keys, func(k string) bool { return shape(k) != nil })
	}
}

// BiasChanger is an adapter that changes the layer's bias too.
type BiasChanger interface {
	// BiasChange returns the change of the bias of the host values, [O], with the adapter's strength.
	BiasChange() []float32
}
