package ref

import "lycoris/internal/kernels"

// MatMul: c[b,m,n] = alpha · Σ_k op(a)[b,m,k]·op(b)[b,k,n] + add[b,m,n].
func (Backend) MatMul(c, a, b, add []float32, s kernels.MatMul) {
	const op = "MatMul"
	require(s.Batch >= 1, op, "batch is %d, want 1 or more", s.Batch)
	needA, needB := (s.Batch-1)*s.StrideA+s.M*s.K, (s.Batch-1)*s.StrideB+s.K*s.N
	require(len(a) >= needA, op, "len(a) = %d, want %d or more", len(a), needA)
	require(len(b) >= needB, op, "len(b) = %d, want %d or more", len(b), needB)
	check(op, "c", len(c), s.Batch*s.M*s.N)
	checkOptional(op, "add", add, len(c))

	// Element (m,k) of op(a) is a[m·aRow+k·aCol]; the same for b.
	aRow, aCol := s.K, 1
	if s.TransA {
		aRow, aCol = 1, s.M
	}
	bRow, bCol := s.N, 1
	if s.TransB {
		bRow, bCol = 1, s.K
	}
	for item := range s.Batch {
		a, b := a[item*s.StrideA:], b[item*s.StrideB:]
		for m := range s.M {
			for n := range s.N {
				var sum float64
				for k := range s.K {
					sum += float64(a[m*aRow+k*aCol]) * float64(b[k*bRow+n*bCol])
				}
				i := (item*s.M+m)*s.N + n
				c[i] = float32(float64(s.Alpha)*sum + at(add, i))
			}
		}
	}
}
