package algos

import (
	"math"
	"slices"

	"lycoris/internal/fault"
	"lycoris/internal/graph"
	"lycoris/internal/nn"
	"lycoris/internal/rng"
	"lycoris/internal/tensor"
)

// DyLoRA is a LoRA whose ranks are ordered (Valipour et al., 2022): each forward draws a block k, uses the blocks 0..k and trains block k alone, so that the
// adapter may be cut behind any block. The file is a plain LoRA's: it is known by the run's choice only.
var DyLoRA = Algorithm{
	Name:  "dylora",
	Doc:   "a LoRA that works when cut to fewer ranks",
	Takes: []string{"dim", "alpha", "block_size"},
	Keys:  []string{keyDown, keyUp, keyAlpha},
	Is:    marked(keyUp, keyDown),
	New:   newDyLoRA,
	Load:  loadDyLoRA,
}

// Rules for the scale at ranks of them all, where alpha is the file's: names as in resize.
const (
	scaleActive  = "active"  // alpha/ranks: what a reader of the file cut there applies
	scaleKohya   = "kohya"   // alpha/all·√(all/ranks): sd-scripts
	scaleLycoris = "lycoris" // alpha/blocks: lycoris-lora
)

// BlockScales lists the rules of Options.BlockScale.
var BlockScales = []string{scaleActive, scaleKohya, scaleLycoris}

// dylora holds ΔW = s(k)·Σ up[p]·down[p] over the ranks p of the blocks 0..k.
//
// Both factors lie block after block, so that an update can leave out the blocks that no forward trained: moments and their counts stand still, as torch does where
// a gradient is None. Ranks beyond the block are computed too and multiplied by zero: the program is the same for every k.
type dylora struct {
	module
	size     int     // ranks of a block
	up, down *Factor // [R,O] and [R,I] or [R,I,kh,kw]
}

func newDyLoRA(t Target, o Options, s *rng.Stream) (Adapter, error) {
	if o.Rank < 1 {
		return nil, fault.BadUsage("dim", "%d is not a rank: 1 or more", o.Rank)
	}
	a, err := sizedDyLoRA(t, o)
	if err != nil {
		return nil, err
	}
	a.down.Host = kaimingUniform(s, tensor.Elems(t.Shape[1:]), a.down.Param.Shape...)
	return a, nil
}

func sizedDyLoRA(t Target, o Options) (*dylora, error) {
	o.RankDropout, o.NeuronDropout = 0, 0 // mean nothing to it, as upstream
	o.BlockSize = max(o.BlockSize, 1)
	if o.Alpha == 0 {
		o.Alpha = float64(o.Rank)
	}
	if o.BlockScale == "" {
		o.BlockScale = scaleActive
	}
	if !slices.Contains(BlockScales, o.BlockScale) {
		return nil, fault.BadUsage("", "%q is not a rule for DyLoRA's scale", o.BlockScale)
	}
	if o.Rank%o.BlockSize != 0 {
		return nil, fault.BadUsage("block_size", "rank %d of %q is not a multiple of block_size %d", o.Rank, t.Name, o.BlockSize)
	}
	a := &dylora{module: module{target: t, options: o}, size: o.BlockSize}
	a.up = a.factor("up_list", nil, o.Rank, t.Out())
	a.down = a.factor("down_list", nil, append([]int{o.Rank}, t.Shape[1:]...)...)
	a.up.Parts, a.down.Parts = a.Blocks(), a.Blocks()
	a.inputs = []StepInput{{Name: a.inputName(), Size: 2 * a.Blocks(), Fill: a.draw, Keep: a.keep, Trains: a.trains}}
	return a, nil
}

func loadDyLoRA(t Target, tensors map[string]tensor.Tensor, o Options) (Adapter, error) {
	file := stored(tensors)
	r, err := file.rank(t, keyDown, 0)
	if err != nil {
		return nil, err
	}
	o.Rank = r
	if o.Alpha, err = file.number(t, keyAlpha, float64(r)); err != nil {
		return nil, err
	}
	down, err := file.values(t, keyDown, append([]int{r}, t.Shape[1:]...)...)
	if err != nil {
		return nil, err
	}
	up, err := file.values(t, keyUp, t.Out(), r)
	if err != nil {
		return nil, err
	}
	a, err := sizedDyLoRA(t, o)
	if err != nil {
		return nil, err
	}
	a.down.Host, a.up.Host = down, transposed(up, t.Out(), r)
	return a, nil
}

// transposed returns the transpose of m [rows,cols].
func transposed(m []float32, rows, cols int) []float32 {
	out := make([]float32, len(m))
	for i := range rows {
		for j := range cols {
			out[j*rows+i] = m[i*cols+j]
		}
	}
	return out
}

func (a *dylora) Algorithm() *Algorithm { return &DyLoRA }

// Blocks returns the number of blocks.
func (a *dylora) Blocks() int { return a.options.Rank / a.size }

// scale returns the scale with the blocks 0..k.
func (a *dylora) scale(k int) float64 {
	alpha, ranks, all := a.options.Alpha, float64((k+1)*a.size), float64(a.options.Rank)
	switch a.options.BlockScale {
	case scaleKohya:
		return alpha / all * math.Sqrt(all/ranks)
	case scaleLycoris:
		return alpha / float64(k+1)
	}
	return alpha / ranks
}

func (a *dylora) inputName() string { return "blocks " + a.target.Name }

// Use returns the program input by which the blocks 0..k are used and block k is trained: for each block its scale, 0 where it is not used, then for each
// block whether it is trained.
func (a *dylora) Use(k int) (input string, values []float32) {
	n := a.Blocks()
	values = make([]float32, 2*n)
	for i := range k + 1 {
		values[i] = float32(a.scale(k))
	}
	values[n+k] = 1
	return a.inputName(), values
}

// draw uses and trains a block of the stream's choice, or none where module dropout says so.
func (a *dylora) draw(dst []float32, s *rng.Stream, _ Step) {
	clear(dst)
	dropped := a.options.ModuleDropout > 0 && s.Float64() < a.options.ModuleDropout
	if k := s.IntN(a.Blocks()); !dropped {
		_, values := a.Use(k)
		copy(dst, values)
	}
}

// keep uses all blocks.
func (a *dylora) keep(dst []float32) {
	n := a.Blocks()
	_, values := a.Use(n - 1)
	copy(dst, values)
	for i := range n {
		dst[n+i] = 1
	}
}

func (a *dylora) trains(values []float32, block int) bool { return values[a.Blocks()+block] != 0 }

// gated emits down [R,·] with gradients for the trained block alone, and so up [R,O], times scale and μ.
func (a *dylora) gated(b *nn.Builder) (down, up *graph.Node) {
	g, n := b.G, a.Blocks()
	in := b.Input(a.inputName(), 2*n)
	scales, live := g.Items(in, 0, n), g.Items(in, n, 2*n)
	down, up = b.Param(a.down.Param), b.Param(a.up.Param)
	down = g.Gate(down, live, down.Elems()/n)
	up = g.MulBlocks(g.Gate(up, live, up.Elems()/n), scales, up.Elems()/n)
	return down, g.Scale(up, float32(a.options.strength()))
}

// Forward emits base(x) + h·up with h the low-rank image of x: never ΔW, never a full weight gradient.
func (a *dylora) Forward(b *nn.Builder, layer *nn.Layer, x *graph.Node, extra nn.Extra) *graph.Node {
	if a.options.Form == FormWeight {
		return a.throughWeight(b, layer, x, extra, a)
	}
	g := b.G
	base := layer.Base(g, x, extra)
	down, up := a.gated(b)
	var h *graph.Node
	if a.target.HasWindow() {
		h = g.ConvFree(x, down, nil, nil, nil, layer.Conv)
	} else {
		h = g.MatMul(x, g.Reshape(down, a.options.Rank, a.target.In()), graph.MatMulOptions{TransB: true})
	}
	return g.MatMul(h, up, graph.MatMulOptions{Add: base})
}

// Change emits Σ s·up[p]·down[p].
func (a *dylora) Change(b *nn.Builder, _ *graph.Node) *graph.Node {
	down, up := a.gated(b)
	product := b.G.MatMul(up, b.G.Reshape(down, a.options.Rank, down.Elems()/a.options.Rank), graph.MatMulOptions{TransA: true})
	return b.G.Reshape(product, a.target.Shape...)
}

// Tensors returns a LoRA's: lora_up [O,R] with the axes of a 1×1 kernel for convolutions, which upstream leaves out.
func (a *dylora) Tensors() []tensor.Named {
	t, r := a.target, a.options.Rank
	up := []int{t.Out(), r}
	if t.IsConv() {
		up = append(up, 1, 1)
	}
	return []tensor.Named{
		{Name: keyAlpha, Tensor: tensor.FromFloat32(tensor.F32, nil, []float32{float32(a.options.Alpha)})},
		{Name: keyUp, Tensor: tensor.FromFloat32(tensor.F32, up, transposed(a.up.Host, r, t.Out()))},
		{Name: keyDown, Tensor: tensor.FromFloat32(tensor.F32, a.down.Param.Shape, a.down.Host)},
	}
}
