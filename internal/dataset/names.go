package dataset

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Shown returns a name from outside as it may stand in a message: as it is when every character is visible, else in quotes with
// control characters, direction marks and invalid UTF-8 escaped.
func Shown(name string) string {
	if !utf8.ValidString(name) {
		return strconv.Quote(name)
	}
	for _, r := range name {
		if r != ' ' && !unicode.IsPrint(r) {
			return strconv.Quote(name)
		}
	}
	return name
}

// shownFolder returns the path of a folder for a message, with a slash at its end.
func shownFolder(path string) string {
	return Shown(strings.TrimRight(filepath.ToSlash(path), "/") + "/")
}

// maxNames is how many names a message lists before it counts the rest.
const maxNames = 5

// listed joins the first few texts and counts the others: a, b, c, d, e and 37 more.
func listed(texts []string, separator string) string {
	if len(texts) <= maxNames {
		return strings.Join(texts, separator)
	}
	return fmt.Sprintf("%s%sand %d more", strings.Join(texts[:maxNames], separator), separator, len(texts)-maxNames)
}

// plural returns "1 picture" or "3 pictures".
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
