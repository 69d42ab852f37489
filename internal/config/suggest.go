package config

import (
	"slices"
	"strings"
)

// Nearest returns the candidate with the smallest edit distance to s, at most 2 and less than the length of s; "" if there is none.
// Case is ignored, and - counts as _.
func Nearest(s string, candidates []string) string {
	best, bestD := "", 3
	norm := func(x string) string { return strings.ReplaceAll(strings.ToLower(x), "-", "_") }
	a := norm(s)
	for _, c := range candidates {
		if d := distance(a, norm(c)); d < bestD && d < len(a) {
			best, bestD = c, d
		}
	}
	return best
}

// distance is the edit distance with insertions, deletions, substitutions and swaps of neighbours.
func distance(a, b string) int {
	if d := len(a) - len(b); d > 2 || d < -2 {
		return 3
	}
	prev2, prev := []int(nil), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur := make([]int, len(b)+1)
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev = prev, cur
	}
	return prev[len(b)]
}

// laterKeys are keys of the product that this version doesn't serve; the sentence is better than "unknown".
var laterKeys = []string{
	"train_bias",
	"model.zero_snr", "cache.variants", "optimizer.args", "scheduler.cycles", "scheduler.power", "train.min_snr_gamma", "train.debiased",
	"train.noise_offset", "train.loss", "train.huber_c", "train.prior_weight", "guard.max_rollbacks", "guard.loss_spike", "log.tensorboard",
	"log.system_every", "data.weight", "data.reg", "data.mask",
}

// suggestion says what a person probably meant by an unknown key inside group ("" at the top): advice, or "".
func suggestion(key, group string, table []*Key) string {
	full := key
	if group != "" {
		full = group + "." + key
	}
	if slices.Contains(laterKeys, full) {
		return "this version doesn't have it yet"
	}
	names := []string{}
	for _, k := range table {
		if slices.Contains(k.Foreign, key) {
			return quoteKey(k.Path)
		}
		names = append(names, k.Path)
	}
	// Within the group first, so that a slip in a nested key finds its neighbour.
	if group != "" && len(table) == len(keys) {
		var near, tails []string
		for _, n := range names {
			if tail, ok := strings.CutPrefix(n, group+"."); ok {
				near, tails = append(near, n), append(tails, tail)
			}
		}
		if t := Nearest(key, tails); t != "" {
			return quoteKey(near[slices.Index(tails, t)])
		}
	}
	if group != "" && len(table) != len(keys) {
		full = key // the keys of a data entry stand alone
	}
	if n := Nearest(full, names); n != "" {
		return quoteKey(n)
	}
	groups := Groups()
	if n := Nearest(key, groups); group == "" && n != "" {
		return quoteKey(n)
	}
	// The last part alone, as in min_lr for scheduler.min_lr.
	for _, n := range names {
		if i := strings.LastIndexByte(n, '.'); i >= 0 && n[i+1:] == key {
			return quoteKey(n)
		}
	}
	return ""
}

func quoteKey(k string) string { return `did you mean "` + k + `"?` }

// unknown reports a key that isn't in the table.
func (f *Findings) unknown(origin, key, group string, table []*Key) {
	shown := key
	if group != "" {
		shown = group + "." + key
	}
	f.add(origin, "unknown key %q", shown).Advice = suggestion(key, group, table)
}

// Groups returns the names of the groups of keys: model, bucket, ...
func Groups() []string {
	var out []string
	for _, k := range keys {
		if i := strings.IndexByte(k.Path, '.'); i >= 0 && !slices.Contains(out, k.Path[:i]) {
			out = append(out, k.Path[:i])
		}
	}
	return out
}
