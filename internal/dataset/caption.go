package dataset

import "strings"

// Random is what the caption pipeline draws from. *rng.Stream has these methods.
type Random interface {
	Float64() float64                   // uniform in [0,1)
	IntN(n int) int                     // uniform in 0..n-1
	Shuffle(n int, swap func(i, j int)) // Fisher-Yates
}

// KeepSeparator marks, inside a caption, the end of the tags that stay in place; a second one marks the start of a fixed tail.
const KeepSeparator = "|||"

// CaptionOptions say how a caption changes from step to step.
type CaptionOptions struct {
	Prefix, Suffix string  // put before and after the caption, with a blank
	Dropout        float64 // probability of training the picture on an empty caption
	TagDropout     float64 // probability of leaving out each tag that isn't kept
	KeepTokens     int     // the first n tags stay in place; a KeepSeparator in the caption overrides it
	Shuffle        bool    // shuffle the tags that aren't kept
}

// ProcessCaption returns the text that is trained at one step, made from raw in sd-scripts' order: first line, prefix and suffix, whole
// dropout, {a|b|c} choices, split at commas, keep, shuffle, tag dropout, join with ", ".
//
// Without shuffle, tag dropout or a [KeepSeparator] the caption isn't split, so its commas and blanks stay as they are. Braces are
// always read: {a|b} becomes one of its parts, {{ and }} become single braces, braces without a bar stay.
func ProcessCaption(raw string, o CaptionOptions, r Random) string {
	if o.Dropout > 0 && r.Float64() < o.Dropout {
		return ""
	}
	text := expandChoices(affixed(raw, o), r.IntN)
	head, flex, tail, split := splitTags(text, o)
	if !split {
		return text
	}
	if o.Shuffle {
		r.Shuffle(len(flex), func(i, j int) { flex[i], flex[j] = flex[j], flex[i] })
	}
	tags := head
	for _, tag := range flex {
		if o.TagDropout > 0 && r.Float64() < o.TagDropout {
			continue
		}
		tags = append(tags, tag)
	}
	return strings.Join(append(tags, tail...), ", ")
}

// CaptionVaries says whether [ProcessCaption] can give more than one text. If not, one cached text state serves every step.
func CaptionVaries(raw string, o CaptionOptions) bool {
	if o.Dropout >= 1 {
		return false
	}
	choices := false
	text := expandChoices(affixed(raw, o), func(n int) int {
		choices = choices || n > 1
		return 0
	})
	if o.Dropout > 0 && text != "" || choices {
		return true
	}
	_, flex, _, split := splitTags(text, o)
	if !split || len(flex) == 0 {
		return false
	}
	return o.TagDropout > 0 && o.TagDropout < 1 || o.Shuffle && len(flex) > 1
}

// affixed returns the first line of raw with prefix and suffix.
func affixed(raw string, o CaptionOptions) string {
	text := firstLine(raw)
	if o.Prefix != "" {
		text = o.Prefix + " " + text
	}
	if o.Suffix != "" {
		text += " " + o.Suffix
	}
	return strings.TrimSpace(text)
}

// firstLine returns the first line that isn't blank, without blanks around it.
func firstLine(text string) string {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			return line
		}
	}
	return ""
}

// splitTags cuts a caption into the tags that stay in front, those that move, and those that stay at the end. It reports false when
// nothing asks for a cut.
func splitTags(text string, o CaptionOptions) (head, flex, tail []string, split bool) {
	front, rest, marked := strings.Cut(text, KeepSeparator)
	if marked {
		middle, end, _ := strings.Cut(rest, KeepSeparator)
		return tags(front), tags(middle), tags(end), true
	}
	if !o.Shuffle && o.TagDropout <= 0 {
		return nil, nil, nil, false
	}
	all := tags(text)
	keep := min(max(o.KeepTokens, 0), len(all))
	return all[:keep:keep], all[keep:], nil, true
}

// tags splits at commas and leaves out empty parts.
func tags(text string) []string {
	var out []string
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}

// maxNesting bounds the depth of {a|{b|c}}; deeper braces are text.
const maxNesting = 32

// doubledBrace says whether text[i:] begins with {{ or }}, which stand for one brace. Inside a group }} closes two groups.
func doubledBrace(text string, i int, inside bool) bool {
	c := text[i]
	return i+1 < len(text) && text[i+1] == c && (c == '{' || c == '}' && !inside)
}

// expandChoices replaces every {a|b|c} by one of its parts, inner ones first; pick(n) returns the index of the part. A brace without
// partner or without a bar is text; {{ and }} are single braces.
func expandChoices(text string, pick func(n int) int) string {
	if !strings.ContainsAny(text, "{}") {
		return text
	}
	type group struct {
		done []string        // parts before the last bar
		open strings.Builder // part being read
	}
	stack := []*group{{}}
	for i := 0; i < len(text); i++ {
		top := stack[len(stack)-1]
		switch c := text[i]; {
		case doubledBrace(text, i, len(stack) > 1):
			top.open.WriteByte(c)
			i++
		case c == '{' && len(stack) <= maxNesting:
			stack = append(stack, &group{})
		case c == '|' && len(stack) > 1:
			top.done = append(top.done, top.open.String())
			top.open.Reset()
		case c == '}' && len(stack) > 1:
			stack = stack[:len(stack)-1]
			below := &stack[len(stack)-1].open
			if parts := append(top.done, top.open.String()); len(parts) > 1 {
				below.WriteString(parts[pick(len(parts))])
			} else {
				below.WriteString("{" + parts[0] + "}")
			}
		default:
			top.open.WriteByte(c)
		}
	}
	for len(stack) > 1 { // left open: text
		top := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		stack[len(stack)-1].open.WriteString("{" + strings.Join(append(top.done, top.open.String()), "|"))
	}
	return stack[0].open.String()
}

// unbalancedBrace returns the byte offset of the first brace of a line without a partner, -1 if there is none.
func unbalancedBrace(line string) int {
	var open []int
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case doubledBrace(line, i, len(open) > 0):
			i++
		case c == '{':
			open = append(open, i)
		case c == '}' && len(open) == 0:
			return i
		case c == '}':
			open = open[:len(open)-1]
		}
	}
	if len(open) > 0 {
		return open[0]
	}
	return -1
}
