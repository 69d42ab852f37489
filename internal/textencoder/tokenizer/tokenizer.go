package tokenizer

import "fmt"

// The special tokens, and the sizes that go with them.
const (
	BOS       = 49406 // <|startoftext|>
	EOS       = 49407 // <|endoftext|>; also what Stable Diffusion 1 pads with
	VocabSize = 49408

	ChunkTokens = 75              // ids of the caption in a chunk
	ChunkLength = ChunkTokens + 2 // positions that a text encoder reads at once
)

// Encode returns the ids of text as maxTokens/75 chunks of 77, one after the other: [BOS, 75 ids, EOS] each, where the caption goes on from chunk to
// chunk and is filled up with EOS. Ids beyond maxTokens are cut off. maxTokens is 75 or a multiple of it.
func Encode(text string, maxTokens int) []int32 {
	if maxTokens <= 0 || maxTokens%ChunkTokens != 0 {
		panic(fmt.Sprintf("tokenizer: %d tokens, want a multiple of %d", maxTokens, ChunkTokens))
	}
	ids := tokenize(text, maxTokens)
	out := make([]int32, 0, maxTokens/ChunkTokens*ChunkLength)
	for len(out) < cap(out) {
		n := min(len(ids), ChunkTokens)
		out = append(append(out, BOS), ids[:n]...)
		for range ChunkLength - 1 - n {
			out = append(out, EOS)
		}
		ids = ids[n:]
	}
	return out
}

// Count returns the number of ids that text has, without BOS and EOS and without a limit.
func Count(text string) int { return len(tokenize(text, -1)) }

// tokenize returns the ids of text, at most limit of them if limit isn't negative.
func tokenize(text string, limit int) []int32 {
	t := loadTable()
	var ids []int32
	for word, rest := nextWord(clean(text)); word != ""; word, rest = nextWord(rest) {
		ids = t.appendWord(ids, word)
		if limit >= 0 && len(ids) >= limit {
			return ids[:limit]
		}
	}
	return ids
}
