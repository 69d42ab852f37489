package adapter

import (
	"iter"
	"slices"
	"strings"

	"lycoris/internal/tensor"
)

// SaveAsIs is [Save] that leaves every tensor's type: for tools that change names or metadata only, or have cast already.
func SaveAsIs(path string, tensors []tensor.Named, meta map[string]string) error {
	meta, err := withHashes(tensors, meta)
	if err != nil {
		return err
	}
	return tensor.WriteFile(path, tensors, meta)
}

// Hashes returns what sshs_model_hash and sshs_legacy_hash are for a file of these tensors and metadata.
func Hashes(tensors []tensor.Named, meta map[string]string) (model, legacy string, err error) {
	if meta == nil {
		meta = map[string]string{}
	}
	all, err := withHashes(tensors, meta)
	return all["sshs_model_hash"], all["sshs_legacy_hash"], err
}

// IsAdapter reports whether tensors of these names are factors of an adapter.
func IsAdapter(names []string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return suffixAlgorithm(n) != "" })
}

// PeftScale returns what tells alpha and rank of a module, by its dotted path, from the configuration of a folder that peft wrote; nil for other files.
func PeftScale(path string) (func(module string) (alpha, rank float64), error) {
	c, err := readPeft(path)
	if c == nil || err != nil {
		return nil, err
	}
	m := func(module string) (float64, float64) {
		holder := &Module{Target: &Target{}, keys: map[string]string{}}
		holder.Target.Module.Path = module
		c.apply(holder)
		return holder.alpha, c.of(c.RankOf, module, c.Rank)
	}
	return m, nil
}

// Pairs returns suffixes of which neither stands without the other.
func Pairs() [][2]string { return pairs }

// DottedNames returns the ways to take a tensor's name with a dotted path apart, the likeliest first: the path, and the suffix in kohya's spelling.
func DottedNames(key string) iter.Seq2[string, string] {
	return func(yield func(path, suffix string) bool) {
		for _, s := range dottedSuffixes {
			if path, fits := strings.CutSuffix(key, s.ends); fits && !yield(path, s.suffix) {
				return
			}
		}
	}
}
