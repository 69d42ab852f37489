package ref

// Upload copies src to dst: the backend's memory is the host's.
func (Backend) Upload(dst, src []float32) {
	check("Upload", "dst", len(dst), len(src))
	copy(dst, src)
}

// Download copies src to dst.
func (Backend) Download(dst, src []float32) {
	check("Download", "dst", len(dst), len(src))
	copy(dst, src)
}

// CopyColumns copies a range of columns of src [rows,srcLD] into dst [rows,dstLD]. The last row may end with its range.
func (Backend) CopyColumns(dst []float32, dstLD, dstOff int, src []float32, srcLD, srcOff, rows, cols int) {
	require(dstOff >= 0 && dstOff+cols <= dstLD, "CopyColumns", "columns [%d:%d] of dst, rows of %d", dstOff, dstOff+cols, dstLD)
	require(srcOff >= 0 && srcOff+cols <= srcLD, "CopyColumns", "columns [%d:%d] of src, rows of %d", srcOff, srcOff+cols, srcLD)
	if rows > 0 {
		dstEnd, srcEnd := (rows-1)*dstLD+dstOff+cols, (rows-1)*srcLD+srcOff+cols
		require(len(dst) >= dstEnd, "CopyColumns", "len(dst) = %d, want %d or more", len(dst), dstEnd)
		require(len(src) >= srcEnd, "CopyColumns", "len(src) = %d, want %d or more", len(src), srcEnd)
	}
	for r := range rows {
		copy(dst[r*dstLD+dstOff:][:cols], src[r*srcLD+srcOff:][:cols])
	}
}

// Permute: y[i0,i1,…] = x at the index whose axis perm[j] is ij.
func (Backend) Permute(y, x []float32, shape, perm []int) {
	const op = "Permute"
	check(op, "perm", len(perm), len(shape))
	require(len(shape) <= 6, op, "%d axes, want at most 6", len(shape))
	n := 1
	strides := make([]int, len(shape)) // of x
	for i := len(shape) - 1; i >= 0; i-- {
		strides[i] = n
		n *= shape[i]
	}
	check(op, "x", len(x), n)
	check(op, "y", len(y), n)
	seen := 0
	for _, p := range perm {
		require(p >= 0 && p < len(shape) && seen>>p&1 == 0, op, "perm = %v is not a permutation of %d axes", perm, len(shape))
		seen |= 1 << p
	}
	for i := range y {
		from, rest := 0, i
		for axis := len(perm) - 1; axis >= 0; axis-- {
			size := shape[perm[axis]]
			from += rest % size * strides[perm[axis]]
			rest /= size
		}
		y[i] = x[from]
	}
}

// checkRows checks index, each of whose values names one of rows rows of length d.
func checkRows(op string, table []float32, index []int32, d int) {
	require(d > 0 && len(table)%d == 0, op, "table of %d floats, rows of %d", len(table), d)
	for i, r := range index {
		require(r >= 0 && int(r) < len(table)/d, op, "index[%d] = %d, want below %d", i, r, len(table)/d)
	}
}

// GatherRows: y[i,:] = x[index[i],:].
func (Backend) GatherRows(y, x []float32, index []int32, d int) {
	checkRows("GatherRows", x, index, d)
	check("GatherRows", "y", len(y), len(index)*d)
	for i, r := range index {
		copy(y[i*d:][:d], x[int(r)*d:][:d])
	}
}

// ScatterRows: y = 0, then y[index[i],:] += x[i,:] for i in order. It is the gradient of GatherRows.
func (Backend) ScatterRows(y, x []float32, index []int32, d int) {
	checkRows("ScatterRows", y, index, d)
	check("ScatterRows", "x", len(x), len(index)*d)
	clear(y)
	for i, r := range index {
		for j := range d {
			y[int(r)*d+j] += x[i*d+j]
		}
	}
}

// Upsample: y[n,i,j,:] = x[n,i/2,j/2,:] for y [N,2H,2W,C].
func (Backend) Upsample(y, x []float32, n, h, w, c int) {
	check("Upsample", "x", len(x), n*h*w*c)
	check("Upsample", "y", len(y), 4*n*h*w*c)
	for row := range n * 2 * h { // rows of all items: 2H is even, so halving stays inside the item
		for j := range 2 * w {
			copy(y[(row*2*w+j)*c:][:c], x[(row/2*w+j/2)*c:][:c])
		}
	}
}

// UpsampleGrad: dx[n,i,j,:] = the sum of the four pixels of dy [N,2H,2W,C] that came from it.
func (Backend) UpsampleGrad(dx, dy []float32, n, h, w, c int) {
	check("UpsampleGrad", "dx", len(dx), n*h*w*c)
	check("UpsampleGrad", "dy", len(dy), 4*n*h*w*c)
	for row := range n * h {
		for j := range w {
			for k := range c {
				p := (2*row*2*w+2*j)*c + k
				q := p + 2*w*c
				dx[(row*w+j)*c+k] = float32(float64(dy[p]) + float64(dy[p+c]) + float64(dy[q]) + float64(dy[q+c]))
			}
		}
	}
}
