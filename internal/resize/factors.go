package resize

import (
	"encoding/binary"
	"math"

	"lycoris/internal/linalg"
	"lycoris/internal/tensor"
)

// pair is a product up·down [O,N]: columns of up and rows of down, one of each for every rank.
type pair struct {
	up   [][]float64 // R of length O
	down [][]float64 // R of length N
	o, n int
}

func (p *pair) rank() int { return len(p.up) }

// columnsOf returns the columns of m [rows,cols].
func columnsOf(m []float64, rows, cols int) [][]float64 {
	all := make([][]float64, cols)
	for j := range all {
		all[j] = make([]float64, rows)
		for i := range all[j] {
			all[j][i] = m[i*cols+j]
		}
	}
	return all
}

// rowsOf returns the rows of m [rows,cols], which share its memory.
func rowsOf(m []float64, rows, cols int) [][]float64 {
	all := make([][]float64, rows)
	for i := range all {
		all[i] = m[i*cols : (i+1)*cols]
	}
	return all
}

// spectrum is a decomposed matrix.
type spectrum struct {
	s           []float64             // singular values, falling
	left, right func(j int) []float64 // singular vectors of value j
	rest        float64               // the sum of the squares of further values that weren't computed
}

// decompose uses the pair up.
func (p *pair) decompose() spectrum {
	a := linalg.NewProduct(p.up, p.down, p.o, p.n)
	return spectrum{s: a.S, left: a.Left, right: a.Right}
}

// decomposeMatrix decomposes a [m,n].
func decomposeMatrix(a []float64, m, n int) spectrum {
	u, s, v := linalg.SVD(a, m, n)
	return spectrum{s: s, left: func(j int) []float64 {
		col := make([]float64, m)
		for i := range col {
			col[i] = u[i*len(s)+j]
		}
		return col
	}, right: func(j int) []float64 { return v[j*n : (j+1)*n] }}
}

// times multiplies the values by the size of by.
func (a *spectrum) times(by float64) {
	for i := range a.s {
		a.s[i] *= math.Abs(by)
	}
	a.rest *= by * by
}

// norm returns the Frobenius norm.
func (a *spectrum) norm() float64 { return math.Hypot(norm(a.s), math.Sqrt(a.rest)) }

// left over by the first k values.
func (a *spectrum) errorOf(k int) float64 {
	return math.Hypot(norm(a.s[min(k, len(a.s)):]), math.Sqrt(a.rest))
}

// factors returns up [O,k] times sign and down [k,N] with up·down = the first values' part, divided by by; the values are shared by both. Ranks beyond the values
// are zero.
func (a *spectrum) factors(o, n, k int, by, sign float64) (up, down []float64) {
	up, down = make([]float64, o*k), make([]float64, k*n)
	for j := range min(k, len(a.s)) {
		root := math.Sqrt(a.s[j] / by)
		for i, x := range a.left(j) {
			up[i*k+j] = x * root * sign
		}
		for i, x := range a.right(j) {
			down[j*n+i] = x * root
		}
	}
	return up, down
}

// values returns t's values.
func values(t tensor.Tensor) []float64 {
	if t.DType == tensor.F64 {
		out := make([]float64, tensor.Elems(t.Shape))
		for i := range out {
			out[i] = math.Float64frombits(binary.LittleEndian.Uint64(t.Data[8*i:]))
		}
		return out
	}
	all := t.Float32()
	out := make([]float64, len(all))
	for i, x := range all {
		out[i] = float64(x)
	}
	return out
}

// rounded makes a tensor of v with one rounding, to nearest and even.
func rounded(d tensor.DType, shape []int, v []float64) tensor.Tensor {
	if d == tensor.F64 {
		t := tensor.Tensor{DType: d, Shape: shape, Data: make([]byte, 8*len(v))}
		for i, x := range v {
			binary.LittleEndian.PutUint64(t.Data[8*i:], math.Float64bits(x))
		}
		return t
	}
	narrow := func(x float64) float32 { return float32(x) }
	if d != tensor.F32 {
		narrow = toOdd
	}
	all := make([]float32, len(v))
	for i, x := range v {
		all[i] = narrow(x)
	}
	return tensor.FromFloat32(d, shape, all)
}

// toOdd rounds to the neighbour whose last bit is set unless x is a float32: rounded again to a narrower type, that is x rounded once (Boldo and Melquiond, 2008).
func toOdd(x float64) float32 {
	f := float32(x)
	bits := math.Float32bits(f)
	if float64(f) == x || bits&1 == 1 || x != x {
		return f
	}
	if math.Abs(float64(f)) > math.Abs(x) {
		return math.Float32frombits(bits - 1)
	}
	return math.Float32frombits(bits + 1)
}
