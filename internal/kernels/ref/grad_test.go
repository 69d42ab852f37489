package ref_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"lycoris/internal/kernels"
	"lycoris/internal/kernels/ref"
	"lycoris/internal/tensor"
	"lycoris/internal/testutil"
)

// Gradient checks. The loss is Σ dy·y over an op's output with random dy, summed in float64, so that the gradient op with that dy is the loss's
// gradient. Differences are central at 1/32 and 1/16 combined (testutil.CheckGrad): the method's error and the float32 rounding of y both come
// to about 1e-5 of the largest slope on these sizes; a wrong formula is off by far more than the bound. No op here has a kink.
const (
	step = 1.0 / 32
	tol  = 1e-4
)

// gradCase is an op with operands x: forward computes y from them, backward the gradients from dy.
type gradCase struct {
	name     string
	x        [][]float32
	outputs  int
	forward  func(y []float32)
	backward func(dx [][]float32, dy []float32)
	step     float64 // 0: step
}

func (c gradCase) run(t *testing.T, rnd *rand.Rand) {
	t.Run(c.name, func(t *testing.T) {
		if c.step == 0 {
			c.step = step
		}
		dy, y := standard(rnd, c.outputs), make([]float32, c.outputs)
		dx := make([][]float32, len(c.x))
		for i, x := range c.x {
			dx[i] = make([]float32, len(x))
		}
		c.forward(y)
		c.backward(dx, dy)
		loss := func() float64 {
			c.forward(y)
			var sum float64
			for i, v := range y {
				sum += float64(v) * float64(dy[i])
			}
			return sum
		}
		for i, x := range c.x {
			testutil.CheckGrad(t, loss, x, dx[i], c.step, tol)
		}
	})
}

func standard(rnd *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(rnd.NormFloat64())
	}
	return v
}

// packed returns a frozen F32 weight with these values.
func packed(t *testing.T, values []float32, shape ...int) kernels.Weight {
	t.Helper()
	var data []byte
	for _, v := range values {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
	}
	w, err := ref.Open().Pack(tensor.Tensor{DType: tensor.F32, Shape: shape, Data: data})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestLinearGrad(t *testing.T) {
	rnd, b := rand.New(rand.NewPCG(3, 4)), ref.Open()
	const m, o, i = 5, 7, 3
	w := packed(t, standard(rnd, o*i), o, i)
	x, bias, add := standard(rnd, m*i), standard(rnd, o), standard(rnd, m*i)
	gradCase{name: "x", x: [][]float32{x}, outputs: m * o,
		forward:  func(y []float32) { b.Linear(y, x, w, m, kernels.Epilogue{Bias: bias}) },
		backward: func(dx [][]float32, dy []float32) { b.LinearGrad(dx[0], dy, w, m, nil) },
	}.run(t, rnd)
	// The loss with Σ add·x has the gradient with the add operand.
	gradCase{name: "x with add", x: [][]float32{x}, outputs: m*o + 1,
		forward: func(y []float32) {
			b.Linear(y[:m*o], x, w, m, kernels.Epilogue{})
			y[m*o] = 0
			for j := range x {
				y[m*o] += x[j] * add[j]
			}
		},
		backward: func(dx [][]float32, dy []float32) {
			scaled := make([]float32, len(add))
			b.Scale(scaled, add, dy[m*o])
			b.LinearGrad(dx[0], dy[:m*o], w, m, scaled)
		},
	}.run(t, rnd)
	items := standard(rnd, 2*o)
	rows := standard(rnd, 6*i)
	gradCase{name: "epilogue", x: [][]float32{bias, items}, outputs: 6 * o,
		forward: func(y []float32) { b.Linear(y, rows, w, 6, kernels.Epilogue{Bias: bias, PerItem: items}) },
		backward: func(dx [][]float32, dy []float32) {
			b.SumBlocks(dx[0], dy, nil, 1)
			for n := range 2 {
				b.SumBlocks(dx[1][n*o:][:o], dy[n*3*o:][:3*o], nil, 1)
			}
		},
	}.run(t, rnd)
}

func TestConvGrad(t *testing.T) {
	rnd, b := rand.New(rand.NewPCG(5, 6)), ref.Open()
	for _, c := range []kernels.Conv{
		{N: 2, H: 3, W: 4, C: 2, O: 3, KH: 3, KW: 3, Stride: 1, PadT: 1, PadL: 1, OH: 3, OW: 4},
		{N: 1, H: 5, W: 4, C: 2, O: 2, KH: 3, KW: 3, Stride: 2, PadT: 1, PadL: 1, OH: 3, OW: 2},
		{N: 1, H: 4, W: 6, C: 2, O: 2, KH: 3, KW: 3, Stride: 2, OH: 2, OW: 3},
		{N: 2, H: 2, W: 3, C: 2, O: 2, KH: 3, KW: 3, Stride: 1, PadT: 1, PadL: 1, OH: 4, OW: 6, Upsample: true},
		{N: 1, H: 3, W: 3, C: 4, O: 3, KH: 1, KW: 1, Stride: 1, OH: 3, OW: 3},
		{N: 1, H: 4, W: 5, C: 1, O: 2, KH: 2, KW: 3, Stride: 1, PadT: 1, PadL: 0, OH: 5, OW: 3},
	} {
		kernel, x := standard(rnd, c.O*c.C*c.KH*c.KW), standard(rnd, c.N*c.H*c.W*c.C)
		w := packed(t, kernel, c.O, c.C, c.KH, c.KW)
		name := fmt.Sprintf("%+v", c)
		gradCase{name: "frozen " + name, x: [][]float32{x}, outputs: c.Rows() * c.O,
			forward:  func(y []float32) { b.Conv2d(y, x, w, c, kernels.Epilogue{}) },
			backward: func(dx [][]float32, dy []float32) { b.Conv2dGrad(dx[0], dy, w, c, nil) },
		}.run(t, rnd)
		gradCase{name: "free " + name, x: [][]float32{x, kernel}, outputs: c.Rows() * c.O,
			forward: func(y []float32) { b.ConvFree(y, x, kernel, c, kernels.Epilogue{}) },
			backward: func(dx [][]float32, dy []float32) {
				b.ConvFreeGrad(dx[0], dy, kernel, c, nil)
				b.ConvWeightGrad(dx[1], dy, x, c)
			},
		}.run(t, rnd)
	}
}

// TestMatMulGrad checks MatMul against itself: da = alpha·dc·op(b)ᵀ and db = alpha·op(a)ᵀ·dc, in all orientations.
func TestMatMulGrad(t *testing.T) {
	rnd, b := rand.New(rand.NewPCG(7, 8)), ref.Open()
	const batch, m, n, k = 2, 3, 4, 5
	for trans := range 4 {
		s := kernels.MatMul{Batch: batch, M: m, N: n, K: k, TransA: trans&1 != 0, TransB: trans&2 != 0, StrideA: m * k, StrideB: k * n, Alpha: 0.7}
		x, z := standard(rnd, batch*m*k), standard(rnd, batch*k*n)
		gradCase{name: fmt.Sprintf("%+v", s), x: [][]float32{x, z}, outputs: batch * m * n,
			forward: func(y []float32) { b.MatMul(y, x, z, kernels.Epilogue{}, s) },
			backward: func(dx [][]float32, dy []float32) {
				ga := kernels.MatMul{Batch: batch, M: m, N: k, K: n, TransB: !s.TransB, StrideA: m * n, StrideB: k * n, Alpha: 0.7}
				if s.TransA { // a is [K,M]: da = alpha·op(b)·dcᵀ
					ga = kernels.MatMul{Batch: batch, M: k, N: m, K: n, TransA: s.TransB, TransB: true, StrideA: k * n, StrideB: m * n, Alpha: 0.7}
					b.MatMul(dx[0], z, dy, kernels.Epilogue{}, ga)
				} else {
					b.MatMul(dx[0], dy, z, kernels.Epilogue{}, ga)
				}
				gb := kernels.MatMul{Batch: batch, M: k, N: n, K: m, TransA: !s.TransA, StrideA: m * k, StrideB: m * n, Alpha: 0.7}
				if s.TransB { // b is [N,K]: db = alpha·dcᵀ·op(a)
					gb = kernels.MatMul{Batch: batch, M: n, N: k, K: m, TransA: true, TransB: s.TransA, StrideA: m * n, StrideB: m * k, Alpha: 0.7}
					b.MatMul(dx[1], dy, x, kernels.Epilogue{}, gb)
				} else {
					b.MatMul(dx[1], x, dy, kernels.Epilogue{}, gb)
				}
			},
		}.run(t, rnd)
	}
}

// TestMatMulSumGrad: a shared operand's gradient is a summed product.
func TestMatMulSumGrad(t *testing.T) {
	rnd, b := rand.New(rand.NewPCG(25, 26)), ref.Open()
	s := kernels.MatMul{Batch: 3, M: 4, N: 5, K: 2, StrideB: 10, Alpha: 0.7}
	w, x := standard(rnd, 8), standard(rnd, 30)
	gradCase{name: "a", x: [][]float32{w}, outputs: 60,
		forward: func(y []float32) { b.MatMul(y, w, x, kernels.Epilogue{}, s) },
		backward: func(dx [][]float32, dy []float32) {
			b.MatMul(dx[0], dy, x, kernels.Epilogue{}, kernels.MatMul{Batch: 3, M: 4, N: 2, K: 5, TransB: true, StrideA: 20, StrideB: 10, Alpha: 0.7, Sum: true})
		},
	}.run(t, rnd)
}

func TestBlockMatMulGrad(t *testing.T) {
	rnd, b := rand.New(rand.NewPCG(27, 28)), ref.Open()
	for _, s := range []kernels.BlockMatMul{{M: 5, N: 3, S: 2, T: 4}, {M: 3, N: 2, S: 4, T: 3, Trans: true}} {
		x, r := standard(rnd, s.M*s.N*s.S), standard(rnd, s.N*s.S*s.T)
		gradCase{name: fmt.Sprintf("%+v", s), x: [][]float32{x, r}, outputs: s.M * s.N * s.T,
			forward: func(y []float32) { b.BlockMatMul(y, x, r, nil, s) },
			backward: func(dx [][]float32, dy []float32) {
				b.BlockMatMul(dx[0], dy, r, nil, kernels.BlockMatMul{M: s.M, N: s.N, S: s.T, T: s.S, Trans: !s.Trans})
				b.BlockMatMulGrad(dx[1], dy, x, s)
			},
		}.run(t, rnd)
	}
}

func TestGroupNormGrad(t *testing.T) {
	rnd, b := rand.New(rand.NewPCG(9, 10)), ref.Open()
	for _, silu := range []bool{false, true} {
		s := kernels.GroupNorm{N: 2, P: 5, C: 6, Groups: 2, Eps: 1e-5, SiLU: silu}
		x, gamma, beta := standard(rnd, s.N*s.P*s.C), standard(rnd, s.C), standard(rnd, s.C)
		stats := make([]float32, s.N*s.Groups*2)
		gradCase{name: fmt.Sprintf("silu=%t", silu), x: [][]float32{x, gamma, beta}, outputs: len(x),
			forward: func(y []float32) { b.GroupNorm(y, stats, x, gamma, beta, s) },
			backward: func(dx [][]float32, dy []float32) {
				b.GroupNormGrad(dx[0], dy, x, stats, gamma, beta, nil, s)
				b.GroupNormParamGrad(dx[1], dx[2], dy, x, stats, gamma, beta, s)
			},
		}.run(t, rnd)
	}
}

func TestLayerNormGrad(t *testing.T) {
	rnd, b := rand.New(rand.NewPCG(11, 12)), ref.Open()
	s := kernels.LayerNorm{M: 4, D: 9, Eps: 1e-5}
	x, gamma, beta := standard(rnd, s.M*s.D), standard(rnd, s.D), standard(rnd, s.D)
	stats := make([]float32, s.M*2)
	gradCase{name: "all", x: [][]float32{x, gamma, beta}, outputs: len(x),
		forward: func(y []float32) { b.LayerNorm(y, stats, x, gamma, beta, s) },
		backward: func(dx [][]float32, dy []float32) {
			b.LayerNormGrad(dx[0], dy, x, stats, gamma, nil, s)
			b.LayerNormParamGrad(dx[1], dx[2], dy, x, stats, s)
		},
	}.run(t, rnd)
}

func TestAttentionGrad(t *testing.T) {
	rnd, b := rand.New(rand.NewPCG(13, 14)), ref.Open()
	for _, s := range []kernels.Attention{
		{N: 2, Heads: 2, TQ: 3, TK: 5, D: 4, Scale: 0.5},
		{N: 1, Heads: 2, TQ: 5, TK: 5, D: 3, Scale: 0.577, Causal: true},
		{N: 1, Heads: 1, TQ: 5, TK: 3, D: 2, Scale: 0.707, Causal: true},
	} {
		width := s.Heads * s.D
		q, k, v := standard(rnd, s.N*s.TQ*width), standard(rnd, s.N*s.TK*width), standard(rnd, s.N*s.TK*width)
		out, lse := make([]float32, len(q)), make([]float32, s.N*s.Heads*s.TQ)
		gradCase{name: fmt.Sprintf("%+v", s), x: [][]float32{q, k, v}, outputs: len(q),
			forward: func(y []float32) { b.Attention(y, lse, q, k, v, s) },
			backward: func(dx [][]float32, dy []float32) {
				b.Attention(out, lse, q, k, v, s)
				b.AttentionGrad(dx[0], dx[1], dx[2], dy, out, lse, q, k, v, s)
			},
		}.run(t, rnd)
	}
}

func TestActivationGrad(t *testing.T) {
	rnd, b := rand.New(rand.NewPCG(15, 16)), ref.Open()
	for _, f := range []kernels.Activation{kernels.SiLU, kernels.GELU, kernels.QuickGELU} {
		x := standard(rnd, 40)
		b.Scale(x, x, 2)
		gradCase{name: fmt.Sprint("activation ", f), x: [][]float32{x}, outputs: len(x),
			forward:  func(y []float32) { b.Activate(y, x, f) },
			backward: func(dx [][]float32, dy []float32) { b.ActivateGrad(dx[0], dy, x, f) },
		}.run(t, rnd)
	}
	x := standard(rnd, 2*4*5)
	gradCase{name: "GEGLU", x: [][]float32{x}, outputs: 4 * 5,
		forward:  func(y []float32) { b.GEGLU(y, x, 4, 5) },
		backward: func(dx [][]float32, dy []float32) { b.GEGLUGrad(dx[0], dy, x, 4, 5) },
	}.run(t, rnd)
}

func TestLossGrad(t *testing.T) {
	rnd, b := rand.New(rand.NewPCG(17, 18)), ref.Open()
	pred, target := standard(rnd, 3*7), standard(rnd, 3*7)
	gradCase{name: "pred", x: [][]float32{pred}, outputs: 3,
		forward:  func(y []float32) { b.SquaredError(y, pred, target, 3) },
		backward: func(dx [][]float32, dy []float32) { b.SquaredErrorGrad(dx[0], dy, pred, target, 3) },
	}.run(t, rnd)
}

// TestCayleyGrad: free, below the bound, and bounded (a's norm is about 7: far from the kink at 20, and from that at 1).
func TestCayleyGrad(t *testing.T) {
	rnd, b := rand.New(rand.NewPCG(21, 22)), ref.Open()
	for _, s := range []kernels.Cayley{{N: 3, S: 4}, {N: 3, S: 4, Limit: 20}, {N: 3, S: 4, Limit: 1}, {N: 1, S: 1}, {N: 2, S: 7, Limit: 2}} {
		a := standard(rnd, s.N*s.S*s.S)
		r := make([]float32, len(a))
		gradCase{name: fmt.Sprintf("%+v", s), x: [][]float32{a}, outputs: len(a),
			forward: func(y []float32) { b.Cayley(y, a, s) },
			backward: func(dx [][]float32, dy []float32) {
				b.Cayley(r, a, s)
				b.CayleyGrad(dx[0], dy, r, a, s)
			},
		}.run(t, rnd)
	}
}

func TestNormRatioGrad(t *testing.T) {
	rnd, b := rand.New(rand.NewPCG(23, 24)), ref.Open()
	d, ss := standard(rnd, 9), standard(rnd, 9)
	for i, v := range ss {
		ss[i] = 2 + v*v
	}
	gradCase{name: "both", x: [][]float32{d, ss}, outputs: len(d),
		forward:  func(y []float32) { b.NormRatio(y, d, ss, 1e-3, 0.7) },
		backward: func(dx [][]float32, dy []float32) { b.NormRatioGrad(dx[0], dx[1], dy, d, ss, 1e-3, 0.7) },
	}.run(t, rnd)
	dss := []float32{5}
	b.NormRatioGrad(nil, dss, []float32{1}, []float32{1}, []float32{0}, 1e-3, 1)
	if dss[0] != 0 {
		t.Errorf("the gradient for a zero norm is %v, want 0", dss[0])
	}
}

// TestLinearOps checks the ops that are linear, whose gradient is another op (or the op itself, for Dropout).
func TestLinearOps(t *testing.T) {
	rnd, b := rand.New(rand.NewPCG(19, 20)), ref.Open()
	for _, inner := range []int{1, 4} {
		const n, outer = 3, 2
		x, s := standard(rnd, outer*n*inner), standard(rnd, n)
		gradCase{name: fmt.Sprint("MulBlocks inner ", inner), x: [][]float32{x, s}, outputs: len(x),
			forward: func(y []float32) { b.MulBlocks(y, x, s, inner) },
			backward: func(dx [][]float32, dy []float32) {
				b.MulBlocks(dx[0], dy, s, inner)
				b.SumBlocks(dx[1], dy, x, inner)
			},
		}.run(t, rnd)
		gradCase{name: fmt.Sprint("AddBlocks inner ", inner), x: [][]float32{x, s}, outputs: len(x),
			forward: func(y []float32) { b.AddBlocks(y, x, s, inner) },
			backward: func(dx [][]float32, dy []float32) {
				copy(dx[0], dy)
				b.SumBlocks(dx[1], dy, nil, inner)
			},
		}.run(t, rnd)
		z := standard(rnd, len(x))
		gradCase{name: fmt.Sprint("SumBlocks inner ", inner), x: [][]float32{x, z}, outputs: n,
			forward: func(y []float32) { b.SumBlocks(y, x, z, inner) },
			backward: func(dx [][]float32, dy []float32) {
				b.MulBlocks(dx[0], z, dy, inner)
				b.MulBlocks(dx[1], x, dy, inner)
			},
		}.run(t, rnd)
	}
	small := standard(rnd, 2*3*2*3)
	gradCase{name: "Upsample", x: [][]float32{small}, outputs: 4 * len(small),
		forward:  func(y []float32) { b.Upsample(y, small, 2, 3, 2, 3) },
		backward: func(dx [][]float32, dy []float32) { b.UpsampleGrad(dx[0], dy, 2, 3, 2, 3) },
	}.run(t, rnd)
	table, index := standard(rnd, 4*3), []int32{2, 0, 2, 3, 2}
	gradCase{name: "GatherRows", x: [][]float32{table}, outputs: len(index) * 3,
		forward:  func(y []float32) { b.GatherRows(y, table, index, 3) },
		backward: func(dx [][]float32, dy []float32) { b.ScatterRows(dx[0], dy, index, 3) },
	}.run(t, rnd)
	rows := standard(rnd, len(index)*3)
	gradCase{name: "ScatterRows", x: [][]float32{rows}, outputs: 4 * 3,
		forward:  func(y []float32) { b.ScatterRows(y, rows, index, 3) },
		backward: func(dx [][]float32, dy []float32) { b.GatherRows(dx[0], dy, index, 3) },
	}.run(t, rnd)
	cube := standard(rnd, 2*3*4)
	gradCase{name: "Permute", x: [][]float32{cube}, outputs: len(cube),
		forward:  func(y []float32) { b.Permute(y, cube, []int{2, 3, 4}, []int{2, 0, 1}) },
		backward: func(dx [][]float32, dy []float32) { b.Permute(dx[0], dy, []int{4, 2, 3}, []int{1, 2, 0}) },
	}.run(t, rnd)
	x, seed := standard(rnd, 50), []float32{3, 4, 1}
	gradCase{name: "Dropout", x: [][]float32{x}, outputs: len(x),
		forward:  func(y []float32) { b.Dropout(y, x, seed, 9, 0.4) },
		backward: func(dx [][]float32, dy []float32) { b.Dropout(dx[0], dy, seed, 9, 0.4) },
	}.run(t, rnd)
}
