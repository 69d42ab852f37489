package dataset

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// captionText is a caption file as text, with what was unusual about it.
type captionText struct {
	text       string // \n line ends, no byte order mark, trimmed
	utf16      bool   // was UTF-16
	lines      int    // lines that aren't blank
	unbalanced string // "line 1, column 7" of a brace without partner
}

// readCaption reads a caption file of at most limit bytes. The error is a message without the path.
func readCaption(path string, limit int64) (captionText, error) {
	f, err := os.Open(path)
	if err != nil {
		return captionText{}, fmt.Errorf("can't be read: %w", plainCause(err))
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return captionText{}, fmt.Errorf("can't be read: %w", plainCause(err))
	}
	if int64(len(raw)) > limit {
		return captionText{}, fmt.Errorf("caption is over %s", byteSize(limit))
	}
	return parseCaption(raw)
}

// parseCaption turns the bytes of a caption file into text: UTF-8, or UTF-16 with a byte order mark.
func parseCaption(raw []byte) (captionText, error) {
	var c captionText
	text := string(bytes.TrimPrefix(raw, []byte("\xef\xbb\xbf")))
	if order := utf16Order(raw); order != nil {
		c.utf16 = true
		units := make([]uint16, 0, len(raw)/2)
		for b := raw[2:]; len(b) >= 2; b = b[2:] {
			units = append(units, order.Uint16(b))
		}
		text = string(utf16.Decode(units))
	}
	if i := strings.IndexByte(text, 0); i >= 0 {
		line, column := position(text, i)
		return c, fmt.Errorf("line %d, column %d: a NUL byte; the file is not plain text", line, column)
	}
	if !utf8.ValidString(text) {
		line, column := position(text, invalidUTF8(text))
		return c, fmt.Errorf("line %d, column %d: not UTF-8; save the caption as UTF-8", line, column)
	}
	text = strings.ReplaceAll(text, "\r\n", "\n")
	c.text = strings.TrimSpace(strings.ReplaceAll(text, "\r", "\n"))
	n := 0
	for line := range strings.Lines(c.text) {
		n++
		if strings.TrimSpace(line) == "" {
			continue
		}
		if c.lines++; c.lines > 1 {
			continue
		}
		if i := unbalancedBrace(line); i >= 0 {
			c.unbalanced = fmt.Sprintf("line %d, column %d", n, 1+utf8.RuneCountInString(line[:i]))
		}
	}
	return c, nil
}

// utf16Order returns the byte order that a UTF-16 byte order mark at the start of b says, nil if there is none.
func utf16Order(b []byte) binary.ByteOrder {
	switch {
	case bytes.HasPrefix(b, []byte{0xff, 0xfe}):
		return binary.LittleEndian
	case bytes.HasPrefix(b, []byte{0xfe, 0xff}):
		return binary.BigEndian
	}
	return nil
}

// position returns line and column, from 1, of byte i; columns count characters.
func position(text string, i int) (line, column int) {
	start := strings.LastIndexByte(text[:i], '\n') + 1
	return 1 + strings.Count(text[:i], "\n"), 1 + utf8.RuneCountInString(text[start:i])
}

// invalidUTF8 returns the offset of the first byte that isn't UTF-8.
func invalidUTF8(text string) int {
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRuneInString(text[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return len(text)
}

// byteSize returns 64 KiB, 256 MiB or the plain number.
func byteSize(n int64) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}
