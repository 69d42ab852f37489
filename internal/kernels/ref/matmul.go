package ref

import "lycoris/internal/kernels"

// MatMul: c[b,m,n] = alpha · Σ_k op(a)[b,m,k]·op(b)[b,k,n] + epilogue; with Sum the items are summed too.
func (Backend) MatMul(c, a, b []float32, e kernels.Epilogue, s kernels.MatMul) {
	const op = "MatMul"
	require(s.Batch >= 1, op, "batch is %d, want 1 or more", s.Batch)
	needA, needB := (s.Batch-1)*s.StrideA+s.M*s.K, (s.Batch-1)*s.StrideB+s.K*s.N
	require(len(a) >= needA, op, "len(a) = %d, want %d or more", len(a), needA)
	require(len(b) >= needB, op, "len(b) = %d, want %d or more", len(b), needB)
	items, summed := s.Batch, 1
	if s.Sum {
		items, summed = 1, s.Batch
	}
	check(op, "c", len(c), items*s.M*s.N)
	require(len(e.PerItem) == 0 || items == 1, op, "PerItem for %d items", items)
	per := checkEpilogue(op, e, items*s.M, s.N, 0)

	// Element (m,k) of op(a) is a[m·aRow+k·aCol]; the same for b.
	aRow, aCol := s.K, 1
	if s.TransA {
		aRow, aCol = 1, s.M
	}
	bRow, bCol := s.N, 1
	if s.TransB {
		bRow, bCol = 1, s.K
	}
	for item := range items {
		for m := range s.M {
			for n := range s.N {
				var sum float64
				for part := range summed {
					a, b := a[(item+part)*s.StrideA:], b[(item+part)*s.StrideB:]
					for k := range s.K {
						sum += float64(a[m*aRow+k*aCol]) * float64(b[k*bRow+n*bCol])
					}
				}
				row := item*s.M + m
				c[row*s.N+n] = store(float64(s.Alpha)*sum, e, row, n, s.N, per)
			}
		}
	}
}

// blockAt returns the index in r of element (i,j) of block k.
func blockAt(s kernels.BlockMatMul, k, i, j int) int {
	if s.Trans {
		return (k*s.T+j)*s.S + i
	}
	return (k*s.S+i)*s.T + j
}

// checkBlockMatMul checks the sides of x and y and the blocks.
func checkBlockMatMul(op string, y, x, r []float32, s kernels.BlockMatMul) {
	check(op, "x", len(x), s.M*s.N*s.S)
	check(op, "y", len(y), s.M*s.N*s.T)
	check(op, "r", len(r), s.N*s.S*s.T)
}

// BlockMatMul: y[m,k,j] = Σ_i x[m,k,i]·r[k](i,j) + add.
func (Backend) BlockMatMul(y, x, r, add []float32, s kernels.BlockMatMul) {
	checkBlockMatMul("BlockMatMul", y, x, r, s)
	checkOptional("BlockMatMul", "add", add, len(y))
	for m := range s.M {
		for k := range s.N {
			for j := range s.T {
				at := (m*s.N+k)*s.T + j
				var sum float64
				for i := range s.S {
					sum += float64(x[(m*s.N+k)*s.S+i]) * float64(r[blockAt(s, k, i, j)])
				}
				y[at] = store(sum, kernels.Epilogue{Add: add}, 0, at, 0, 1)
			}
		}
	}
}

// BlockMatMulGrad: dr[k](i,j) = Σ_m x[m,k,i]·dy[m,k,j].
func (Backend) BlockMatMulGrad(dr, dy, x []float32, s kernels.BlockMatMul) {
	checkBlockMatMul("BlockMatMulGrad", dy, x, dr, s)
	for k := range s.N {
		for i := range s.S {
			for j := range s.T {
				var sum float64
				for m := range s.M {
					sum += float64(x[(m*s.N+k)*s.S+i]) * float64(dy[(m*s.N+k)*s.T+j])
				}
				dr[blockAt(s, k, i, j)] = float32(sum)
			}
		}
	}
}
