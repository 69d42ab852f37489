package tokenizer

import "testing"

// TestTable: an id's piece is what the id stands for.
func TestTable(t *testing.T) {
	pieces, merges, err := Table()
	if err != nil || len(pieces) != VocabSize || len(merges) != numMerges {
		t.Fatalf("%d pieces, %d merges, %v", len(pieces), len(merges), err)
	}
	for i, want := range []string{bosText, "a</w>", "photo</w>", "of</w>", "a</w>", "cat</w>", eosText} {
		if id := Encode("a photo of a cat", 75)[i]; pieces[id] != want {
			t.Errorf("id %d is %q, want %q", id, pieces[id], want)
		}
	}
}
