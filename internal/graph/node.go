package graph

import (
	"fmt"
	"slices"

	"lycoris/internal/kernels"
	"lycoris/internal/tensor"
)

// Graph collects nodes. The zero value is ready.
type Graph struct {
	nodes    []*Node
	segment  int // segment that new nodes belong to, 0 = none
	segments int
	backward bool // nodes built now belong to the gradient

	transient    bool // nodes built now are transient
	hasTransient bool
}

// Node is one value of the program.
type Node struct {
	id       int
	op       op
	in       []*Node // nil where an optional operand is absent
	shape    []int
	aux      []*Node // further outputs of the same op; their op is auxOutput
	segment  int
	backward bool

	transient bool // never kept for the gradient: computed again
}

// op is what a node computes.
type op interface {
	name() string
	// run computes out (the node's own output, then its aux outputs; nil where nothing reads one) from in (nil for absent operands).
	run(b kernels.Backend, out, in [][]float32)
	// grad builds the gradient of each input from dy, the gradient of the node's own output; only where want is set, nil for none.
	grad(g *Graph, n *Node, dy *Node, want []bool) []*Node
}

// inPlacer names the inputs whose buffer the first output may take over.
type inPlacer interface{ inPlace() []int }

// adder names the operand that is added to the result, so that a sum of gradients costs nothing. The operand may be absent.
type adder interface{ addSlot() int }

// sizer names the size that [kernels.Backend.ScratchBytes] knows.
type sizer interface{ size() any }

// Shape returns the node's shape; it must not be changed.
func (n *Node) Shape() []int { return n.shape }

// Elems returns the number of the node's elements.
func (n *Node) Elems() int { return tensor.Elems(n.shape) }

// Last returns the length of the last axis: channels or width.
func (n *Node) Last() int { return n.shape[len(n.shape)-1] }

func (n *Node) rows() int { return n.Elems() / n.Last() }

// Weight is a frozen matrix or convolution kernel: [O,I] or [O,I,kh,kw]. Packed is nil until it is read; a [Plan] needs only the shape.
type Weight struct {
	Name   string
	Shape  []int
	Packed kernels.Weight

	squares map[[2]int][]float32 // of Graph.Squares, by groups and inner
}

// Vector is a small frozen float32 array (bias, norm gain) in backend memory. Data is nil until it is read.
type Vector struct {
	Name  string
	Shape []int
	Data  []float32
}

// Param is a trained float32 array in backend memory. Grad is written or added to by every run ([Program.Sum]).
type Param struct {
	Name        string
	Shape       []int
	Value, Grad []float32
}

// add appends a node.
func (g *Graph) add(o op, shape []int, in ...*Node) *Node {
	n := &Node{id: len(g.nodes), op: o, in: in, shape: slices.Clone(shape), segment: g.segment, backward: g.backward, transient: g.transient}
	g.nodes = append(g.nodes, n)
	return n
}

// output adds a further output of shape to n.
func (g *Graph) output(n *Node, shape ...int) *Node {
	a := g.add(auxOutput{len(n.aux)}, shape, n)
	n.aux = append(n.aux, a)
	return a
}

// Segment runs build; the nodes it makes form one segment of checkpointing: their values can be recomputed from the segment's inputs.
func (g *Graph) Segment(build func()) {
	if g.segment != 0 {
		panic("graph: Segment inside a segment")
	}
	g.segments++
	g.segment = g.segments
	build()
	g.segment = 0
}

// Transient runs build; the values of the nodes it makes are not kept for the gradient but computed again right before a gradient node reads them, with or
// without checkpointing. It is for what is large and cheap, such as a weight with its change.
func (g *Graph) Transient(build func()) {
	outer := g.transient
	g.transient, g.hasTransient = true, true
	build()
	g.transient = outer
}

// Input returns a leaf that is set before each run through [Program.Input].
func (g *Graph) Input(name string, shape ...int) *Node { return g.leaf(inputLeaf{name}, shape) }

// Param returns the leaf of a trained array. The same p in one graph gives separate nodes; ask once.
func (g *Graph) Param(p *Param) *Node { return g.leaf(paramLeaf{p}, p.Shape) }

// Vector returns the leaf of a frozen array; nil for nil.
func (g *Graph) Vector(v *Vector) *Node {
	if v == nil {
		return nil
	}
	return g.leaf(vectorLeaf{v}, v.Shape)
}

// leaf adds a node that belongs to no segment: recomputation never clones it.
func (g *Graph) leaf(o op, shape []int) *Node {
	n := g.add(o, shape)
	n.segment, n.transient = 0, false
	return n
}

func isLeaf(n *Node) bool {
	switch n.op.(type) {
	case inputLeaf, paramLeaf, vectorLeaf:
		return true
	}
	return false
}

type inputLeaf struct{ label string }
type paramLeaf struct{ p *Param }
type vectorLeaf struct{ v *Vector }
type auxOutput struct{ index int }

func (o inputLeaf) name() string { return "input " + o.label }
func (o paramLeaf) name() string { return "param " + o.p.Name }
func (o vectorLeaf) name() string {
	return "vector " + o.v.Name
}
func (o auxOutput) name() string { return fmt.Sprintf("output %d", o.index+1) }

func (inputLeaf) run(kernels.Backend, [][]float32, [][]float32)  {}
func (paramLeaf) run(kernels.Backend, [][]float32, [][]float32)  {}
func (vectorLeaf) run(kernels.Backend, [][]float32, [][]float32) {}
func (auxOutput) run(kernels.Backend, [][]float32, [][]float32)  {}

func (inputLeaf) grad(*Graph, *Node, *Node, []bool) []*Node  { return nil }
func (paramLeaf) grad(*Graph, *Node, *Node, []bool) []*Node  { return nil }
func (vectorLeaf) grad(*Graph, *Node, *Node, []bool) []*Node { return nil }

// An auxiliary output (norm statistics, log sums) is there for gradients and is itself not differentiated.
func (auxOutput) grad(*Graph, *Node, *Node, []bool) []*Node { return []*Node{nil} }

// mustSame panics unless a and b have as many elements.
func mustSame(what string, a, b *Node) {
	if a.Elems() != b.Elems() {
		panic(fmt.Sprintf("graph: %s: shapes %v and %v", what, a.shape, b.shape))
	}
}

func must(ok bool, format string, args ...any) {
	if !ok {
		panic("graph: " + fmt.Sprintf(format, args...))
	}
}

// withLast returns shape with its last axis replaced.
func withLast(shape []int, last int) []int {
	s := slices.Clone(shape)
	s[len(s)-1] = last
	return s
}
