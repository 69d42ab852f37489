package train

import (
	"slices"
	"strings"
	"testing"

	"lycoris/internal/algos"
	"lycoris/internal/config"
	"lycoris/internal/rng"
)

// What the configuration says that a key means something to is what the algorithms say themselves.
func TestKeysOfAlgorithms(t *testing.T) {
	asked := map[string]bool{}
	for _, k := range append(config.Keys(), config.LayerKeys()...) {
		if len(k.Algos) == 0 || strings.HasPrefix(k.Path, "train.") {
			continue
		}
		path := strings.TrimPrefix(k.Path, "conv_")
		asked[path] = true
		for _, a := range algos.All {
			if a.Name == "norm" {
				continue
			}
			if takes, says := slices.Contains(a.Takes, path), slices.Contains(k.Algos, a.Name); takes != says {
				t.Errorf("%s takes %s: %v, the table of keys says %v", a.Name, path, takes, says)
			}
		}
	}
	for _, a := range algos.All {
		for _, key := range a.Takes {
			if !asked[key] && key != "on_input" {
				t.Errorf("%s takes %s, which is no key of algorithms", a.Name, key)
			}
		}
	}
	if len(asked) < 12 {
		t.Errorf("only %d keys were compared", len(asked))
	}
}

// Max norm works on the algorithms that the table of keys says.
func TestMaxNormAlgorithms(t *testing.T) {
	k := config.Lookup("train.scale_weight_norms")
	for _, a := range algos.All {
		if a.Name == "norm" {
			continue
		}
		made, err := a.New(algos.Target{Name: "x", Path: "unet.x", Shape: []int{16, 16}}, algos.Options{Rank: 4, BlockSize: 1, MaxNorm: true}, rng.New(1, "test", 0, 0))
		if err != nil {
			t.Fatal(err)
		}
		if _, works := made.(algos.Bounded); works != slices.Contains(k.Algos, a.Name) {
			t.Errorf("%s: max norm works: %v, the table of keys says %v", a.Name, works, !works)
		}
	}
}
