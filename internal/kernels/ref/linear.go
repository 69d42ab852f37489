package ref

import "lycoris/internal/kernels"

// matrix returns the values of a weight seen as [O,I]; a kernel [O,C,1,1] counts as [O,C].
func matrix(op string, w kernels.Weight) (values []float32, o, i int) {
	shape := w.Shape()
	require(len(shape) == 2 || shape[2]*shape[3] == 1, op, "weight has shape %v, want [O I]", shape)
	return w.(*weight).values, shape[0], shape[1]
}

// checkEpilogue checks an epilogue for m rows of o outputs and returns the rows per item of PerItem; items is 0 where it follows from PerItem.
func checkEpilogue(op string, e kernels.Epilogue, m, o, items int) (rowsPerItem int) {
	checkOptional(op, "Bias", e.Bias, o)
	checkOptional(op, "Add", e.Add, m*o)
	if len(e.PerItem) == 0 {
		return max(m, 1)
	}
	if items == 0 {
		items = len(e.PerItem) / o
	}
	check(op, "PerItem", len(e.PerItem), items*o)
	require(m%items == 0, op, "%d rows for %d items", m, items)
	return max(m/items, 1)
}

// store returns acc + bias[o] + perItem[item,o] + add[row,o].
func store(acc float64, e kernels.Epilogue, row, o, outputs, rowsPerItem int) float32 {
	acc += at(e.Bias, o)
	if len(e.PerItem) > 0 {
		acc += float64(e.PerItem[row/rowsPerItem*outputs+o])
	}
	return float32(acc + at(e.Add, row*outputs+o))
}

// Linear: y[m,o] = Σ_i x[m,i]·W[o,i] + epilogue.
func (Backend) Linear(y, x []float32, w kernels.Weight, m int, e kernels.Epilogue) {
	const op = "Linear"
	v, outs, ins := matrix(op, w)
	check(op, "x", len(x), m*ins)
	check(op, "y", len(y), m*outs)
	per := checkEpilogue(op, e, m, outs, 0)
	for r := range m {
		for o := range outs {
			y[r*outs+o] = store(dot(x[r*ins:][:ins], v[o*ins:][:ins]), e, r, o, outs, per)
		}
	}
}

// LinearGrad: dx[m,i] = Σ_o dy[m,o]·W[o,i] + add[m,i].
func (Backend) LinearGrad(dx, dy []float32, w kernels.Weight, m int, add []float32) {
	const op = "LinearGrad"
	v, outs, ins := matrix(op, w)
	check(op, "dx", len(dx), m*ins)
	check(op, "dy", len(dy), m*outs)
	checkOptional(op, "add", add, m*ins)
	for r := range m {
		for i := range ins {
			sum := at(add, r*ins+i)
			for o := range outs {
				sum += float64(dy[r*outs+o]) * float64(v[o*ins+i])
			}
			dx[r*ins+i] = float32(sum)
		}
	}
}
