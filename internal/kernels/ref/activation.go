package ref

import (
	"math"

	"lycoris/internal/kernels"
)

// sigmoid returns 1/(1+e^-x).
func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

// silu and siluSlope are x·σ(x) and its derivative (Elfwing, Uchibe and Doya, 2018, equations 3 and 5).
func silu(x float64) float64 { return x * sigmoid(x) }
func siluSlope(x float64) float64 {
	s := sigmoid(x)
	return s * (1 + x*(1-s))
}

// gelu and geluSlope are x·Φ(x) and its derivative Φ(x) + x·φ(x), with the normal distribution function Φ (Hendrycks and Gimpel, 2016,
// section 2). erfc instead of 1+erf keeps the digits where Φ is small.
func gelu(x float64) float64 { return x * normalCDF(x) }
func geluSlope(x float64) float64 {
	return normalCDF(x) + x*math.Exp(-x*x/2)/math.Sqrt(2*math.Pi)
}
func normalCDF(x float64) float64 { return 0.5 * math.Erfc(-x/math.Sqrt2) }

// quickGELU and its derivative: x·σ(1.702x) (same paper, section 2; the activation of CLIP ViT-L).
func quickGELU(x float64) float64 { return x * sigmoid(1.702*x) }
func quickGELUSlope(x float64) float64 {
	s := sigmoid(1.702 * x)
	return s * (1 + 1.702*x*(1-s))
}

// function returns f and its derivative.
func function(op string, f kernels.Activation) (value, slope func(float64) float64) {
	switch f {
	case kernels.SiLU:
		return silu, siluSlope
	case kernels.GELU:
		return gelu, geluSlope
	case kernels.QuickGELU:
		return quickGELU, quickGELUSlope
	}
	require(false, op, "activation %d does not exist", f)
	return nil, nil
}

// Activate: y = f(x).
func (Backend) Activate(y, x []float32, f kernels.Activation) {
	check("Activate", "y", len(y), len(x))
	value, _ := function("Activate", f)
	for i, v := range x {
		y[i] = float32(value(float64(v)))
	}
}

// ActivateGrad: dx = dy·f'(x).
func (Backend) ActivateGrad(dx, dy, x []float32, f kernels.Activation) {
	check("ActivateGrad", "dx", len(dx), len(x))
	check("ActivateGrad", "dy", len(dy), len(x))
	_, slope := function("ActivateGrad", f)
	for i, v := range x {
		dx[i] = float32(float64(dy[i]) * slope(float64(v)))
	}
}

// GEGLU: y[m,j] = x[m,j]·gelu(x[m,D+j]) (Shazeer, 2020, equation 5, in the order of diffusers: value first, then gate).
func (Backend) GEGLU(y, x []float32, m, d int) {
	check("GEGLU", "y", len(y), m*d)
	check("GEGLU", "x", len(x), 2*m*d)
	for r := range m {
		row := x[2*r*d:][:2*d]
		for j := range d {
			y[r*d+j] = float32(float64(row[j]) * gelu(float64(row[d+j])))
		}
	}
}

// GEGLUGrad: dx[m,j] = dy[m,j]·gelu(gate), dx[m,D+j] = dy[m,j]·value·gelu'(gate).
func (Backend) GEGLUGrad(dx, dy, x []float32, m, d int) {
	check("GEGLUGrad", "dx", len(dx), 2*m*d)
	check("GEGLUGrad", "dy", len(dy), m*d)
	check("GEGLUGrad", "x", len(x), 2*m*d)
	for r := range m {
		for j := range d {
			i := 2*r*d + j
			value, gate, g := float64(x[i]), float64(x[i+d]), float64(dy[r*d+j])
			dx[i] = float32(g * gelu(gate))
			dx[i+d] = float32(g * value * geluSlope(gate))
		}
	}
}
