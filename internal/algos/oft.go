package algos

import (
	"math"

	"lycoris/internal/fault"
	"lycoris/internal/graph"
	"lycoris/internal/nn"
	"lycoris/internal/tensor"
)

// Keys of Diag-OFT and BOFT files. alpha holds the constraint.
const (
	keyOFT     = "oft_blocks"
	keyOldOFT  = "oft_diag" // the rotations themselves: LyCORIS before 2.0
	keyRescale = "rescale"
)

// rotation is what Diag-OFT and BOFT share: the rows of the weight, which are the layer's outputs, go through stages of orthogonal blocks (Qiu et al., 2023,
// OFT; Liu et al., 2024, BOFT), and each may get a factor:
//
//	Q = A - Aᵀ, scaled down to a Frobenius norm of at most constraint·O over all blocks, where a constraint is given
//	R = (I+Q)(I-Q)⁻¹                           (Cayley)
//	M = μR + (1-μ)I                            per stage
//	W+ΔW = rescale∘M_last·P·…·P·M_first·W      with permutations P between the stages; Diag-OFT has one stage, of Mᵀ
//
// The bias is neither rotated nor rescaled. Rotations, unlike sums, see the strength μ at every stage.
type rotation struct {
	module
	stages    int // BOFT's; 1 for Diag-OFT
	count     int // blocks of a stage
	size      int // rows of a block
	butterfly bool
	blocks    *Factor // A [stages·count,size,size], or with direct R itself
	direct    bool
	rescale   *Factor // [O], nil without
	identity  *Factor // [size,size], never trained; nil where nothing is mixed with it
}

// newRotation makes the factors; r holds the sizes. Zero values of blocks and rescale are the start of training: nothing is rotated.
func newRotation(r rotation, t Target, o Options, key string, blocks, rescale []float32) *rotation {
	o.NeuronDropout, o.Rank = 0, r.size // dropout means nothing to it, as upstream
	if r.butterfly {
		o.RankDropout = 0
	}
	r.module = module{target: t, options: o, inputs: o.moduleInputs(t)}
	shape := []int{r.count, r.size, r.size}
	if r.butterfly {
		shape = append([]int{r.stages}, shape...)
	}
	r.blocks = r.factor(key, blocks, shape...)
	if o.Rescaled {
		if rescale == nil {
			rescale = ones(t.Out())
		}
		r.rescale = r.factor(keyRescale, rescale, t.Out())
	}
	if o.strength() != 1 || o.RankDropout > 0 || o.ModuleDropout > 0 {
		r.identity = r.factor("identity", nil, r.size, r.size)
		r.identity.Frozen = true
		for i := range r.size {
			r.identity.Host[i*r.size+i] = 1
		}
	}
	return &r
}

func ones(n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = 1
	}
	return v
}

// loadRotation reads constraint and rescale of a file, whose blocks r describes.
func loadRotation(r rotation, t Target, file stored, o Options, key string) (Adapter, error) {
	if r.count*r.size != t.Out() {
		return nil, fault.BadInput("", "%q: %s has shape %v, whose blocks don't cover the %d outputs", t.Name, key, file[key].Shape, t.Out())
	}
	var err error
	if o.Constraint, err = file.number(t, keyAlpha, 0); err != nil {
		return nil, err
	}
	var rescale []float32
	if _, o.Rescaled = file[keyRescale]; o.Rescaled {
		if rescale, err = file.values(t, keyRescale, t.Out()); err != nil {
			return nil, err
		}
	}
	return newRotation(r, t, o, key, file[key].Float32(), rescale), nil
}

func (r *rotation) Algorithm() *Algorithm {
	if r.butterfly {
		return &BOFT
	}
	return &DiagOFT
}

// matrices emits what each stage multiplies by, [count,size,size], acting on rows in the order of turn.
func (r *rotation) matrices(b *nn.Builder) []*graph.Node {
	g, n, s := b.G, r.count, r.size
	m := b.Param(r.blocks.Param)
	if r.butterfly { // A block's rows are pairs, one of each half; turn keeps the halves together.
		if s > 2 {
			m = g.Permute(g.Reshape(m, r.stages*n, s/2, 2, s/2, 2), 0, 2, 1, 4, 3)
		}
	} else {
		m = g.Permute(m, 0, 2, 1) // R(Aᵀ) = R(A)ᵀ
	}
	m = g.Reshape(m, r.stages*n, s, s)
	if !r.direct {
		m = g.Cayley(m, float32(r.options.Constraint*float64(r.target.Out())))
	}
	mu := float32(r.options.strength())
	m = r.options.dropElements(b, r.target, g.Scale(m, mu))
	if mu != 1 {
		m = g.AddBlocks(m, g.Scale(b.Param(r.identity.Param), 1-mu), 1)
	}
	all := make([]*graph.Node, r.stages)
	for i := range all {
		all[i] = m
		if r.stages > 1 {
			all[i] = g.Items(m, i*n, (i+1)*n)
		}
	}
	if r.rescale != nil {
		factor := b.Param(r.rescale.Param)
		if r.butterfly { // in the order of the last stage's rows
			last := r.stages - 1
			factor = g.Permute(g.Reshape(factor, n>>last, 2, 1<<last, s/2), 0, 2, 1, 3)
		}
		all[r.stages-1] = g.MulBlocks(all[r.stages-1], factor, s)
	}
	if r.options.ModuleDropout > 0 { // I + switch·(M - I)
		one := b.Param(r.identity.Param)
		for i, m := range all {
			all[i] = g.AddBlocks(r.options.maskModule(b, r.target, g.AddBlocks(m, g.Scale(one, -1), 1)), one, 1)
		}
	}
	return all
}

// turn emits the stages on the rows of x [O,…]. Stage i takes the rows as axes [n/2ⁱ,2,2ⁱ,s/2] and joins the halves of the second axis to blocks (a
// perfect shuffle, as upstream does it, when the rows of a block are read as pairs). Left as [n/2ⁱ,2ⁱ,2,s/2] by stage i, they need one exchange of axes before
// the next stage and one after the last.
func (r *rotation) turn(b *nn.Builder, x *graph.Node) *graph.Node {
	g, n, s, rest := b.G, r.count, r.size, x.Elems()/r.target.Out()
	for i, m := range r.matrices(b) {
		x = g.BatchMatMul(m, g.Reshape(x, n, s, rest), graph.MatMulOptions{})
		switch {
		case i+1 < r.stages:
			x = g.Permute(g.Reshape(x, n>>(i+1), 2, 1<<i, 2, s/2*rest), 0, 3, 2, 1, 4)
		case r.stages > 1:
			x = g.Permute(g.Reshape(x, n>>i, 1<<i, 2, s/2*rest), 0, 2, 1, 3)
		}
	}
	return x
}

// changed emits W+ΔW.
func (r *rotation) changed(b *nn.Builder, w *graph.Node) *graph.Node {
	return b.G.Reshape(r.turn(b, w), w.Shape()...)
}

// Forward rotates the weight or, where that is less work, the product's outputs, before bias and residual. An adapter above others adds the difference
// to their result.
func (r *rotation) Forward(b *nn.Builder, layer *nn.Layer, x *graph.Node, extra nn.Extra) *graph.Node {
	t := rows(layer, x)
	if !r.options.byFactors(r.target, t, r.outputWork(t), r.weightWork(t)) {
		return r.throughWeight(b, layer, x, extra, r)
	}
	g := b.G
	bare := *layer
	bare.Bias, bare.Result = nil, nil
	y := bare.Base(g, x, nn.Extra{})
	out := g.Reshape(r.turnOutputs(b, g.Reshape(y, t, r.target.Out())), y.Shape()...)
	if layer.Result != nil {
		return g.Add(layer.Result, g.Combine(out, 1, y, -1))
	}
	if layer.Bias != nil {
		out = g.AddBlocks(out, layer.Bias, 1)
	}
	if extra.PerItem != nil {
		out = g.AddItems(out, extra.PerItem)
	}
	if extra.Add != nil {
		out = g.Add(out, extra.Add)
	}
	return out
}

// turnOutputs emits the stages on the outputs y [rows,O]: one as it is, several on y turned over, where what moves between stages is whole rows. The stages'
// values are computed again for the gradient, or a layer would keep as many per stage as it has outputs.
func (r *rotation) turnOutputs(b *nn.Builder, y *graph.Node) *graph.Node {
	g := b.G
	if r.stages == 1 {
		return g.BlockMatMul(y, r.matrices(b)[0], true)
	}
	var turned *graph.Node
	g.Transient(func() { turned = r.turn(b, g.Permute(y, 1, 0)) })
	return g.Permute(g.Reshape(turned, r.target.Out(), y.Elems()/r.target.Out()), 1, 0)
}

// What a value costs for forward and gradient, in multiply-adds of a large product (some 36 a nanosecond on a Zen 3 core with AVX2): fitted to BenchmarkForms.
// Blocks are small, so that it is the moving that counts.
const (
	stageCost      = 100 // in a stage of turn, and for each row of a block
	stageRowCost   = 10
	turnedCost     = 170 // turned over and back
	blockCost      = 220 // in a product of blocks with rows as they are, and for each row of a block
	blockRowCost   = 6
	rotatedWeights = 60 // a weight expanded, and its gradient
)

// outputWork returns the cost of the stages on rows of outputs.
func (r *rotation) outputWork(rows int) float64 {
	values, size := float64(rows)*float64(r.target.Out()), float64(r.size)
	if r.stages == 1 {
		return values * (blockCost + blockRowCost*size)
	}
	return values * (turnedCost + float64(r.stages)*(stageCost+stageRowCost*size))
}

// weightWork returns the cost of the stages on the weight and, for a convolution, of doing without the short cut (Winograd's) that a frozen kernel has.
func (r *rotation) weightWork(rows int) float64 {
	values := float64(tensor.Elems(r.target.Shape))
	work := values * (rotatedWeights + float64(r.stages)*(stageCost+stageRowCost*float64(r.size)))
	if r.target.HasWindow() {
		work += float64(rows) * values
	}
	return work
}

// Change emits the difference that the stages make to W.
func (r *rotation) Change(b *nn.Builder, w *graph.Node) *graph.Node {
	return b.G.Combine(r.changed(b, w), 1, w, -1)
}

// BoundNorm is upstream's apply_max_norm: it bounds the Frobenius norm of the raw blocks, not of the change.
func (r *rotation) BoundNorm(limit float64) (before, after float64) {
	var sum float64
	for _, v := range r.blocks.Host {
		sum += float64(v) * float64(v)
	}
	before = math.Sqrt(sum)
	n := math.Max(before, limit/2)
	ratio := math.Min(n, limit) / n
	if ratio != 1 {
		for i, v := range r.blocks.Host {
			r.blocks.Host[i] = float32(float64(v) * ratio)
		}
	}
	return before, before * ratio
}

// Tensors returns the blocks as they are trained, rescale [O,1] or [O,1,1,1], and the constraint as alpha.
func (r *rotation) Tensors() []tensor.Named {
	all := []tensor.Named{{Name: r.key(), Tensor: tensor.FromFloat32(tensor.F32, r.blocks.Param.Shape, r.blocks.Host)}}
	if r.rescale != nil {
		shape := make([]int, len(r.target.Shape))
		for i := range shape {
			shape[i] = 1
		}
		shape[0] = r.target.Out()
		all = append(all, tensor.Named{Name: keyRescale, Tensor: tensor.FromFloat32(tensor.F32, shape, r.rescale.Host)})
	}
	return append(all, tensor.Named{Name: keyAlpha, Tensor: tensor.FromFloat32(tensor.F32, nil, []float32{float32(r.options.Constraint)})})
}

func (r *rotation) key() string {
	if r.direct {
		return keyOldOFT
	}
	return keyOFT
}
