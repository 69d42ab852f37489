package linalg

// Product is the singular value decomposition of a product up·down of low rank, found without forming it:
//
//	up = Q₁·R₁, downᵀ = Q₂·R₂, R₁·R₂ᵀ = P·diag(S)·T, so up·down = (Q₁·P)·diag(S)·(T·Q₂ᵀ)
//
// The cost is that of the two decompositions, about 2(o+n)r² multiply-adds, and of one small matrix; the values are exact to rounding.
type Product struct {
	S           []float64 // all values, falling: min(o,r,n) of them
	left, right *reflections
	p, t        []float64 // of the small matrix: [k1,len(S)], [len(S),k2]
}

// NewProduct decomposes up·down from the columns of up and the rows of down, r of each, which it uses up; up has o rows, down n columns.
func NewProduct(up, down [][]float64, o, n int) *Product {
	a := &Product{left: householder(up, o), right: householder(down, n)}
	r, k1, k2 := len(up), len(a.left.vectors), len(a.right.vectors)
	c := make([]float64, k1*k2)
	for i := range k1 {
		for j := range k2 {
			c[i*k2+j] = dot(a.left.r[i*r:(i+1)*r], a.right.r[j*r:(j+1)*r])
		}
	}
	a.p, a.S, a.t = SVD(c, k1, k2)
	return a
}

// Left returns the left singular vector of value j, of length o.
func (a *Product) Left(j int) []float64 {
	x := make([]float64, len(a.left.vectors))
	for i := range x {
		x[i] = a.p[i*len(a.S)+j]
	}
	return a.left.apply(x)
}

// Right returns the right singular vector of value j, of length n.
func (a *Product) Right(j int) []float64 {
	k2 := len(a.right.vectors)
	return a.right.apply(a.t[j*k2 : (j+1)*k2])
}

// ProductSVD returns the k largest singular values of up·down with u [o,k] and v [k,n], from up [o,r] and down [r,n], without forming the product. k ≤ 0 is all
// of them; there are min(o,r,n).
func ProductSVD(up, down []float64, o, r, n, k int) (u, s, v []float64) {
	fromDown := make([][]float64, r)
	for j := range fromDown {
		fromDown[j] = append([]float64(nil), down[j*n:(j+1)*n]...)
	}
	a := NewProduct(columnsOf(up, o, r), fromDown, o, n)
	if k <= 0 || k > len(a.S) {
		k = len(a.S)
	}
	cols := make([][]float64, k)
	for j := range cols {
		cols[j] = a.Left(j)
		v = append(v, a.Right(j)...)
	}
	return fromColumns(cols, o), a.S[:k:k], v
}
