package ref

// Combine: y = alpha·a + beta·b.
func (Backend) Combine(y, a []float32, alpha float32, b []float32, beta float32) {
	check("Combine", "a", len(a), len(y))
	check("Combine", "b", len(b), len(y))
	for i := range y {
		y[i] = float32(float64(alpha)*float64(a[i]) + float64(beta)*float64(b[i]))
	}
}

// Scale: y = alpha·x.
func (Backend) Scale(y, x []float32, alpha float32) {
	check("Scale", "x", len(x), len(y))
	for i := range y {
		y[i] = alpha * x[i]
	}
}

// Mul: y = a·b, element by element.
func (Backend) Mul(y, a, b []float32) {
	check("Mul", "a", len(a), len(y))
	check("Mul", "b", len(b), len(y))
	for i := range y {
		y[i] = a[i] * b[i]
	}
}

// Axpy: y += alpha·x.
func (Backend) Axpy(y, x []float32, alpha float32) {
	check("Axpy", "x", len(x), len(y))
	for i := range y {
		y[i] = float32(float64(y[i]) + float64(alpha)*float64(x[i]))
	}
}

// checkBlocks checks the sizes of an op that goes through x in blocks of inner elements, block k belonging to s[k mod len(s)].
func checkBlocks(op string, x, s []float32, inner int) {
	require(inner >= 1 && len(s) >= 1 && len(x)%(inner*len(s)) == 0, op, "%d elements, len(s) = %d, inner = %d", len(x), len(s), inner)
}

// MulBlocks: y[i] = x[i]·s[(i/inner) mod len(s)].
func (Backend) MulBlocks(y, x, s []float32, inner int) {
	checkBlocks("MulBlocks", x, s, inner)
	check("MulBlocks", "y", len(y), len(x))
	for i, v := range x {
		y[i] = v * s[i/inner%len(s)]
	}
}

// AddBlocks: y[i] = x[i] + s[(i/inner) mod len(s)].
func (Backend) AddBlocks(y, x, s []float32, inner int) {
	checkBlocks("AddBlocks", x, s, inner)
	check("AddBlocks", "y", len(y), len(x))
	for i, v := range x {
		y[i] = v + s[i/inner%len(s)]
	}
}

// SumBlocks: s[j] = Σ a[i]·b[i] over the i with (i/inner) mod len(s) = j; b nil means ones.
func (Backend) SumBlocks(s, a, b []float32, inner int) {
	checkBlocks("SumBlocks", a, s, inner)
	checkOptional("SumBlocks", "b", b, len(a))
	acc := make([]float64, len(s))
	for i, v := range a {
		f := 1.0
		if b != nil {
			f = float64(b[i])
		}
		acc[i/inner%len(s)] += float64(v) * f
	}
	for j, v := range acc {
		s[j] = float32(v)
	}
}

// SumSquares returns Σ x² in the order of x.
func (Backend) SumSquares(x []float32) float64 { return dot(x, x) }
