package extract

import (
	"math"

	"lycoris/internal/linalg"
	"lycoris/internal/rng"
)

// sweeps of alternating least squares at most; it ends where one gains less than sweepGain.
const (
	sweeps    = 10
	sweepGain = 1e-4
)

// loha fits (A₁B₁)∘(A₂B₂), A [O,R] and B [R,N]. There is no closed form: from A₁B₁ = the truncated decomposition and A₂B₂ = 1, which has the error of a LoRA of that
// rank, each factor in turn becomes the best for the other three (alternating least squares), so that the error falls. alpha = R.
func (w *worker) loha(l *layer) (*fit, error) {
	r := min(w.rule(l).Dim, l.m, l.n)
	u, s, v, err := w.decomposition(l.delta, l.m, l.n, Rule{Dim: r}, l.total, 0)
	if err != nil {
		return nil, err
	}
	r = len(s)
	h := newHadamard(l, r)
	left, right := shared(u, s, v, l.m, l.n)
	for i, x := range left {
		h.a[0][i] = float64(x)
	}
	for i, x := range right {
		h.b[0][i] = float64(x)
	}
	before := math.Inf(1)
	for range sweeps {
		for side := range 2 {
			h.solveA(side)
			h.solveB(side)
		}
		now := h.left()
		if before-now <= sweepGain*now {
			break
		}
		before = now
	}
	h.balance()
	f := &fit{tensors: []named{alpha(r)}, rank: r}
	for _, part := range []struct {
		key    string
		values []float64
		shape  []int
	}{{"hada_w1_a", h.a[0], []int{l.m, r}}, {"hada_w1_b", h.b[0], []int{r, l.n}}, {"hada_w2_a", h.a[1], []int{l.m, r}}, {"hada_w2_b", h.b[1], []int{r, l.n}}} {
		values := make([]float32, len(part.values))
		for i, x := range part.values {
			values[i] = float32(x)
		}
		t, err := w.stored(l, part.key, part.shape, values)
		if err != nil {
			return nil, err
		}
		f.tensors = append(f.tensors, t)
		for i, x := range t.Float32() {
			part.values[i] = float64(x)
		}
	}
	f.left, f.worst = h.missing()
	return f, nil
}

// hadamard is a fit at work: a [2][m·r], b [2][r·n].
type hadamard struct {
	delta   []float32
	m, n, r int
	a, b    [2][]float64
}

// newHadamard returns the fit with A₂B₂ = 1; what the ones leave free is small noise, so that it can grow.
func newHadamard(l *layer, r int) *hadamard {
	h := &hadamard{delta: l.delta, m: l.m, n: l.n, r: r}
	stream := rng.New(0, "extract loha "+l.Name, 0, 0)
	for side := range 2 {
		h.a[side], h.b[side] = make([]float64, l.m*r), make([]float64, r*l.n)
	}
	for i := range h.a[1] {
		h.a[1][i] = 1e-2 * float64(stream.NormFloat32())
	}
	for i := range h.b[1] {
		h.b[1][i] = 1e-2 * float64(stream.NormFloat32())
	}
	for i := range l.m {
		h.a[1][i*r] = 1
	}
	for j := range l.n {
		h.b[1][j] = 1
	}
	return h
}

// row writes row i of the product of a side to dst.
func (h *hadamard) row(dst []float64, side, i int) {
	clear(dst)
	for p := range h.r {
		x := h.a[side][i*h.r+p]
		for j, v := range h.b[side][p*h.n : (p+1)*h.n] {
			dst[j] += x * v
		}
	}
}

// solveA makes each row of A of a side the solution of (B·diag(H²)·Bᵀ + λ)·a = B·(H∘Δ), H the row of the other side, λ = 1e-8 of the mean diagonal.
func (h *hadamard) solveA(side int) {
	other := make([]float64, h.n)
	weighted := make([]float64, h.n)
	g, y := make([]float64, h.r*h.r), make([]float64, h.r)
	for i := range h.m {
		h.row(other, 1-side, i)
		clear(g)
		for p := range h.r {
			bp := h.b[side][p*h.n : (p+1)*h.n]
			y[p] = 0
			for j, v := range bp {
				weighted[j] = v * other[j]
				y[p] += weighted[j] * float64(h.delta[i*h.n+j])
				weighted[j] *= other[j]
			}
			for q := range p + 1 {
				sum := 0.0
				for j, v := range h.b[side][q*h.n : (q+1)*h.n] {
					sum += weighted[j] * v
				}
				g[p*h.r+q], g[q*h.r+p] = sum, sum
			}
		}
		linalg.SolveRidge(h.a[side][i*h.r:(i+1)*h.r], g, y, h.r, 1e-8)
	}
}

// solveB makes each column of B of a side the solution of the same for columns. Sums over the rows of Δ, so that it is read in order.
func (h *hadamard) solveB(side int) {
	r := h.r
	g, y := make([]float64, h.n*r*r), make([]float64, h.n*r)
	other := make([]float64, h.n)
	for i := range h.m {
		h.row(other, 1-side, i)
		a := h.a[side][i*r : (i+1)*r]
		for j, x := range other {
			d := x * float64(h.delta[i*h.n+j])
			xx := x * x
			gj, yj := g[j*r*r:(j+1)*r*r], y[j*r:(j+1)*r]
			for p, v := range a {
				yj[p] += d * v
				f := xx * v
				for q := range p + 1 {
					gj[p*r+q] += f * a[q]
				}
			}
		}
	}
	column := make([]float64, r)
	for j := range h.n {
		gj := g[j*r*r : (j+1)*r*r]
		for p := range r {
			for q := range p {
				gj[q*r+p] = gj[p*r+q]
			}
		}
		for p := range r {
			column[p] = h.b[side][p*h.n+j]
		}
		linalg.SolveRidge(column, gj, y[j*r:(j+1)*r], r, 1e-8)
		for p := range r {
			h.b[side][p*h.n+j] = column[p]
		}
	}
}

// left returns ‖Δ − fit‖².
func (h *hadamard) left() float64 {
	left, _ := h.missing()
	return left
}

func (h *hadamard) missing() (left, worst float64) {
	one, two := make([]float64, h.n), make([]float64, h.n)
	for i := range h.m {
		h.row(one, 0, i)
		h.row(two, 1, i)
		for j, x := range one {
			d := math.Abs(float64(h.delta[i*h.n+j]) - x*two[j])
			left += d * d
			worst = max(worst, d)
		}
	}
	return left, worst
}

// balance gives all four factors the same norm.
func (h *hadamard) balance() {
	all := []([]float64){h.a[0], h.b[0], h.a[1], h.b[1]}
	logs, mean := make([]float64, 4), 0.0
	for i, f := range all {
		sum := 0.0
		for _, v := range f {
			sum += v * v
		}
		if sum == 0 {
			return
		}
		logs[i] = math.Log(sum) / 2
		mean += logs[i] / 4
	}
	for i, f := range all {
		by := math.Exp(mean - logs[i])
		for j := range f {
			f[j] *= by
		}
	}
}
