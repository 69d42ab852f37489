package dataset

import (
	"strings"
	"testing"
)

func TestParseCaption(t *testing.T) {
	tests := []struct {
		name, raw  string
		want       string
		err        string
		utf16      bool
		lines      int
		unbalanced string
	}{
		{name: "plain", raw: "a cat\n", want: "a cat", lines: 1},
		{name: "empty", raw: " \r\n\t", want: ""},
		{name: "byte order mark", raw: "\xef\xbb\xbfa cat", want: "a cat", lines: 1},
		{name: "CRLF", raw: "a\r\nb\r\n", want: "a\nb", lines: 2},
		{name: "CR", raw: "a\rb", want: "a\nb", lines: 2},
		{name: "UTF-16 little", raw: "\xff\xfea\x00 \x00\xe9\x00", want: "a é", utf16: true, lines: 1},
		{name: "UTF-16 big", raw: "\xfe\xff\x00a\x20\xac", want: "a€", utf16: true, lines: 1},
		{name: "NUL", raw: "a é\nb\x00", err: "line 2, column 2: a NUL byte"},
		{name: "UTF-16 without mark", raw: "a\x00b\x00", err: "line 1, column 2: a NUL byte"},
		{name: "Latin-1", raw: "caf\xe9", err: "line 1, column 4: not UTF-8"},
		{name: "brace", raw: "a é {b", want: "a é {b", lines: 1, unbalanced: "line 1, column 5"},
		{name: "brace in a later line", raw: "a\n{", want: "a\n{", lines: 2},
		{name: "5,000 tags", raw: strings.Repeat("tag, ", 5000), want: strings.TrimSpace(strings.Repeat("tag, ", 5000)), lines: 1},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			c, err := parseCaption([]byte(tc.raw))
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Fatalf("got %v, want %q", err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if want := (captionText{tc.want, tc.utf16, tc.lines, tc.unbalanced}); c != want {
				t.Errorf("got %+v, want %+v", c, want)
			}
		})
	}
}
