package extract

import (
	"fmt"
	"math"

	"lycoris/internal/algos"
	"lycoris/internal/linalg"
)

// rotation fits W+Δ = Rᵀ·W in blocks of outputs: per block the rotation O = Rᵀ that is nearest, from T·Wᵀ = (W+Δ)·Wᵀ (Schönemann, 1966), and
// oft_blocks = Q/2 with R = (I+Q)(I−Q)⁻¹, since what is stored is made skew as X − Xᵀ. A block whose rotation has no such Q is left as it was.
func (w *worker) rotation(l *layer) (*fit, error) {
	dim := w.rule(l).Dim
	size, count := algos.Factorization(l.m, dim)
	values := make([]float32, count*size*size)
	turned := 0
	for k := range count {
		from := k * size * l.n
		base, delta := l.base[from:from+size*l.n], l.delta[from:from+size*l.n]
		r := transpose(linalg.Rotation(outer(base, delta, size, l.n), size), size)
		q, ok := linalg.InverseCayley(r, size)
		if !ok {
			turned++
			continue
		}
		for i, v := range q {
			values[k*size*size+i] = float32(v / 2)
		}
	}
	blocks, err := w.stored(l, "oft_blocks", []int{count, size, size}, values)
	if err != nil {
		return nil, err
	}
	f := &fit{tensors: []named{alpha(0), blocks}, rank: size}
	if turned > 0 {
		f.note = fmt.Sprintf("%d of %d blocks are turned by half a circle, which has no Cayley form: left as they were", turned, count)
	}
	kept := blocks.Float32()
	row := make([]float64, l.n)
	for k := range count {
		o := transpose(linalg.Cayley(skewed(kept[k*size*size:(k+1)*size*size], size), size), size)
		base := l.base[k*size*l.n : (k+1)*size*l.n]
		for i := range size { // Δ − (O − I)·W
			for j := range row {
				row[j] = float64(l.delta[(k*size+i)*l.n+j])
			}
			for p := range size {
				x := o[i*size+p]
				if p == i {
					x--
				}
				for j, v := range base[p*l.n : (p+1)*l.n] {
					row[j] -= x * float64(v)
				}
			}
			for _, v := range row {
				f.left += v * v
				f.worst = max(f.worst, math.Abs(v))
			}
		}
	}
	return f, nil
}

// outer returns (base+delta)·baseᵀ of rows [b,n].
func outer(base, delta []float32, b, n int) []float64 {
	p := make([]float64, b*b)
	for i := range b {
		x, d := base[i*n:(i+1)*n], delta[i*n:(i+1)*n]
		for j := range b {
			var sum float64
			for c, v := range base[j*n : (j+1)*n] {
				sum += (float64(x[c]) + float64(d[c])) * float64(v)
			}
			p[i*b+j] = sum
		}
	}
	return p
}

func transpose(a []float64, b int) []float64 {
	t := make([]float64, len(a))
	for i := range b {
		for j := range b {
			t[j*b+i] = a[i*b+j]
		}
	}
	return t
}

// skewed returns x − xᵀ.
func skewed(x []float32, b int) []float64 {
	q := make([]float64, b*b)
	for i := range b {
		for j := range b {
			q[i*b+j] = float64(x[i*b+j]) - float64(x[j*b+i])
		}
	}
	return q
}
