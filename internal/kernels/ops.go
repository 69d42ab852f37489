// Package kernels defines the op set: everything the engine can compute, once, for every implementation.
//
// A [Backend] is one implementation: ref (plain Go, the definition of right), cpu (C) and, later, cuda. Buffers are []float32. For a host
// backend they are host memory; for a device backend the slice header names device memory, is only ever sliced and passed on, and must not
// be read or written by the host ([Backend.Upload], [Backend.Download] do that). Sizes come in small structs; lengths are checked by the binding and a
// mismatch is a bug, so it panics with the op's name and both sizes.
//
// What always holds: everything is float32 but frozen weights, which keep their file's element type inside a [Weight]. Activations are
// channels-last: images [N,H,W,C], tokens [N,T,D], rows [M,D]. Outputs come first. Outputs are assigned, not added to, unless the name says so
// (Axpy) or an add operand is given: then the op writes result + add, and add may be the output itself. No other aliasing is allowed but where an
// op says so. Results depend on inputs and sizes only: never on threads, timing or earlier calls. nil for an optional output skips it.
//
// Every op here has a twin in ref/ and a case in kernelstest. Gradient ops are named after the op they differentiate.
package kernels

import "lycoris/internal/tensor"

// Weight is a frozen matrix [O,I] or convolution kernel [O,I,kh,kw] in a backend's own layout, in its file's precision.
type Weight interface {
	Shape() []int
	DType() tensor.DType // F32, F16 or BF16: the precision it is stored in
	Bytes() int64        // memory it takes
}

// Epilogue is what a Linear or Conv2d adds before it stores. Any field may be nil.
type Epilogue struct {
	Bias    []float32 // [O], added to every row or pixel
	PerItem []float32 // [N,O], added to every row or pixel of batch item n (the time embedding of a ResBlock)
	Add     []float32 // like the output, which it may be itself (a residual)
}

// Conv gives the sizes of a 2-D convolution of channels-last images with kernel [O,C,KH,KW].
type Conv struct {
	N, H, W, C int  // input [N,H,W,C], before the upsampling
	O, KH, KW  int  // kernel
	Stride     int  // both axes
	PadT, PadL int  // zeros above and to the left
	OH, OW     int  // output [N,OH,OW,O]; the padding below and to the right follows from it
	Upsample   bool // the input is doubled by nearest neighbour first
}

// Rows returns the output pixels N·OH·OW.
func (c Conv) Rows() int { return c.N * c.OH * c.OW }

// FreeConv is a [Conv] whose kernel is not frozen, for [Backend.ScratchBytes] of ConvFree and its gradients.
type FreeConv Conv

// MatMul gives the sizes of c[b] = alpha·op(a[b])·op(b[b]) + epilogue, all row-major, op(a) [M,K] and op(b) [K,N]. With Sum, the products of all items are
// added: c [M,N] = alpha·Σ op(a[b])·op(b[b]) + epilogue.
type MatMul struct {
	Batch          int // 1 or more
	M, N, K        int
	TransA, TransB bool    // a is stored [K,M], b is stored [N,K]
	StrideA        int     // elements from one item of a to the next; 0 = the same for every item
	StrideB        int     // same for b
	Alpha          float32 // 1 for a plain product
	Sum            bool    // one result: the gradient of an operand that every item shares
}

// BlockMatMul gives the sizes of a product with a block-diagonal matrix: x [M,N·S] times N blocks r [N,S,T], or transposed r [N,T,S], is [M,N·T].
type BlockMatMul struct {
	M, N, S, T int
	Trans      bool // block k is r[k]ᵀ
}

// Attention gives the sizes of softmax(scale·q·kᵀ)·v per head. q and out are [N,TQ,Heads·D], k and v [N,TK,Heads·D]; head h is the column
// range [h·D,(h+1)·D).
type Attention struct {
	N, Heads, TQ, TK, D int
	Scale               float32 // D^-0.5
	Causal              bool    // query i sees keys 0..i
}

// GroupNorm gives the sizes of a group normalisation of x [N,P,C] (P pixels) with Groups groups of C/Groups channels.
type GroupNorm struct {
	N, P, C, Groups int
	Eps             float32
	SiLU            bool // y = silu(norm(x)): the activation that follows it nearly everywhere
}

// LayerNorm gives the sizes of a layer normalisation of the rows of x [M,D].
type LayerNorm struct {
	M, D int
	Eps  float32
}

// Cayley gives the sizes of the rotations r [N,S,S] of skew matrices: per block Q = a − aᵀ and r = (I+Q)·(I−Q)⁻¹ (Cayley, 1846), which is orthogonal. With
// Limit above 0, q = ‖Q‖ + 1e-8, the Frobenius norm over all blocks, is bounded: where q > Limit, Q is multiplied by Limit/q.
type Cayley struct {
	N, S  int
	Limit float32
}

// Activation is a function applied to each element.
type Activation uint8

// The activations: x·σ(x), x·Φ(x) with the error function, and x·σ(1.702x).
const (
	SiLU Activation = iota
	GELU
	QuickGELU
)

// AdamW gives one decoupled Adam step (Loshchilov and Hutter, 2019, algorithm 2, in PyTorch's order): p -= lr·decay·(p + origin);
// m = β1·m+(1-β1)·g; v = β2·v+(1-β2)·g²; p -= lr/(1-β1^t) · m / (sqrt(v)/sqrt(1-β2^t) + eps).
type AdamW struct {
	LR, Beta1, Beta2, Eps, Decay float64
	Step                         int     // t, from 1
	GradScale                    float32 // g is multiplied by it first (clipping)
	Origin                       Weight  // with as many values as p, which is a difference to them: the decay is that of their sum; nil: of p alone
}

// Backend computes the op set in one kind of memory. It isn't safe for concurrent calls.
type Backend interface {
	Name() string // "ref", "cpu/avx2", …

	// Alloc returns n zeroed floats at a 64-byte boundary, from outside the Go heap; the error is of kind fault.Memory.
	Alloc(n int) ([]float32, error)
	Free([]float32)
	Upload(dst, src []float32)   // host to backend
	Download(dst, src []float32) // backend to host

	// Pack lays a frozen [O,I] or [O,I,kh,kw] weight out for Linear and Conv2d. F32, F16 and BF16 keep their precision; src.Data is not kept.
	Pack(src tensor.Tensor) (Weight, error)
	Unpack(Weight) []float32 // its values, row-major, on the host: for merging and tests
	// Expand: y = the values of w, row-major, + add; add may be nil or y.
	Expand(y []float32, w Weight, add []float32)
	Release(Weight)

	// ScratchBytes returns what the ops of these sizes (values of Conv, MatMul, Attention, …, or LinearSize) need beside their
	// operands at once; the backend keeps the largest and reuses it.
	ScratchBytes(size any) int64

	// Linear: y [M,O] = x [M,I]·Wᵀ + epilogue; with PerItem, items are M/n rows each where n = len(PerItem)/O.
	Linear(y, x []float32, w Weight, m int, e Epilogue)
	// LinearGrad: dx [M,I] = dy [M,O]·W + add.
	LinearGrad(dx, dy []float32, w Weight, m int, add []float32)
	// LinearChanged: y [M,O] = x [M,I]·(W+D)ᵀ + epilogue with d [O,I] row-major, W+D rounded to float32. It needs the scratch of Linear.
	LinearChanged(y, x []float32, w Weight, d []float32, m int, e Epilogue)
	// Conv2d: y = conv(x, W) + epilogue. Weights of shape [O,C] count as 1×1.
	Conv2d(y, x []float32, w Weight, c Conv, e Epilogue)
	// Conv2dGrad: dx = the gradient with respect to x, + add.
	Conv2dGrad(dx, dy []float32, w Weight, c Conv, add []float32)

	// ConvFree, ConvFreeGrad, ConvWeightGrad: the same convolution for a kernel that is not frozen: w and dw are row-major [O,C,KH,KW].
	ConvFree(y, x, w []float32, c Conv, e Epilogue)
	ConvFreeGrad(dx, dy, w []float32, c Conv, add []float32)
	ConvWeightGrad(dw, dy, x []float32, c Conv)

	// MatMul: c = alpha·op(a)·op(b) + epilogue. PerItem only for one item or a sum, whose rows are then M/n each.
	MatMul(c, a, b []float32, e Epilogue, s MatMul)
	// BlockMatMul: y[m,k,:] = x[m,k,:]·r[k] + add for each block k of columns. BlockMatMulGrad: dr[k] = x[:,k,:]ᵀ·dy[:,k,:], transposed like r. The gradient
	// with respect to x is BlockMatMul with S and T exchanged and Trans turned over.
	BlockMatMul(y, x, r, add []float32, s BlockMatMul)
	BlockMatMulGrad(dr, dy, x []float32, s BlockMatMul)

	// GroupNorm writes y and stats [N,Groups,2] (mean, 1/deviation). gamma and beta are [C].
	GroupNorm(y, stats, x, gamma, beta []float32, s GroupNorm)
	GroupNormGrad(dx, dy, x, stats, gamma, beta, add []float32, s GroupNorm)
	// GroupNormParamGrad writes dgamma and dbeta [C].
	GroupNormParamGrad(dgamma, dbeta, dy, x, stats, gamma, beta []float32, s GroupNorm)
	// LayerNorm writes y and stats [M,2] (mean, 1/deviation). gamma and beta are [D].
	LayerNorm(y, stats, x, gamma, beta []float32, s LayerNorm)
	LayerNormGrad(dx, dy, x, stats, gamma, add []float32, s LayerNorm)
	LayerNormParamGrad(dgamma, dbeta, dy, x, stats []float32, s LayerNorm)

	// Attention writes out and lse [N,Heads,TQ], the log of each query's sum of exponentials.
	Attention(out, lse, q, k, v []float32, s Attention)
	// AttentionGrad writes dq, dk, dv; any of them may be nil.
	AttentionGrad(dq, dk, dv, dout, out, lse, q, k, v []float32, s Attention)

	// Activate: y = f(x), y may be x. ActivateGrad: dx = dy·f'(x), dx may be dy.
	Activate(y, x []float32, f Activation)
	ActivateGrad(dx, dy, x []float32, f Activation)
	// GEGLU: x [M,2D], y [M,D] = x[:,:D] · gelu(x[:,D:]), error-function gelu.
	GEGLU(y, x []float32, m, d int)
	GEGLUGrad(dx, dy, x []float32, m, d int)

	// Combine: y = alpha·a + beta·b; y may be a or b. Scale: y = alpha·x; y may be x. Mul: y = a·b; y may be a or b.
	Combine(y, a []float32, alpha float32, b []float32, beta float32)
	Scale(y, x []float32, alpha float32)
	Mul(y, a, b []float32)
	// Axpy: y += alpha·x.
	Axpy(y, x []float32, alpha float32)
	// MulBlocks: y[i] = x[i]·s[(i/inner) mod len(s)]; y may be x. inner 1 scales columns (len(s) = D), inner D scales rows, inner P·C items.
	MulBlocks(y, x, s []float32, inner int)
	// SumBlocks: s[j] = Σ over i with (i/inner) mod len(s) = j of a[i]·b[i]; b nil means ones. The gradient of MulBlocks and of broadcasts.
	SumBlocks(s, a, b []float32, inner int)
	// AddBlocks: y[i] = x[i] + s[(i/inner) mod len(s)]; y may be x.
	AddBlocks(y, x, s []float32, inner int)

	// Cayley: r from a, both [N,S,S]. CayleyGrad: da from dr and r, with X = (I−Q)⁻¹ = (I+r)/2: GQ = 2·Xᵀ·dr·Xᵀ; where the bound acts on Q0 = a − aᵀ, GQ becomes
	// (Limit/q)·(GQ − ⟨GQ,Q0⟩/(q·‖Q0‖)·Q0), the product over all blocks; da = GQ − GQᵀ.
	Cayley(r, a []float32, s Cayley)
	CayleyGrad(da, dr, r, a []float32, s Cayley)
	// NormRatio: f[i] = mu·(d[i]/(sqrt(ss[i]) + eps) − 1) + 1: what DoRA scales a row or column of a weight with sum of squares ss[i] by, so
	// that its norm becomes d[i] (lycoris-lora 4.1.3, _weight_decompose). NormRatioGrad: dd[i] = df[i]·mu/n and dss[i] = −df[i]·mu·d[i]/(n²·2·sqrt(ss[i])) with
	// n = sqrt(ss[i]) + eps; dss[i] = 0 where ss[i] is 0. dd or dss may be nil.
	NormRatio(f, d, ss []float32, eps, mu float32)
	NormRatioGrad(dd, dss, df, d, ss []float32, eps, mu float32)

	// CopyColumns: dst[r, dstOff:dstOff+cols] = src[r, srcOff:srcOff+cols] for rows r; row lengths dstLD and srcLD.
	CopyColumns(dst []float32, dstLD, dstOff int, src []float32, srcLD, srcOff, rows, cols int)
	// Permute: y = x with its axes reordered; axis i of y is axis perm[i] of x [shape]. At most 6 axes.
	Permute(y, x []float32, shape, perm []int)
	// GatherRows: y[i] = x[index[i]], rows of length d. ScatterRows: y[index[i]] += x[i] after y was zeroed; in the order of i.
	GatherRows(y, x []float32, index []int32, d int)
	ScatterRows(y, x []float32, index []int32, d int)
	// UpsampleGrad and Upsample: nearest neighbour ×2 of [N,H,W,C] and its gradient; H and W are those of the small image.
	Upsample(y, x []float32, n, h, w, c int)
	UpsampleGrad(dx, dy []float32, n, h, w, c int)

	// SquaredError: loss [N], loss[n] = mean over item n of (pred-target)². SquaredErrorGrad: dpred = dloss[n]·2·(pred-target)/per.
	SquaredError(loss, pred, target []float32, n int)
	SquaredErrorGrad(dpred, dloss, pred, target []float32, n int)

	// Dropout: y[i] = x[i]·keep(i)/(1-p), keep drawn from Philox with key seed (two words of random bits, as float32 bit patterns) and counter
	// (i, salt). seed[2] below 0.5 switches it off (y = x). y may be x. Its gradient is itself.
	Dropout(y, x, seed []float32, salt uint64, p float32)

	// SumSquares returns Σ x², summed in float64 in a fixed order, on the host.
	SumSquares(x []float32) float64
	// AdamW updates p, m and v from g.
	AdamW(p, m, v, g []float32, s AdamW)
}

// LinearSize names the sizes of a Linear for [Backend.ScratchBytes].
type LinearSize struct{ M, O, I int }
