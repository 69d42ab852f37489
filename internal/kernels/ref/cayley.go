package ref

import (
	"math"

	"lycoris/internal/kernels"
)

// Cayley: r = (I+Q)·(I−Q)⁻¹ per block, Q = a − aᵀ within the bound. I+Q and (I−Q)⁻¹ = X commute, so r = 2X − I.
func (Backend) Cayley(r, a []float32, s kernels.Cayley) {
	check("Cayley", "a", len(a), s.N*s.S*s.S)
	check("Cayley", "r", len(r), len(a))
	factor, _, _ := bound(a, s)
	for n := range s.N {
		block := a[n*s.S*s.S:][:s.S*s.S]
		m := make([][]float64, s.S) // [I−Q | I]
		for i := range m {
			m[i] = make([]float64, 2*s.S)
			for j := range s.S {
				m[i][j] = -factor * (float64(block[i*s.S+j]) - float64(block[j*s.S+i]))
			}
			m[i][i]++
			m[i][s.S+i] = 1
		}
		eliminate(m)
		for i := range s.S {
			for j := range s.S {
				x := 2 * m[i][s.S+j]
				if i == j {
					x--
				}
				r[(n*s.S+i)*s.S+j] = float32(x)
			}
		}
	}
}

// bound returns what Q is multiplied by, and the norm ‖Q‖ + 1e-8 and ‖Q‖ that decide it.
func bound(a []float32, s kernels.Cayley) (factor, q, norm float64) {
	for n := range s.N {
		block := a[n*s.S*s.S:][:s.S*s.S]
		for i := range s.S {
			for j := range s.S {
				d := float64(block[i*s.S+j]) - float64(block[j*s.S+i])
				norm += d * d
			}
		}
	}
	norm = math.Sqrt(norm)
	q = norm + 1e-8
	if s.Limit > 0 && q > float64(s.Limit) {
		return float64(s.Limit) / q, q, norm
	}
	return 1, q, norm
}

// eliminate turns m = [A|B] into [I|A⁻¹·B]: Gauss and Jordan, with the largest pivot of each column.
func eliminate(m [][]float64) {
	for k := range m {
		top := k
		for i := k + 1; i < len(m); i++ {
			if math.Abs(m[i][k]) > math.Abs(m[top][k]) {
				top = i
			}
		}
		m[k], m[top] = m[top], m[k]
		pivot := m[k][k]
		for j := range m[k] {
			m[k][j] /= pivot
		}
		for i := range m {
			f := m[i][k]
			if i == k || f == 0 {
				continue
			}
			for j := range m[i] {
				m[i][j] -= f * m[k][j]
			}
		}
	}
}

// CayleyGrad: dr = X·dQ·2X, so GQ = 2·Xᵀ·dr·Xᵀ with X = (I+r)/2.
func (Backend) CayleyGrad(da, dr, r, a []float32, s kernels.Cayley) {
	const op = "CayleyGrad"
	check(op, "a", len(a), s.N*s.S*s.S)
	check(op, "r", len(r), len(a))
	check(op, "dr", len(dr), len(a))
	check(op, "da", len(da), len(a))
	size := s.S * s.S
	gq, x, t := make([]float64, len(a)), make([]float64, size), make([]float64, size)
	for n := range s.N {
		for i := range s.S {
			for j := range s.S {
				x[i*s.S+j] = float64(r[n*size+i*s.S+j]) / 2
			}
			x[i*s.S+i] += 0.5
		}
		for i := range s.S { // t = dr·Xᵀ
			for j := range s.S {
				var sum float64
				for k := range s.S {
					sum += float64(dr[n*size+i*s.S+k]) * x[j*s.S+k]
				}
				t[i*s.S+j] = sum
			}
		}
		for i := range s.S {
			for j := range s.S {
				var sum float64
				for k := range s.S {
					sum += x[k*s.S+i] * t[k*s.S+j]
				}
				gq[n*size+i*s.S+j] = 2 * sum
			}
		}
	}
	skew := func(n, i, j int) float64 { return float64(a[n*size+i*s.S+j]) - float64(a[n*size+j*s.S+i]) }
	factor, q, norm := bound(a, s)
	var inner float64
	if factor != 1 {
		for n := range s.N {
			for i := range s.S {
				for j := range s.S {
					inner += gq[n*size+i*s.S+j] * skew(n, i, j)
				}
			}
		}
		inner /= q * norm
	}
	for n := range s.N {
		for i := range s.S {
			for j := range s.S {
				g := gq[n*size+i*s.S+j] - gq[n*size+j*s.S+i]
				da[n*size+i*s.S+j] = float32(factor * (g - 2*inner*skew(n, i, j)))
			}
		}
	}
}
