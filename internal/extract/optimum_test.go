package extract_test

import (
	"math"

	"lycoris/internal/linalg"
)

// bestRest returns the least ‖a − b‖ over matrices b of rank k, by a full decomposition.
func bestRest(a []float32, m, n, k int) float64 {
	_, s, _ := linalg.GramSVD(a, m, n)
	rest := 0.0
	for _, v := range s[min(k, len(s)):] {
		rest += v * v
	}
	return math.Sqrt(rest)
}
