package linalg

import "gonum.org/v1/gonum/mat"

// Rotation returns the rotation o [b,b] for which ‖t − o·a‖ is least, from the products p = t·aᵀ [b,b]: with p = P·S·Vᵀ it is P·Vᵀ or, where that is a reflection,
// the same with the sign of the smallest singular value turned over (Schönemann, 1966; Kabsch, 1976).
func Rotation(p []float64, b int) []float64 {
	var svd mat.SVD
	if !svd.Factorize(mat.NewDense(b, b, p), mat.SVDFull) {
		panic("linalg: the decomposition of a small matrix failed")
	}
	var u, v, o mat.Dense
	svd.UTo(&u)
	svd.VTo(&v)
	o.Mul(&u, v.T())
	if mat.Det(&o) < 0 {
		for i := range b {
			u.Set(i, b-1, -u.At(i, b-1))
		}
		o.Mul(&u, v.T())
	}
	return o.RawMatrix().Data
}

// InverseCayley returns the skew matrix Q with (I+Q)·(I−Q)⁻¹ = r [b,b], a rotation: Q = (r+I)⁻¹·(r−I). ok is false where r turns something by so nearly half a
// circle that there is none: the smallest singular value of r+I is below 1e-3, an angle within 0.06° of 180°.
func InverseCayley(r []float64, b int) (q []float64, ok bool) {
	plus, minus := mat.NewDense(b, b, nil), mat.NewDense(b, b, nil)
	for i := range b {
		for j := range b {
			v := r[i*b+j]
			plus.Set(i, j, v)
			minus.Set(i, j, v)
		}
		plus.Set(i, i, r[i*b+i]+1)
		minus.Set(i, i, r[i*b+i]-1)
	}
	var svd mat.SVD
	if !svd.Factorize(plus, mat.SVDNone) || svd.Values(nil)[b-1] < 1e-3 {
		return nil, false
	}
	var x mat.Dense
	if err := x.Solve(plus, minus); err != nil {
		if _, poor := err.(mat.Condition); !poor {
			return nil, false
		}
	}
	q = make([]float64, b*b)
	for i := range b {
		for j := range b {
			q[i*b+j] = (x.At(i, j) - x.At(j, i)) / 2
		}
	}
	return q, true
}

// Cayley returns (I+q)·(I−q)⁻¹ of a skew matrix q [b,b].
func Cayley(q []float64, b int) []float64 {
	plus, minus := mat.NewDense(b, b, nil), mat.NewDense(b, b, nil)
	for i := range b {
		for j := range b {
			plus.Set(i, j, q[i*b+j])
			minus.Set(i, j, -q[i*b+j])
		}
		plus.Set(i, i, 1+q[i*b+i])
		minus.Set(i, i, 1-q[i*b+i])
	}
	var r mat.Dense
	// (I+q) and (I−q)⁻¹ commute. I−q of a skew q is never singular; a condition number that gonum warns of is one of huge angles.
	if err := r.Solve(minus, plus); err != nil {
		if _, poor := err.(mat.Condition); !poor {
			panic("linalg: Cayley of a matrix that is not skew")
		}
	}
	out := make([]float64, b*b)
	for i := range b {
		copy(out[i*b:(i+1)*b], r.RawRowView(i))
	}
	return out
}
