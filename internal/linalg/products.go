package linalg

// Products multiplies rows with a matrix A [m,n] from either side. What decomposes large matrices asks for no more, so that whoever has fast products lends them.
type Products interface {
	Dims() (m, n int)
	// Times writes y [l,m] = x [l,n]·Aᵀ.
	Times(y, x []float32, l int)
	// TimesT writes y [l,n] = x [l,m]·A.
	TimesT(y, x []float32, l int)
}

// Dense is the products of a [m,n] in plain Go, sums in float64: for small matrices.
func Dense(a []float32, m, n int) Products { return &dense{a, m, n} }

type dense struct {
	a    []float32
	m, n int
}

func (d *dense) Dims() (int, int) { return d.m, d.n }

func (d *dense) Times(y, x []float32, l int) {
	for i := range d.m {
		row := d.a[i*d.n : (i+1)*d.n]
		for p := range l {
			var sum float64
			for j, v := range x[p*d.n : (p+1)*d.n] {
				sum += float64(v) * float64(row[j])
			}
			y[p*d.m+i] = float32(sum)
		}
	}
}

func (d *dense) TimesT(y, x []float32, l int) {
	sum := make([]float64, d.n)
	for p := range l {
		clear(sum)
		for i := range d.m {
			f := float64(x[p*d.m+i])
			for j, v := range d.a[i*d.n : (i+1)*d.n] {
				sum[j] += f * float64(v)
			}
		}
		for j, v := range sum {
			y[p*d.n+j] = float32(v)
		}
	}
}
