package tokenizer

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	_ "embed"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"
)

//go:embed bpe_simple_vocab_16e6.txt.gz
var compressedMerges []byte

// numMerges is how many lines of the table CLIP uses: the vocabulary less 256 bytes, 256 bytes at a word's end and two special tokens. The file
// has more.
const numMerges = VocabSize - 512 - 2

// firstMerge is the id of the first merge; those of the others follow in order.
const firstMerge = 512

// wordEnd marks a piece that ends a word.
const wordEnd = "</w>"

// pair is two neighbouring pieces.
type pair struct{ left, right int32 }

// table is the vocabulary in the form that merging needs.
type table struct {
	bytes  [256]int32     // id of each byte inside a word; 256 more at its end
	merges map[pair]int32 // id of what a pair merges into; lower ids go first
}

// loadTable returns the embedded table, reading it the first time.
var loadTable = sync.OnceValue(func() *table {
	t, err := readTable(compressedMerges)
	if err != nil {
		panic("tokenizer: embedded merge table: " + err.Error()) // a test reads it
	}
	return t
})

// readTable reads a gzip-compressed merge table: a header, then one merge a line, "left right", lowest id first.
func readTable(compressed []byte) (*table, error) {
	unzip, err := gzip.NewReader(bytes.NewReader(compressed))
	if err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(unzip) // reads no further than the merges that count, a sixth of the file
	lines.Scan()

	t := &table{merges: make(map[pair]int32, numMerges)}
	ids := make(map[string]int32, VocabSize)
	for id, char := range byteAlphabet() {
		t.bytes[char.byte] = int32(id)
		ids[string(char.rune)] = int32(id)
		ids[string(char.rune)+wordEnd] = int32(id) + 256
	}
	for i := range int32(numMerges) {
		if !lines.Scan() {
			return nil, fmt.Errorf("merge %d is missing: %w", i, cmp.Or(lines.Err(), io.ErrUnexpectedEOF))
		}
		left, right, _ := strings.Cut(lines.Text(), " ")
		l, knowLeft := ids[left]
		r, knowRight := ids[right]
		if !knowLeft || !knowRight {
			return nil, fmt.Errorf("merge %d: %q has an unknown piece", i, lines.Text())
		}
		ids[left+right] = firstMerge + i
		t.merges[pair{l, r}] = firstMerge + i
	}
	return t, nil
}

// byteChar is a byte and the printable character that stands for it in the table.
type byteChar struct {
	byte byte
	rune rune
}

// byteAlphabet returns the 256 bytes in the order of their ids: first those that Latin-1 prints, as themselves, then the others as U+0100, U+0101…
func byteAlphabet() []byteChar {
	var printed, others []byteChar
	for b := range 256 {
		if b > ' ' && b <= '~' || b >= 0xa1 && b != 0xad {
			printed = append(printed, byteChar{byte(b), rune(b)})
		} else {
			others = append(others, byteChar{byte(b), rune(256 + len(others))})
		}
	}
	return append(printed, others...)
}

// appendWord appends the ids of one word.
func (t *table) appendWord(ids []int32, word string) []int32 {
	switch word {
	case bosText:
		return append(ids, BOS)
	case eosText:
		return append(ids, EOS)
	}
	pieces := make([]int32, len(word))
	for i := range len(word) {
		pieces[i] = t.bytes[word[i]]
	}
	pieces[len(word)-1] += 256
	return append(ids, t.merge(pieces)...)
}

// noMerge is the rank of a pair that isn't in the table.
const noMerge = math.MaxInt32

// rank returns the id that a pair merges into, or noMerge.
func (t *table) rank(left, right int32) int32 {
	if id, ok := t.merges[pair{left, right}]; ok {
		return id
	}
	return noMerge
}

// merge replaces, in place, all occurrences of the pair with the lowest id, from left to right, until no pair is left that merges.
func (t *table) merge(pieces []int32) []int32 {
	ranks := make([]int32, len(pieces)) // of each piece with the next one
	for i := range pieces {
		ranks[i] = noMerge
		if i+1 < len(pieces) {
			ranks[i] = t.rank(pieces[i], pieces[i+1])
		}
	}
	for {
		best := slices.Min(ranks)
		if best == noMerge {
			return pieces
		}
		n := 0
		for i := 0; i < len(pieces); i++ {
			piece := pieces[i]
			if ranks[i] == best {
				piece = best
				i++ // the next one is part of it
			}
			pieces[n], ranks[n] = piece, ranks[i]
			n++
		}
		pieces, ranks = pieces[:n], ranks[:n]
		for i := range n - 1 {
			if pieces[i] == best || pieces[i+1] == best {
				ranks[i] = t.rank(pieces[i], pieces[i+1])
			}
		}
	}
}
