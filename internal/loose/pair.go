package loose

import (
	"math"

	"lycoris/internal/algos"
	"lycoris/internal/tensor"
)

// Pair is an exact low-rank form of a change: ΔW = Scale·Up·Down.
type Pair struct {
	Up, Down []float64 // [O,Rank], [Rank,N] with N = I·kh·kw
	Rank     int
	Scale    float64
}

// Exact returns the pair that acts exactly as the module does, nil where there is none of low rank: a LoRA's core is absorbed in down, a Hadamard product of two products is
// the product of the row-wise Khatri-Rao product of its left factors and the column-wise one of its right factors, a Kronecker product with a split factor is a product of
// Kronecker products.
func Exact(m *Module, t algos.Target, tensors map[string]tensor.Tensor) *Pair {
	get := func(suffix string) *matrix {
		v, ok := tensors[suffix]
		if !ok || len(v.Shape) < 2 {
			return nil
		}
		return newMatrix(v)
	}
	var p *Pair
	switch {
	case m.Has("dora_scale"):
		return nil
	case m.Algo.Name == "lora" || m.Algo.Name == "dylora":
		up, down := get("lora_up.weight"), get("lora_down.weight")
		if core, ok := tensors["lora_mid.weight"]; ok {
			down = absorb(core, down)
		}
		p = product(up, down)
	case m.Algo.Name == "loha":
		p = hadamard(get("hada_w1_a"), get("hada_w1_b"), get("hada_w2_a"), get("hada_w2_b"), tensors)
	case m.Algo.Name == "lokr":
		p = kronecker(get, tensors)
	}
	if p == nil || len(p.Up) != t.Out()*p.Rank || len(p.Down) != p.Rank*tensor.Elems(t.Shape[1:]) {
		return nil
	}
	p.Scale = scale(m, tensors)
	return p
}

// scale returns alpha/rank, 1 without alpha.
func scale(m *Module, tensors map[string]tensor.Tensor) float64 {
	alpha, ok := tensors["alpha"]
	if !ok || tensor.Elems(alpha.Shape) != 1 {
		return 1
	}
	for _, at := range []struct {
		suffix string
		axis   int
	}{{"lora_down.weight", 0}, {"hada_w1_b", 0}, {"lokr_w2_b", 0}, {"lokr_w1_b", 0}} {
		if s := m.Shape(at.suffix); len(s) > 0 && s[at.axis] > 0 {
			v := float64(alpha.Float32()[0])
			if v == 0 { // counts as rank, as when it is loaded
				return 1
			}
			return v / float64(s[at.axis])
		}
	}
	return 1
}

// matrix is [rows,cols], row-major.
type matrix struct {
	rows, cols int
	v          []float64
}

// newMatrix flattens all axes but the first.
func newMatrix(t tensor.Tensor) *matrix {
	values := t.Float32()
	m := &matrix{rows: t.Shape[0], cols: tensor.Elems(t.Shape[1:]), v: make([]float64, len(values))}
	for i, x := range values {
		m.v[i] = float64(x)
	}
	return m
}

func product(up, down *matrix) *Pair {
	if up == nil || down == nil || up.cols != down.rows {
		return nil
	}
	return &Pair{Up: up.v, Down: down.v, Rank: up.cols}
}

func (m *matrix) transposed() *matrix {
	t := &matrix{rows: m.cols, cols: m.rows, v: make([]float64, len(m.v))}
	for i := range m.rows {
		for j := range m.cols {
			t.v[j*m.rows+i] = m.v[i*m.cols+j]
		}
	}
	return t
}

// absorb returns Σ_q core[p,q,:]·b[q,i] as [p, i·window], for a core [P,Q,kh,kw] and b [Q,I].
func absorb(core tensor.Tensor, b *matrix) *matrix {
	if len(core.Shape) != 4 || b == nil || core.Shape[1] != b.rows {
		return nil
	}
	c, q, window := core.Float32(), core.Shape[1], core.Shape[2]*core.Shape[3]
	out := &matrix{rows: core.Shape[0], cols: b.cols * window, v: make([]float64, core.Shape[0]*b.cols*window)}
	for p := range out.rows {
		for i := range b.cols {
			for k := range window {
				var sum float64
				for j := range q {
					sum += float64(c[(p*q+j)*window+k]) * b.v[j*b.cols+i]
				}
				out.v[p*out.cols+i*window+k] = sum
			}
		}
	}
	return out
}

// hadamard gives (a1·b1)∘(a2·b2) as a product of rank R². With cores, each b is absorbed and each a stored transposed.
func hadamard(a1, b1, a2, b2 *matrix, tensors map[string]tensor.Tensor) *Pair {
	if a1 == nil || a2 == nil || b1 == nil || b2 == nil {
		return nil
	}
	if t1, ok := tensors["hada_t1"]; ok {
		a1, b1 = a1.transposed(), absorb(t1, b1)
	}
	if t2, ok := tensors["hada_t2"]; ok {
		a2, b2 = a2.transposed(), absorb(t2, b2)
	}
	if b1 == nil || b2 == nil || a1.cols != b1.rows || a2.cols != b2.rows || a1.rows != a2.rows || b1.cols != b2.cols {
		return nil
	}
	r := a1.cols * a2.cols
	p := &Pair{Rank: r, Up: make([]float64, a1.rows*r), Down: make([]float64, r*b1.cols)}
	for x := range a1.cols {
		for y := range a2.cols {
			k := x*a2.cols + y
			for o := range a1.rows {
				p.Up[o*r+k] = a1.v[o*a1.cols+x] * a2.v[o*a2.cols+y]
			}
			for i := range b1.cols {
				p.Down[k*b1.cols+i] = b1.v[x*b1.cols+i] * b2.v[y*b2.cols+i]
			}
		}
	}
	return p
}

// kronecker gives w1⊗(a·b) as (w1⊗a)·(I⊗b) or (I⊗a)·(w1⊗b), whichever is of lower rank, and with w1 split too as (a1⊗a)·(b1⊗b). The window stays with b.
func kronecker(get func(string) *matrix, tensors map[string]tensor.Tensor) *Pair {
	w1, a1, b1, a, b := get("lokr_w1"), get("lokr_w1_a"), get("lokr_w1_b"), get("lokr_w2_a"), get("lokr_w2_b")
	if a == nil || b == nil {
		return nil // a whole w2 is rarely of low rank
	}
	if core, ok := tensors["lokr_t2"]; ok {
		a, b = a.transposed(), absorb(core, b)
	}
	switch {
	case b == nil || a.cols != b.rows:
		return nil
	case a1 != nil && b1 != nil && a1.cols == b1.rows:
		return product(kron(a1, a), kron(b1, b))
	case w1 == nil:
		return nil
	case w1.cols <= w1.rows:
		return product(kron(w1, a), kron(identity(w1.cols), b))
	}
	return product(kron(identity(w1.rows), a), kron(w1, b))
}

func identity(n int) *matrix {
	m := &matrix{rows: n, cols: n, v: make([]float64, n*n)}
	for i := range n {
		m.v[i*n+i] = 1
	}
	return m
}

// kron returns the Kronecker product.
func kron(a, b *matrix) *matrix {
	m := &matrix{rows: a.rows * b.rows, cols: a.cols * b.cols, v: make([]float64, len(a.v)*len(b.v))}
	for p := range a.rows {
		for q := range a.cols {
			x := a.v[p*a.cols+q]
			for u := range b.rows {
				row := m.v[(p*b.rows+u)*m.cols+q*b.cols:]
				for v := range b.cols {
					row[v] = x * b.v[u*b.cols+v]
				}
			}
		}
	}
	return m
}

// Tensors returns the pair as a LoRA module of a layer, the magnitude shared by both factors, alpha such that the scale is kept.
func (p *Pair) Tensors(t algos.Target) []tensor.Named {
	up, down := make([]float32, len(p.Up)), make([]float32, len(p.Down))
	balance := 1.0 // up·balance, down/balance
	if u, d := norm(p.Up), norm(p.Down); u > 0 && d > 0 {
		balance = math.Exp2(math.Round(math.Log2(math.Sqrt(d / u)))) // a power of two: exact
	}
	for i, x := range p.Up {
		up[i] = float32(x * balance)
	}
	for i, x := range p.Down {
		down[i] = float32(x / balance)
	}
	upShape, downShape := []int{t.Out(), p.Rank}, append([]int{p.Rank}, t.Shape[1:]...)
	if t.IsConv() {
		upShape = append(upShape, 1, 1)
	}
	return []tensor.Named{
		{Name: "alpha", Tensor: Number(p.Scale * float64(p.Rank))},
		{Name: "lora_down.weight", Tensor: tensor.FromFloat32(tensor.F32, downShape, down)},
		{Name: "lora_up.weight", Tensor: tensor.FromFloat32(tensor.F32, upShape, up)},
	}
}

func norm(v []float64) float64 {
	var sum float64
	for _, x := range v {
		sum += x * x
	}
	return math.Sqrt(sum)
}
