package tensor

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// Limits of a header. A file of real use stays far below: SDXL has 2,515 tensors in 0.3 MB, an adapter's thumbnail may take megabytes.
const (
	MaxHeaderBytes   = 100_000_000
	MaxTensors       = 500_000
	MaxMetadataValue = 16 << 20
	maxAxes          = 16
)

// header is what a safetensors header says; tensors are in the order of their bytes.
type header struct {
	names    []string
	infos    []Info
	metadata map[string]string
}

// headerError is a broken rule at a byte of the header.
type headerError struct {
	at  int // byte in the header
	msg string
}

// typeError is an element type that isn't read.
type typeError struct{ msg string }

// tensorError is a tensor whose entry is well-formed but wrong.
type tensorError struct{ msg string }

func (e *typeError) Error() string   { return e.msg }
func (e *tensorError) Error() string { return e.msg }
func (e *headerError) Error() string {
	return fmt.Sprintf("header is damaged at byte %d: %s", 8+e.at, e.msg)
}

// parseHeader reads the JSON text of a header under the format's rules, which are stricter than JSON's: it starts with {, is UTF-8, has no
// duplicate names, no null, no unknown fields, nothing but white space after the object; metadata are strings; tensors lie one after the
// other without holes, each as long as its shape and type say. It doesn't know the file's length: the caller compares the end.
//
// The format: https://huggingface.co/docs/safetensors. The Go library accepts leading blanks, bad UTF-8, duplicates and null.
func parseHeader(text []byte) (h *header, end int64, err error) {
	p := &headerParser{src: text, h: &header{}, seen: map[string]bool{}}
	defer func() {
		switch e := recover().(type) {
		case nil:
		case *headerError:
			h, err = nil, e
		case *tensorError:
			h, err = nil, e
		case *typeError:
			h, err = nil, e
		default:
			panic(e)
		}
	}()
	p.parse()
	return p.h, p.layout(), nil
}

type headerParser struct {
	src  []byte
	pos  int
	h    *header
	seen map[string]bool // names so far
}

func (p *headerParser) fail(at int, format string, args ...any) {
	panic(&headerError{at, fmt.Sprintf(format, args...)})
}

func (p *headerParser) parse() {
	if len(p.src) == 0 || p.src[0] != '{' {
		p.fail(0, "it does not start with {")
	}
	if !utf8.Valid(p.src) {
		at := 0
		for at < len(p.src) {
			r, n := utf8.DecodeRune(p.src[at:])
			if r == utf8.RuneError && n == 1 {
				break
			}
			at += n
		}
		p.fail(at, "not UTF-8 text")
	}
	p.object(func(at int, name string) {
		if p.seen[name] {
			p.fail(at, "%q stands there twice", name)
		}
		p.seen[name] = true
		if name == "__metadata__" {
			p.metadata()
			return
		}
		if len(p.h.names) == MaxTensors {
			p.fail(at, "more than %d tensors", MaxTensors)
		}
		p.tensor(name)
	})
	if p.space(); p.pos < len(p.src) {
		p.fail(p.pos, "text after the end: %s", p.found())
	}
}

func (p *headerParser) metadata() {
	p.h.metadata = map[string]string{}
	p.object(func(at int, key string) {
		if _, ok := p.h.metadata[key]; ok {
			p.fail(at, "metadata %q stands there twice", key)
		}
		if p.peek() != '"' {
			p.fail(p.pos, "metadata %q is not text: %s", key, p.found())
		}
		at = p.pos
		value := p.quoted()
		if len(value) > MaxMetadataValue {
			p.fail(at, "metadata %q has %d bytes, more than %d", key, len(value), MaxMetadataValue)
		}
		p.h.metadata[key] = value
	})
}

// tensor reads one entry: {"dtype":"F16","shape":[320,4],"data_offsets":[0,2560]}.
func (p *headerParser) tensor(name string) {
	var dtype string
	var shape, offsets []int64
	var has [3]bool
	start := p.pos
	p.object(func(at int, field string) {
		i := slices.Index([]string{"dtype", "shape", "data_offsets"}, field)
		if i < 0 {
			p.fail(at, "tensor %q has an unknown field %q", name, field)
		}
		if has[i] {
			p.fail(at, "tensor %q has %q twice", name, field)
		}
		has[i] = true
		switch i {
		case 0:
			if p.peek() != '"' {
				p.fail(p.pos, "tensor %q: type is not text: %s", name, p.found())
			}
			dtype = p.quoted()
		case 1:
			shape = p.numbers(name, "size", maxAxes)
		case 2:
			offsets = p.numbers(name, "offset", 2)
		}
	})
	for i, field := range []string{"dtype", "shape", "data_offsets"} {
		if !has[i] {
			p.fail(start, "tensor %q has no %q", name, field)
		}
	}
	if len(offsets) != 2 {
		p.fail(start, "tensor %q has %d offsets, want 2", name, len(offsets))
	}
	d, err := ParseDType(dtype)
	if err != nil {
		panic(&typeError{fmt.Sprintf("tensor %q: %v", name, err)})
	}
	size, dims := int64(d.Size()), make([]int, len(shape))
	bound := size // bytes if empty axes had one element: an empty tensor of absurd shape is refused too
	for i, n := range shape {
		if dims[i] = int(n); n > 0 && bound > math.MaxInt64/n {
			panic(&tensorError{fmt.Sprintf("tensor %q: shape %s of %s overflows", name, FormatShape64(shape), d)})
		}
		bound *= max(n, 1)
		size *= n
	}
	if offsets[1] < offsets[0] {
		panic(&tensorError{fmt.Sprintf("tensor %q: ends at byte %d before it starts at %d", name, offsets[1], offsets[0])})
	}
	if got := offsets[1] - offsets[0]; got != size {
		panic(&tensorError{fmt.Sprintf("tensor %q: shape %s of %s takes %d bytes, its offsets %d to %d hold %d",
			name, FormatShape(dims), d, size, offsets[0], offsets[1], got)})
	}
	p.h.names = append(p.h.names, name)
	p.h.infos = append(p.h.infos, Info{DType: d, Shape: dims, Offset: offsets[0], Size: size})
}

// layout sorts the tensors by place and checks that they fill the data section from 0 without hole or overlap; it returns the end.
func (p *headerParser) layout() int64 {
	h := p.h
	order := make([]int, len(h.names))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		x, y := h.infos[a], h.infos[b]
		if x.Offset != y.Offset {
			return cmpInt64(x.Offset, y.Offset)
		}
		return cmpInt64(x.Size, y.Size)
	})
	names, infos, end := make([]string, len(order)), make([]Info, len(order)), int64(0)
	for i, j := range order {
		names[i], infos[i] = h.names[j], h.infos[j]
		switch at := infos[i].Offset; {
		case at > end:
			panic(&tensorError{fmt.Sprintf("tensor %q: starts at byte %d, a hole of %d bytes after the one before, which ends at %d", names[i], at, at-end, end)})
		case at < end:
			panic(&tensorError{fmt.Sprintf("tensor %q: starts at byte %d and overlaps %q, which ends at %d", names[i], at, names[i-1], end)})
		}
		end += infos[i].Size
	}
	h.names, h.infos = names, infos
	return end
}

func cmpInt64(a, b int64) int {
	if a < b {
		return -1
	}
	if a > b {
		return 1
	}
	return 0
}

// object reads { "key": value, … }; member is called with the parser at the value and must read it.
func (p *headerParser) object(member func(at int, key string)) {
	p.expect('{', "{")
	if p.peek() == '}' {
		p.pos++
		return
	}
	for {
		if p.peek() != '"' {
			p.fail(p.pos, "want a name in quotes: %s", p.found())
		}
		at := p.pos
		key := p.quoted()
		p.expect(':', ":")
		p.space()
		member(at, key)
		switch p.peek() {
		case ',':
			p.pos++
		case '}':
			p.pos++
			return
		default:
			p.fail(p.pos, "want , or }: %s", p.found())
		}
	}
}

// numbers reads [n, …] of whole numbers from 0, at most limit of them.
func (p *headerParser) numbers(name, what string, limit int) []int64 {
	p.expect('[', "[")
	var list []int64
	if p.peek() == ']' {
		p.pos++
		return list
	}
	for {
		if len(list) == limit {
			p.fail(p.pos, "tensor %q has more than %d %ss", name, limit, what)
		}
		p.peek()
		start := p.pos
		for p.pos < len(p.src) && p.pos < start+40 && isNumberByte(p.src[p.pos]) {
			p.pos++
		}
		word := string(p.src[start:p.pos])
		if word == "" {
			p.fail(start, "tensor %q: %s is not a number: %s", name, what, p.found())
		}
		n, err := strconv.ParseInt(word, 10, 64)
		if err != nil || word[0] < '0' || word[0] > '9' || (len(word) > 1 && word[0] == '0') {
			panic(&tensorError{fmt.Sprintf("tensor %q: %s %s is not a whole number from 0 to %d", name, what, word, int64(math.MaxInt64))})
		}
		list = append(list, n)
		switch p.peek() {
		case ',':
			p.pos++
		case ']':
			p.pos++
			return list
		default:
			p.fail(p.pos, "want , or ]: %s", p.found())
		}
	}
}

func isNumberByte(c byte) bool {
	return c >= '0' && c <= '9' || c == '-' || c == '+' || c == '.' || c == 'e' || c == 'E'
}

// quoted reads a string.
func (p *headerParser) quoted() string {
	p.pos++ // the opening quote, which the caller has seen
	start := p.pos
	for p.pos < len(p.src) && p.src[p.pos] != '"' && p.src[p.pos] != '\\' && p.src[p.pos] >= ' ' {
		p.pos++
	}
	if p.pos < len(p.src) && p.src[p.pos] == '"' {
		p.pos++
		return string(p.src[start : p.pos-1])
	}
	out := append([]byte(nil), p.src[start:p.pos]...)
	for p.pos < len(p.src) {
		switch c := p.src[p.pos]; {
		case c == '"':
			p.pos++
			return string(out)
		case c < ' ':
			p.fail(p.pos, "control byte %#02x inside a text", c)
		case c == '\\':
			out = p.escape(out)
		default:
			out = append(out, c)
			p.pos++
		}
	}
	p.fail(start-1, "a text without an end")
	return ""
}

// escape reads a backslash sequence and appends what it stands for.
func (p *headerParser) escape(out []byte) []byte {
	at := p.pos
	if p.pos++; p.pos < len(p.src) {
		c := p.src[p.pos]
		p.pos++
		switch c {
		case '"', '\\', '/':
			return append(out, c)
		case 'b':
			return append(out, '\b')
		case 'f':
			return append(out, '\f')
		case 'n':
			return append(out, '\n')
		case 'r':
			return append(out, '\r')
		case 't':
			return append(out, '\t')
		case 'u':
			r := p.hex4(at)
			if utf16.IsSurrogate(r) {
				if p.pos+2 > len(p.src) || p.src[p.pos] != '\\' || p.src[p.pos+1] != 'u' {
					p.fail(at, "half a surrogate pair")
				}
				p.pos += 2
				if r = utf16.DecodeRune(r, p.hex4(at)); r == utf8.RuneError {
					p.fail(at, "half a surrogate pair")
				}
			}
			return utf8.AppendRune(out, r)
		}
	}
	p.fail(at, "unknown escape")
	return nil
}

func (p *headerParser) hex4(at int) rune {
	if p.pos+4 > len(p.src) {
		p.fail(at, "unknown escape")
	}
	n, err := strconv.ParseUint(string(p.src[p.pos:p.pos+4]), 16, 16)
	if err != nil {
		p.fail(at, "unknown escape")
	}
	p.pos += 4
	return rune(n)
}

func (p *headerParser) space() {
	for p.pos < len(p.src) && (p.src[p.pos] == ' ' || p.src[p.pos] == '\n' || p.src[p.pos] == '\r' || p.src[p.pos] == '\t') {
		p.pos++
	}
}

// peek skips white space and returns the next byte, 0 at the end.
func (p *headerParser) peek() byte {
	if p.space(); p.pos < len(p.src) {
		return p.src[p.pos]
	}
	return 0
}

func (p *headerParser) expect(c byte, word string) {
	if p.peek() != c {
		p.fail(p.pos, "want %s: %s", word, p.found())
	}
	p.pos++
}

// found says what stands at the parser's place.
func (p *headerParser) found() string {
	if p.pos >= len(p.src) {
		return "the header ends there"
	}
	return fmt.Sprintf("found %q", p.src[p.pos:min(p.pos+12, len(p.src))])
}
