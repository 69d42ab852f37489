package resize

import "math"

// Rule says how many ranks a module keeps, from the singular values of its change.
type Rule string

// The rules. Names are those of sd-scripts' resize_lora.py where it has the rule; there each keeps one value more than asked.
const (
	Fixed      Rule = ""              // all, up to the cap
	Ratio      Rule = "sv_ratio"      // values of at least the largest/p
	Frobenius  Rule = "sv_fro"        // share p of the Frobenius norm
	Cumulative Rule = "sv_cumulative" // share p of the sum of the values
	MaxError   Rule = "max_error"     // an error of at most p of the Frobenius norm
)

// rank returns how many of the values s, which fall, the rule keeps with its parameter p: at least 1.
func (r Rule) rank(s []float64, p float64) int {
	k := len(s)
	switch r {
	case Ratio:
		for k > 1 && s[k-1] < s[0]/p {
			k--
		}
	case Frobenius:
		k = reach(s, p*p, square)
	case Cumulative:
		k = reach(s, p, func(x float64) float64 { return x })
	case MaxError:
		var total, tail float64
		for _, x := range s {
			total += x * x
		}
		for k > 1 && tail+square(s[k-1]) <= p*p*total {
			tail += square(s[k-1])
			k--
		}
	}
	return max(k, 1)
}

func square(x float64) float64 { return x * x }

// reach returns the smallest k of which the first k values of part sum up to the share of all.
func reach(s []float64, share float64, part func(float64) float64) int {
	var total, sum float64
	for _, x := range s {
		total += part(x)
	}
	for k, x := range s {
		if sum += part(x); sum >= share*total {
			return k + 1
		}
	}
	return len(s)
}

// norm returns the length of s.
func norm(s []float64) float64 {
	var sum float64
	for _, x := range s {
		sum += x * x
	}
	return math.Sqrt(sum)
}
