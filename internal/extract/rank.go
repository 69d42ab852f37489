package extract

import (
	"math"

	"lycoris/internal/fault"
)

// Rule says how many singular values of a change are kept. At most one of Ratio, Fro, Threshold and Quantile is set; Dim is the rank or, beside one of them, its limit.
type Rule struct {
	Dim       int     // 0: no limit
	Ratio     float64 // values of at least the largest / Ratio; below 1: more than the fraction Ratio of the largest
	Fro       float64 // as few as hold this share of the norm
	Threshold float64 // values above this
	Quantile  float64 // as many as have a running sum below this share of the sum (LyCORIS)
}

func (r Rule) dynamic() bool { return r.Ratio > 0 || r.Fro > 0 || r.Threshold > 0 || r.Quantile > 0 }

func (r Rule) check() error {
	given := 0
	for _, v := range []float64{r.Ratio, r.Fro, r.Threshold, r.Quantile} {
		if v > 0 {
			given++
		}
	}
	if given > 1 {
		return fault.BadUsage("", "more than one of --sv-ratio, --sv-fro, --sv-threshold and --sv-quantile is given").Advise("--dim goes beside one of them, as its limit")
	}
	return nil
}

// whole reports whether the rule needs all singular values.
func (r Rule) whole() bool { return r.Quantile > 0 }

// limit returns the largest rank that the rule gives a change of at most full singular values.
func (r Rule) limit(full int) int {
	if r.Dim > 0 {
		return min(r.Dim, full)
	}
	return full
}

// rank returns how many of the singular values s, in falling order, are kept of a change with the norm fro; at least 1. enough is false where s is too short to tell:
// all of it is kept and the next value might be too.
func (r Rule) rank(s []float64, fro float64) (rank int, enough bool) {
	keep := func(stop func(j int) bool) (int, bool) {
		for j := range s {
			if stop(j) {
				return max(j, 1), true
			}
		}
		return max(len(s), 1), false
	}
	sum := 0.0
	switch {
	case len(s) == 0:
		return 0, true
	case r.Ratio >= 1:
		return keep(func(j int) bool { return s[j] < s[0]/r.Ratio })
	case r.Ratio > 0:
		return keep(func(j int) bool { return s[j] <= s[0]*r.Ratio })
	case r.Threshold > 0:
		return keep(func(j int) bool { return s[j] <= r.Threshold })
	case r.Quantile > 0:
		all := 0.0
		for _, v := range s {
			all += v
		}
		return keep(func(j int) bool { sum += s[j]; return sum >= r.Quantile*all })
	case r.Fro > 0:
		n, enough := keep(func(j int) bool {
			reached := math.Sqrt(sum) >= r.Fro*fro
			sum += s[j] * s[j]
			return reached
		})
		return n, enough || math.Sqrt(sum) >= r.Fro*fro
	}
	return len(s), true
}
