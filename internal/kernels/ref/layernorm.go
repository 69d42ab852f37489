package ref

import (
	"math"

	"lycoris/internal/kernels"
)

// LayerNorm: y = (x-mean)/sqrt(var+eps)·gamma + beta, mean and (population) variance over each row (Ba, Kiros and Hinton, 2016, equation 4).
func (Backend) LayerNorm(y, stats, x, gamma, beta []float32, s kernels.LayerNorm) {
	const op = "LayerNorm"
	check(op, "x", len(x), s.M*s.D)
	check(op, "y", len(y), s.M*s.D)
	check(op, "stats", len(stats), s.M*2)
	check(op, "gamma", len(gamma), s.D)
	check(op, "beta", len(beta), s.D)
	for r := range s.M {
		row := x[r*s.D:][:s.D]
		var sum, squares float64
		for _, v := range row {
			sum += float64(v)
		}
		mean := sum / float64(s.D)
		for _, v := range row {
			squares += (float64(v) - mean) * (float64(v) - mean)
		}
		inverse := 1 / math.Sqrt(squares/float64(s.D)+float64(s.Eps))
		stats[2*r], stats[2*r+1] = float32(mean), float32(inverse)
		for j, v := range row {
			y[r*s.D+j] = float32((float64(v)-mean)*inverse*float64(gamma[j]) + float64(beta[j]))
		}
	}
}

// LayerNormGrad: with h = gamma·dy, dx = (h - mean(h) - xhat·mean(h·xhat)) / sqrt(var+eps) + add, the means over the row.
func (Backend) LayerNormGrad(dx, dy, x, stats, gamma, add []float32, s kernels.LayerNorm) {
	const op = "LayerNormGrad"
	check(op, "dx", len(dx), s.M*s.D)
	check(op, "dy", len(dy), s.M*s.D)
	check(op, "x", len(x), s.M*s.D)
	check(op, "stats", len(stats), s.M*2)
	check(op, "gamma", len(gamma), s.D)
	checkOptional(op, "add", add, s.M*s.D)
	for r := range s.M {
		mean, inverse := float64(stats[2*r]), float64(stats[2*r+1])
		var sumH, sumHX float64
		for j := range s.D {
			h := float64(gamma[j]) * float64(dy[r*s.D+j])
			sumH += h
			sumHX += h * (float64(x[r*s.D+j]) - mean) * inverse
		}
		for j := range s.D {
			i := r*s.D + j
			h := float64(gamma[j]) * float64(dy[i])
			xhat := (float64(x[i]) - mean) * inverse
			dx[i] = float32((h-sumH/float64(s.D)-xhat*sumHX/float64(s.D))*inverse + at(add, i))
		}
	}
}

// LayerNormParamGrad: dgamma[j] = Σ dy·xhat, dbeta[j] = Σ dy over the rows.
func (Backend) LayerNormParamGrad(dgamma, dbeta, dy, x, stats []float32, s kernels.LayerNorm) {
	const op = "LayerNormParamGrad"
	checkOptional(op, "dgamma", dgamma, s.D)
	checkOptional(op, "dbeta", dbeta, s.D)
	check(op, "dy", len(dy), s.M*s.D)
	check(op, "x", len(x), s.M*s.D)
	check(op, "stats", len(stats), s.M*2)
	for j := range s.D {
		var sum, sumX float64
		for r := range s.M {
			d := float64(dy[r*s.D+j])
			sum += d
			sumX += d * (float64(x[r*s.D+j]) - float64(stats[2*r])) * float64(stats[2*r+1])
		}
		if dgamma != nil {
			dgamma[j] = float32(sumX)
		}
		if dbeta != nil {
			dbeta[j] = float32(sum)
		}
	}
}
