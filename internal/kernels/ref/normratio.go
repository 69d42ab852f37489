package ref

import "math"

// NormRatio: f[i] = mu·(d[i]/(√ss[i] + eps) − 1) + 1.
func (Backend) NormRatio(f, d, ss []float32, eps, mu float32) {
	check("NormRatio", "d", len(d), len(f))
	check("NormRatio", "ss", len(ss), len(f))
	for i := range f {
		f[i] = float32(float64(mu)*(float64(d[i])/(math.Sqrt(math.Max(float64(ss[i]), 0))+float64(eps))-1) + 1)
	}
}

// NormRatioGrad: dd[i] = df[i]·mu/n, dss[i] = −df[i]·mu·d[i]/(n²·2√ss[i]), n = √ss[i] + eps; 0 for ss[i] = 0, where the root has no slope.
func (Backend) NormRatioGrad(dd, dss, df, d, ss []float32, eps, mu float32) {
	const op = "NormRatioGrad"
	check(op, "d", len(d), len(df))
	check(op, "ss", len(ss), len(df))
	checkOptional(op, "dd", dd, len(df))
	checkOptional(op, "dss", dss, len(df))
	for i := range df {
		root := math.Sqrt(math.Max(float64(ss[i]), 0))
		n := root + float64(eps)
		if dd != nil {
			dd[i] = float32(float64(df[i]) * float64(mu) / n)
		}
		if dss != nil {
			dss[i] = 0
			if ss[i] > 0 {
				dss[i] = float32(-float64(df[i]) * float64(mu) * float64(d[i]) / (2 * n * n * root))
			}
		}
	}
}
