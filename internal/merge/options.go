package merge

import (
	"lycoris/internal/tensor"
)

// How the magnitudes of DoRA are read at a strength.
const (
	AsConsumer = "consumer" // W + c·(V·m/‖V‖ − W) with V = W + ΔW: the change as a whole is scaled
	AsLycoris  = "lycoris"  // V·(c·(m/(‖V‖+ε) − 1) + 1): ΔW is whole inside
	AsComfy    = "comfy"    // magnitudes of outputs divide by ‖W‖
)

// What becomes of a checkpoint's running averages of the UNet.
const (
	EMAKeep  = "keep"
	EMAMerge = "merge" // changed as the UNet's weights are
	EMADrop  = "drop"
)

// Source is an adapter with its weights.
type Source struct {
	Path   string
	Weight float64
	UNet   *float64 // in place of [Options.UNet] for this adapter
	Text   [2]*float64
	Blocks *Blocks
}

// Options say what to merge.
type Options struct {
	Model          string
	Adapters       []Source
	Out            string
	UNet           float64      // multiplier of every adapter's UNet part
	Text           [2]float64   // of the text encoders' parts
	Blocks         *Blocks      // multipliers by block; nil: 1
	DType          tensor.DType // of UNet and text encoders; Invalid: each tensor keeps its own
	As             string
	EMA            string
	VAEDType       tensor.DType // of the VAE; Invalid: its own
	Variant        string       // of a folder's files: fp16; "": the usual ones
	Saturate       bool         // values too large for the element type become its largest
	Embeddings     string       // folder for what is bundled with adapters; "": none
	Force          bool         // overwrite embeddings
	AllowUnmatched bool
	Parts          []string // components to merge into; empty: all
	Version        string   // of the program, for the history
	Date           string   // modelspec.date; "" leaves it out
}
