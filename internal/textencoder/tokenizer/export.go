package tokenizer

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"io"
	"strings"
)

// Table returns the vocabulary as other programs store it: every piece of text in the order of the ids, and the merges, "left right", in the order in which they go.
func Table() (pieces, merges []string, err error) {
	alphabet := byteAlphabet()
	for _, end := range []string{"", wordEnd} {
		for _, char := range alphabet {
			pieces = append(pieces, string(char.rune)+end)
		}
	}
	unzip, err := gzip.NewReader(bytes.NewReader(compressedMerges))
	if err != nil {
		return nil, nil, err
	}
	lines := bufio.NewScanner(unzip)
	lines.Scan() // the header
	for range numMerges {
		if !lines.Scan() {
			return nil, nil, io.ErrUnexpectedEOF
		}
		merges = append(merges, lines.Text())
		pieces = append(pieces, strings.ReplaceAll(lines.Text(), " ", ""))
	}
	return append(pieces, bosText, eosText), merges, nil
}
