package graph

import "lycoris/internal/kernels"

// Activate applies f to each element.
func (g *Graph) Activate(x *Node, f kernels.Activation) *Node { return g.add(activate{f}, x.shape, x) }

type activate struct{ f kernels.Activation }

func (activate) name() string   { return "activation" }
func (activate) inPlace() []int { return []int{0} }

func (o activate) run(b kernels.Backend, out, in [][]float32) { b.Activate(out[0], in[0], o.f) }

func (o activate) grad(g *Graph, n, dy *Node, want []bool) []*Node {
	return []*Node{g.add(activateGrad(o), n.shape, dy, n.in[0])}
}

type activateGrad struct{ f kernels.Activation }

func (activateGrad) name() string   { return "activation gradient" }
func (activateGrad) inPlace() []int { return []int{0} }

func (o activateGrad) run(b kernels.Backend, out, in [][]float32) {
	b.ActivateGrad(out[0], in[0], in[1], o.f)
}

func (activateGrad) grad(*Graph, *Node, *Node, []bool) []*Node { panic("graph: second derivative") }

// GEGLU returns the first half of x [...,2D] times the error-function GELU of the second: [...,D].
func (g *Graph) GEGLU(x *Node) *Node {
	must(x.Last()%2 == 0, "geglu of %v", x.shape)
	return g.add(geglu{x.rows(), x.Last() / 2}, withLast(x.shape, x.Last()/2), x)
}

type geglu struct{ m, d int }

func (geglu) name() string { return "geglu" }

func (o geglu) run(b kernels.Backend, out, in [][]float32) { b.GEGLU(out[0], in[0], o.m, o.d) }

func (o geglu) grad(g *Graph, n, dy *Node, want []bool) []*Node {
	return []*Node{g.add(gegluGrad(o), n.in[0].shape, dy, n.in[0])}
}

type gegluGrad geglu

func (gegluGrad) name() string { return "geglu gradient" }

func (o gegluGrad) run(b kernels.Backend, out, in [][]float32) {
	b.GEGLUGrad(out[0], in[0], in[1], o.m, o.d)
}

func (gegluGrad) grad(*Graph, *Node, *Node, []bool) []*Node { panic("graph: second derivative") }

// Combine returns alpha·a + beta·b.
func (g *Graph) Combine(a *Node, alpha float32, b *Node, beta float32) *Node {
	mustSame("combine", a, b)
	return g.add(combine{alpha, beta}, a.shape, a, b)
}

// Add returns a + b.
func (g *Graph) Add(a, b *Node) *Node { return g.Combine(a, 1, b, 1) }

type combine struct{ alpha, beta float32 }

func (combine) name() string   { return "combine" }
func (combine) inPlace() []int { return []int{0, 1} }

func (o combine) run(b kernels.Backend, out, in [][]float32) {
	b.Combine(out[0], in[0], o.alpha, in[1], o.beta)
}

func (o combine) grad(g *Graph, n, dy *Node, want []bool) []*Node {
	d := make([]*Node, 2)
	for i, f := range []float32{o.alpha, o.beta} {
		if want[i] {
			d[i] = g.Reshape(g.Scale(dy, f), n.in[i].shape...)
		}
	}
	return d
}

// Scale returns alpha·x; x itself for 1.
func (g *Graph) Scale(x *Node, alpha float32) *Node {
	if alpha == 1 {
		return x
	}
	return g.add(scale{alpha}, x.shape, x)
}

type scale struct{ alpha float32 }

func (scale) name() string   { return "scale" }
func (scale) inPlace() []int { return []int{0} }

func (o scale) run(b kernels.Backend, out, in [][]float32) { b.Scale(out[0], in[0], o.alpha) }

func (o scale) grad(g *Graph, n, dy *Node, want []bool) []*Node { return []*Node{g.Scale(dy, o.alpha)} }

// Mul returns a·b element by element.
func (g *Graph) Mul(a, b *Node) *Node {
	mustSame("mul", a, b)
	return g.add(mul{}, a.shape, a, b)
}

type mul struct{}

func (mul) name() string   { return "mul" }
func (mul) inPlace() []int { return []int{0, 1} }

func (mul) run(b kernels.Backend, out, in [][]float32) { b.Mul(out[0], in[0], in[1]) }

func (mul) grad(g *Graph, n, dy *Node, want []bool) []*Node {
	d := make([]*Node, 2)
	for i := range d {
		if want[i] {
			d[i] = g.Reshape(g.Mul(dy, n.in[1-i]), n.in[i].shape...)
		}
	}
	return d
}

// MulBlocks returns x[i]·s[(i/inner) mod len(s)]: inner 1 scales the columns of [...,D] by s [D], inner D its rows, inner Elems everything by s [1].
func (g *Graph) MulBlocks(x, s *Node, inner int) *Node {
	must(x.Elems()%(inner*s.Elems()) == 0, "mul blocks of %v by %v, inner %d", x.shape, s.shape, inner)
	return g.add(mulBlocks{inner}, x.shape, x, s)
}

type mulBlocks struct{ inner int }

func (mulBlocks) name() string   { return "mul blocks" }
func (mulBlocks) inPlace() []int { return []int{0} }

func (o mulBlocks) run(b kernels.Backend, out, in [][]float32) {
	b.MulBlocks(out[0], in[0], in[1], o.inner)
}

func (o mulBlocks) grad(g *Graph, n, dy *Node, want []bool) []*Node {
	d := make([]*Node, 2)
	if want[1] {
		d[1] = g.SumBlocks(dy, n.in[0], n.in[1].shape, o.inner)
	}
	if want[0] {
		d[0] = g.MulBlocks(dy, n.in[1], o.inner)
	}
	return d
}

// AddBlocks returns x[i] + s[(i/inner) mod len(s)].
func (g *Graph) AddBlocks(x, s *Node, inner int) *Node {
	must(x.Elems()%(inner*s.Elems()) == 0, "add blocks of %v by %v, inner %d", x.shape, s.shape, inner)
	return g.add(addBlocks{inner}, x.shape, x, s)
}

type addBlocks struct{ inner int }

func (addBlocks) name() string   { return "add blocks" }
func (addBlocks) inPlace() []int { return []int{0} }

func (o addBlocks) run(b kernels.Backend, out, in [][]float32) {
	b.AddBlocks(out[0], in[0], in[1], o.inner)
}

func (o addBlocks) grad(g *Graph, n, dy *Node, want []bool) []*Node {
	d := make([]*Node, 2)
	if want[0] {
		d[0] = dy
	}
	if want[1] {
		d[1] = g.SumBlocks(dy, nil, n.in[1].shape, o.inner)
	}
	return d
}

// SumBlocks returns s of the given shape, s[j] = Σ a[i]·b[i] over i with (i/inner) mod len(s) = j. b nil means ones.
func (g *Graph) SumBlocks(a, b *Node, shape []int, inner int) *Node {
	return g.add(sumBlocks{inner}, shape, a, b)
}

type sumBlocks struct{ inner int }

func (sumBlocks) name() string { return "sum blocks" }

func (o sumBlocks) run(b kernels.Backend, out, in [][]float32) {
	b.SumBlocks(out[0], in[0], in[1], o.inner)
}

func (o sumBlocks) grad(g *Graph, n, dy *Node, want []bool) []*Node {
	a, b := n.in[0], n.in[1]
	d := make([]*Node, 2)
	must(b != nil, "sum blocks: the gradient of a plain sum is not built")
	if a == b { // squares: one pass for both
		return []*Node{g.Reshape(g.MulBlocks(a, g.Scale(dy, 2), o.inner), a.shape...), nil}
	}
	if want[0] {
		d[0] = g.Reshape(g.MulBlocks(b, dy, o.inner), a.shape...)
	}
	if want[1] {
		d[1] = g.Reshape(g.MulBlocks(a, dy, o.inner), b.shape...)
	}
	return d
}

// SumItems sums x [N,...,C] over everything between: [N,C].
func (g *Graph) SumItems(x *Node) *Node {
	return g.add(sumItems{x.shape[0]}, []int{x.shape[0], x.Last()}, x)
}

type sumItems struct{ n int }

func (sumItems) name() string { return "sum items" }

func (o sumItems) run(b kernels.Backend, out, in [][]float32) {
	y, x := len(out[0])/o.n, len(in[0])/o.n
	for i := range o.n {
		b.SumBlocks(out[0][i*y:(i+1)*y], in[0][i*x:(i+1)*x], nil, 1)
	}
}

func (sumItems) grad(*Graph, *Node, *Node, []bool) []*Node { panic("graph: second derivative") }

// Dropout zeroes elements of x with probability p and scales the others by 1/(1-p). seed is an input [3] (see [kernels.Backend]); salt names
// the place, so that one seed serves a whole step.
func (g *Graph) Dropout(x, seed *Node, salt uint64, p float32) *Node {
	return g.add(dropout{salt, p}, x.shape, x, seed)
}

type dropout struct {
	salt uint64
	p    float32
}

func (dropout) name() string   { return "dropout" }
func (dropout) inPlace() []int { return []int{0} }

func (o dropout) run(b kernels.Backend, out, in [][]float32) {
	b.Dropout(out[0], in[0], in[1], o.salt, o.p)
}

func (o dropout) grad(g *Graph, n, dy *Node, want []bool) []*Node {
	return []*Node{g.Dropout(dy, n.in[1], o.salt, o.p), nil}
}
