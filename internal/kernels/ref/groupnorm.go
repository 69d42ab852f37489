package ref

import (
	"math"

	"lycoris/internal/kernels"
)

// checkGroupNorm checks the operands that every op of the family has and returns the channels per group.
func checkGroupNorm(op string, x, stats, gamma, beta []float32, s kernels.GroupNorm) int {
	require(s.Groups >= 1 && s.C%s.Groups == 0, op, "%d channels in %d groups", s.C, s.Groups)
	check(op, "x", len(x), s.N*s.P*s.C)
	check(op, "stats", len(stats), s.N*s.Groups*2)
	check(op, "gamma", len(gamma), s.C)
	check(op, "beta", len(beta), s.C)
	return s.C / s.Groups
}

// GroupNorm: xhat = (x-mean)/sqrt(var+eps) with mean and (population) variance over the pixels and channels of a group, z = gamma·xhat+beta,
// y = z or silu(z) (Wu and He, "Group normalization", 2018, equations 1 to 3, 6 and 7).
func (Backend) GroupNorm(y, stats, x, gamma, beta []float32, s kernels.GroupNorm) {
	size := checkGroupNorm("GroupNorm", x, stats, gamma, beta, s)
	check("GroupNorm", "y", len(y), len(x))
	for n := range s.N {
		for g := range s.Groups {
			var sum, squares float64
			for p := range s.P {
				for _, v := range x[(n*s.P+p)*s.C+g*size:][:size] {
					sum += float64(v)
				}
			}
			mean := sum / float64(s.P*size)
			for p := range s.P {
				for _, v := range x[(n*s.P+p)*s.C+g*size:][:size] {
					squares += (float64(v) - mean) * (float64(v) - mean)
				}
			}
			inverse := 1 / math.Sqrt(squares/float64(s.P*size)+float64(s.Eps))
			stats[(n*s.Groups+g)*2], stats[(n*s.Groups+g)*2+1] = float32(mean), float32(inverse)
			for p := range s.P {
				for c := g * size; c < (g+1)*size; c++ {
					i := (n*s.P+p)*s.C + c
					z := (float64(x[i])-mean)*inverse*float64(gamma[c]) + float64(beta[c])
					if s.SiLU {
						z = silu(z)
					}
					y[i] = float32(z)
				}
			}
		}
	}
}

// groupNormSlope returns xhat at element i of channel c, and dz, the gradient at the norm's output before the activation.
func groupNormSlope(dy, x, gamma, beta []float32, mean, inverse float64, i, c int, withSiLU bool) (xhat, dz float64) {
	xhat = (float64(x[i]) - mean) * inverse
	dz = float64(dy[i])
	if withSiLU {
		dz *= siluSlope(xhat*float64(gamma[c]) + float64(beta[c]))
	}
	return xhat, dz
}

// GroupNormGrad: with h = gamma·dz, dx = (h - mean(h) - xhat·mean(h·xhat)) / sqrt(var+eps) + add, the means over the group (Ioffe and Szegedy,
// 2015, section 3, with the batch replaced by the group). dz = dy, or dy·silu'(z).
func (Backend) GroupNormGrad(dx, dy, x, stats, gamma, beta, add []float32, s kernels.GroupNorm) {
	const op = "GroupNormGrad"
	size := checkGroupNorm(op, x, stats, gamma, beta, s)
	check(op, "dx", len(dx), len(x))
	check(op, "dy", len(dy), len(x))
	checkOptional(op, "add", add, len(x))
	for n := range s.N {
		for g := range s.Groups {
			mean, inverse := float64(stats[(n*s.Groups+g)*2]), float64(stats[(n*s.Groups+g)*2+1])
			var sumH, sumHX float64
			for p := range s.P {
				for c := g * size; c < (g+1)*size; c++ {
					xhat, dz := groupNormSlope(dy, x, gamma, beta, mean, inverse, (n*s.P+p)*s.C+c, c, s.SiLU)
					sumH += float64(gamma[c]) * dz
					sumHX += float64(gamma[c]) * dz * xhat
				}
			}
			count := float64(s.P * size)
			for p := range s.P {
				for c := g * size; c < (g+1)*size; c++ {
					i := (n*s.P+p)*s.C + c
					xhat, dz := groupNormSlope(dy, x, gamma, beta, mean, inverse, i, c, s.SiLU)
					dx[i] = float32((float64(gamma[c])*dz-sumH/count-xhat*sumHX/count)*inverse + at(add, i))
				}
			}
		}
	}
}

// GroupNormParamGrad: dgamma[c] = Σ dz·xhat, dbeta[c] = Σ dz over the items and pixels.
func (Backend) GroupNormParamGrad(dgamma, dbeta, dy, x, stats, gamma, beta []float32, s kernels.GroupNorm) {
	const op = "GroupNormParamGrad"
	size := checkGroupNorm(op, x, stats, gamma, beta, s)
	check(op, "dy", len(dy), len(x))
	checkOptional(op, "dgamma", dgamma, s.C)
	checkOptional(op, "dbeta", dbeta, s.C)
	for c := range s.C {
		var sum, sumX float64
		for n := range s.N {
			k := (n*s.Groups + c/size) * 2
			for p := range s.P {
				xhat, dz := groupNormSlope(dy, x, gamma, beta, float64(stats[k]), float64(stats[k+1]), (n*s.P+p)*s.C+c, c, s.SiLU)
				sum += dz
				sumX += dz * xhat
			}
		}
		if dgamma != nil {
			dgamma[c] = float32(sumX)
		}
		if dbeta != nil {
			dbeta[c] = float32(sum)
		}
	}
}
