package tokenizer

import (
	"html"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/language"
	"golang.org/x/text/unicode/norm"
)

// The names by which a caption can mention the special tokens.
const (
	bosText = "<|startoftext|>"
	eosText = "<|endoftext|>"
)

// contractions are split off the word before them.
var contractions = []string{"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"}

// clean undoes HTML escapes twice, composes accents (NFC), makes runs of white space one blank and lowers all letters.
func clean(text string) string {
	text = strings.ToValidUTF8(text, string(utf8.RuneError))
	text = norm.NFC.String(html.UnescapeString(html.UnescapeString(text)))
	text = strings.Join(strings.FieldsFunc(text, isSpace), " ")
	return cases.Lower(language.Und, cases.HandleFinalSigma(true)).String(text) // a Caser has state: one for each call
}

// isSpace is Python's: Unicode's white space and the four information separators.
func isSpace(r rune) bool { return unicode.IsSpace(r) || 0x1c <= r && r <= 0x1f }

// nextWord returns the first word of cleaned text and what follows it: a special token, a contraction, a run of letters, a single digit, or a run of
// anything else. It is "" at the end.
func nextWord(text string) (word, rest string) {
	text = strings.TrimLeftFunc(text, isSpace)
	n := wordLength(text)
	return text[:n], text[n:]
}

// wordLength returns the bytes of the word that text starts with.
func wordLength(text string) int {
	for _, special := range []string{bosText, eosText} {
		if strings.HasPrefix(text, special) {
			return len(special)
		}
	}
	for _, c := range contractions {
		if strings.HasPrefix(text, c) {
			return len(c)
		}
	}
	first, size := utf8.DecodeRuneInString(text)
	switch {
	case unicode.IsNumber(first):
		return size
	case unicode.IsLetter(first):
		return runLength(text, unicode.IsLetter)
	}
	return runLength(text, isOther)
}

func isOther(r rune) bool { return !isSpace(r) && !unicode.IsLetter(r) && !unicode.IsNumber(r) }

// runLength returns the bytes of the longest prefix of text whose runes are all in class.
func runLength(text string, class func(rune) bool) int {
	if n := strings.IndexFunc(text, func(r rune) bool { return !class(r) }); n >= 0 {
		return n
	}
	return len(text)
}
