package ref

import (
	"math"

	"lycoris/internal/kernels"
)

// checkAttention checks the operands that both ops have.
func checkAttention(op string, out, lse, q, k, v []float32, s kernels.Attention) {
	width := s.Heads * s.D
	check(op, "q", len(q), s.N*s.TQ*width)
	check(op, "k", len(k), s.N*s.TK*width)
	check(op, "v", len(v), s.N*s.TK*width)
	check(op, "out", len(out), len(q))
	checkOptional(op, "lse", lse, s.N*s.Heads*s.TQ)
	require(s.TK >= 1 || s.TQ == 0, op, "%d queries and no keys", s.TQ)
}

// head returns row t of head h of item n in x [N,T,Heads·D].
func head(x []float32, n, t, tokens, h int, s kernels.Attention) []float32 {
	return x[((n*tokens+t)*s.Heads+h)*s.D:][:s.D]
}

// visible returns how many keys query i sees: keys 0 to i when causal.
func visible(s kernels.Attention, i int) int {
	if s.Causal {
		return min(i+1, s.TK)
	}
	return s.TK
}

// Attention: out[i] = Σ_j softmax_j(scale·q[i]·k[j])·v[j] and lse[i] = log Σ_j exp(scale·q[i]·k[j]), per item and head (Vaswani et al., 2017,
// equation 1).
func (Backend) Attention(out, lse, q, k, v []float32, s kernels.Attention) {
	checkAttention("Attention", out, lse, q, k, v, s)
	weights, acc := make([]float64, s.TK), make([]float64, s.D)
	for n := range s.N {
		for h := range s.Heads {
			for i := range s.TQ {
				keys := visible(s, i)
				highest := math.Inf(-1)
				for j := range keys {
					weights[j] = float64(s.Scale) * dot(head(q, n, i, s.TQ, h, s), head(k, n, j, s.TK, h, s))
					highest = max(highest, weights[j])
				}
				var sum float64
				clear(acc)
				for j := range keys {
					e := math.Exp(weights[j] - highest)
					sum += e
					for d, value := range head(v, n, j, s.TK, h, s) {
						acc[d] += e * float64(value)
					}
				}
				o := head(out, n, i, s.TQ, h, s)
				for d := range o {
					o[d] = float32(acc[d] / sum)
				}
				if lse != nil {
					lse[(n*s.Heads+h)*s.TQ+i] = float32(highest + math.Log(sum))
				}
			}
		}
	}
}

// AttentionGrad: with P[i,j] = exp(scale·q[i]·k[j] - lse[i]) and D[i] = dout[i]·out[i],
//
//	dS = P ∘ (dout·vᵀ - D),  dq = scale·dS·k,  dk = scale·dSᵀ·q,  dv = Pᵀ·dout
//
// (Dao et al., FlashAttention, 2022, appendix B.2, equations 3 to 6).
func (Backend) AttentionGrad(dq, dk, dv, dout, out, lse, q, k, v []float32, s kernels.Attention) {
	const op = "AttentionGrad"
	checkAttention(op, out, lse, q, k, v, s)
	check(op, "lse", len(lse), s.N*s.Heads*s.TQ)
	check(op, "dout", len(dout), len(q))
	checkOptional(op, "dq", dq, len(q))
	checkOptional(op, "dk", dk, len(k))
	checkOptional(op, "dv", dv, len(v))
	p, ds := make([]float64, s.TQ*s.TK), make([]float64, s.TQ*s.TK) // zero where a query doesn't see a key
	acc := make([]float64, s.D)
	for n := range s.N {
		for h := range s.Heads {
			for i := range s.TQ {
				do := head(dout, n, i, s.TQ, h, s)
				rowSum := dot(do, head(out, n, i, s.TQ, h, s))
				for j := range visible(s, i) {
					score := float64(s.Scale) * dot(head(q, n, i, s.TQ, h, s), head(k, n, j, s.TK, h, s))
					p[i*s.TK+j] = math.Exp(score - float64(lse[(n*s.Heads+h)*s.TQ+i]))
					ds[i*s.TK+j] = p[i*s.TK+j] * (dot(do, head(v, n, j, s.TK, h, s)) - rowSum)
				}
			}
			if dq != nil {
				for i := range s.TQ {
					clear(acc)
					for j := range s.TK {
						addTo(acc, ds[i*s.TK+j], head(k, n, j, s.TK, h, s))
					}
					scaleInto(head(dq, n, i, s.TQ, h, s), acc, float64(s.Scale))
				}
			}
			for j := range s.TK {
				if dk != nil {
					clear(acc)
					for i := range s.TQ {
						addTo(acc, ds[i*s.TK+j], head(q, n, i, s.TQ, h, s))
					}
					scaleInto(head(dk, n, j, s.TK, h, s), acc, float64(s.Scale))
				}
				if dv != nil {
					clear(acc)
					for i := range s.TQ {
						addTo(acc, p[i*s.TK+j], head(dout, n, i, s.TQ, h, s))
					}
					scaleInto(head(dv, n, j, s.TK, h, s), acc, 1)
				}
			}
		}
	}
}

// addTo adds f·x to acc.
func addTo(acc []float64, f float64, x []float32) {
	for i, v := range x {
		acc[i] += f * float64(v)
	}
}

// scaleInto stores f·acc in y.
func scaleInto(y []float32, acc []float64, f float64) {
	for i, v := range acc {
		y[i] = float32(f * v)
	}
}
