package tokenizer

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// golden is testdata/golden/tokenizer.json, made by scripts/goldens/tokens.py.
type golden struct {
	BOS, EOS, Vocab int
	Cases           []struct {
		Text         string
		IDs          []int32 // OpenAI's rule with ftfy reduced to NFC
		Chunk        []int32 // 77 ids; only some cases
		Transformers []int32 // where transformers' own tokenizer differs
	}
}

func readGolden(t testing.TB) golden {
	t.Helper()
	text, err := os.ReadFile("../../../testdata/golden/tokenizer.json")
	if err != nil {
		t.Fatal(err)
	}
	var g golden
	if err := json.Unmarshal(text, &g); err != nil {
		t.Fatal(err)
	}
	return g
}

func TestGolden(t *testing.T) {
	g := readGolden(t)
	if g.BOS != BOS || g.EOS != EOS || g.Vocab != VocabSize {
		t.Fatalf("golden's special tokens are %d and %d of %d", g.BOS, g.EOS, g.Vocab)
	}
	if len(g.Cases) < 50 {
		t.Fatalf("golden has %d cases", len(g.Cases))
	}
	for _, c := range g.Cases {
		if got := tokenize(c.Text, -1); !slices.Equal(got, c.IDs) {
			t.Errorf("%q\n got %v\nwant %v", c.Text, got, c.IDs)
		}
		if got := Count(c.Text); got != len(c.IDs) {
			t.Errorf("Count(%q) = %d, want %d", c.Text, got, len(c.IDs))
		}
		if got := Encode(c.Text, ChunkTokens); c.Chunk != nil && !slices.Equal(got, c.Chunk) {
			t.Errorf("Encode(%q)\n got %v\nwant %v", c.Text, got, c.Chunk)
		}
	}
}

// The chunks of a long prompt as sd-scripts cuts them: [BOS] + ids[1+75i:76+75i] + [EOS] of the text padded to maxTokens+2.
func TestLongPrompts(t *testing.T) {
	for _, maxTokens := range []int{75, 150, 225} {
		for _, words := range []int{0, 1, 74, 75, 76, 149, 150, 151, 224, 225, 226, 400} {
			const the = 518
			padded := make([]int32, maxTokens+2)
			for i := range padded {
				padded[i] = EOS
				if i == 0 {
					padded[i] = BOS
				} else if i <= min(words, maxTokens) {
					padded[i] = the
				}
			}
			var want []int32
			for i := 0; i < maxTokens; i += 75 {
				want = append(append(append(want, BOS), padded[1+i:76+i]...), padded[len(padded)-1])
			}
			if got := Encode(strings.Repeat("the ", words), maxTokens); !slices.Equal(got, want) {
				t.Errorf("%d words at %d tokens:\n got %v\nwant %v", words, maxTokens, got, want)
			}
		}
	}
}

func TestClean(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"  A\t\nB\u00a0C\x1fD ", "a b c d"},
		{"&amp;lt;b&amp;gt;", "<b>"},
		{"cafe\u0301", "caf\u00e9"},
		{"\u0130", "i\u0307"},
		{"\u03a3\u039f\u03a6\u039f\u03a3 \u03a3", "\u03c3\u03bf\u03c6\u03bf\u03c2 \u03c3"},
		{"a\xffb", "a\ufffdb"},
	} {
		if got := clean(c.text); got != c.want {
			t.Errorf("clean(%q) = %q, want %q", c.text, got, c.want)
		}
	}
}

func TestWords(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string
	}{
		{"", nil},
		{" ", nil},
		{"it's don't", []string{"it", "'s", "don", "'t"}},
		{"they're we've i'm he'll she'd", []string{"they", "'re", "we", "'ve", "i", "'m", "he", "'ll", "she", "'d"}},
		{"wow!'s", []string{"wow", "!'", "s"}},
		{"a1b22", []string{"a", "1", "b", "2", "2"}},
		{"(x:1.3)", []string{"(", "x", ":", "1", ".", "3", ")"}},
		{"a<|endoftext|>b", []string{"a", "<|endoftext|>", "b"}},
		{"!<|endoftext|>b", []string{"!<|", "endoftext", "|>", "b"}},
		{"\u65e5\u672c\u2461\u0663\U0001f600", []string{"\u65e5\u672c", "\u2461", "\u0663", "\U0001f600"}},
	} {
		var got []string
		for word, rest := nextWord(c.text); word != ""; word, rest = nextWord(rest) {
			got = append(got, word)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("words of %q = %q, want %q", c.text, got, c.want)
		}
	}
}

func TestEncodeRefusesOtherLengths(t *testing.T) {
	for _, maxTokens := range []int{-75, 0, 74, 77} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Encode with %d tokens doesn't panic", maxTokens)
				}
			}()
			Encode("a", maxTokens)
		}()
	}
}

func TestReadTableRefusesDamage(t *testing.T) {
	if _, err := readTable(compressedMerges[:1000]); err == nil {
		t.Error("a truncated table is read without an error")
	}
	if _, err := readTable([]byte("not gzip")); err == nil {
		t.Error("a table that isn't gzip is read without an error")
	}
}

// A single word of a hundred thousand letters takes a moment, not minutes: merging is linear in the word for each distinct merge.
func TestLongWord(t *testing.T) {
	start := time.Now()
	n := Count(strings.Repeat("abcdefghij", 10000))
	if n < 10000 || n > 100000 {
		t.Errorf("Count = %d", n)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
}

func FuzzEncode(f *testing.F) {
	for _, c := range readGolden(f).Cases {
		f.Add(c.Text)
	}
	f.Add("\xff\xfe")
	f.Fuzz(func(t *testing.T, text string) {
		ids := Encode(text, 150)
		if len(ids) != 2*ChunkLength {
			t.Fatalf("Encode(%q, 150) has %d ids", text, len(ids))
		}
		for i, id := range ids {
			if id < 0 || id >= VocabSize {
				t.Fatalf("Encode(%q, 150)[%d] = %d", text, i, id)
			}
		}
		for chunk := range 2 {
			if ids[chunk*ChunkLength] != BOS || ids[(chunk+1)*ChunkLength-1] != EOS {
				t.Fatalf("chunk %d of %q isn't between BOS and EOS: %v", chunk, text, ids)
			}
		}
		if again := Encode(text, 150); !slices.Equal(ids, again) {
			t.Fatalf("%q gives %v, then %v", text, ids, again)
		}
		if all := tokenize(text, -1); !slices.Equal(tokenize(text, 10), all[:min(10, len(all))]) {
			t.Fatalf("the first 10 ids of %q aren't those of the whole", text)
		}
	})
}

func BenchmarkReadTable(b *testing.B) {
	for b.Loop() {
		if _, err := readTable(compressedMerges); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	loadTable()
	for b.Loop() {
		Encode("1girl, solo, long hair, looking at viewer, smile, open mouth, bangs, blue eyes, blonde hair, shirt", 75)
	}
}
