package pickle

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// Limits of one pickle stream. An original SD1 checkpoint has 1,200 tensors in 0.3 MB of 40,000 instructions.
const (
	maxStream       = 64 << 20
	maxInstructions = 8 << 20
	maxStack        = 1 << 20
	maxNumberBytes  = 256
)

// Values that a stream makes, beside nil, bool, int64, float64, string and []byte.
type (
	// global is a name of Python's: a class or a function. It is never looked up.
	global struct{ module, name string }
	// tuple is never changed once made.
	tuple []any
	// list is a list or a set.
	list struct{ items []any }
	// dict keeps its order; keys are any values.
	dict struct{ keys, values []any }
	// object is what an allowed or foreign class would have made; its parts are kept, nothing is computed.
	object struct {
		class global
		args  any
		state any
	}
	// storage is a run of elements of the file.
	storage struct {
		key   string
		class global
		elems int64
	}
	// view is a tensor: a part of a storage.
	view struct {
		storage      *storage
		class        global // of the elements: the storage's, or a dtype
		offset       int64
		shape, steps []int64
	}
	// number is an integer of more than 64 bits, little-endian.
	number []byte
	mark   struct{}
)

// String returns the name as in messages: os.system.
func (g global) String() string { return g.module + "." + g.name }

// refusal is a stream that isn't read: a broken rule or a name off the list.
type refusal struct{ msg string }

func (r refusal) Error() string { return r.msg }

func refuse(format string, args ...any) { panic(refusal{fmt.Sprintf(format, args...)}) }

// wantsToRun refuses a name that is on no list.
func wantsToRun(g global) { refuse("wants to run code when opened (%q); refused", g.String()) }

// machine interprets one pickle stream. It builds values and calls nothing: the functions that torch's files name are known to it by name, and every other
// name ends the reading.
type machine struct {
	r       *bufio.Reader
	read    int64
	stack   []any
	memo    map[int64]any
	storage map[string]*storage
}

// run interprets a stream up to its end and returns its value.
func run(r *bufio.Reader, storages map[string]*storage) (value any, read int64, err error) {
	m := &machine{r: r, memo: map[int64]any{}, storage: storages}
	defer func() {
		switch e := recover().(type) {
		case nil:
		case refusal:
			err = e
		case error:
			if !errors.Is(e, io.EOF) && !errors.Is(e, io.ErrUnexpectedEOF) {
				panic(e)
			}
			err = refusal{"is damaged: its description ends too early"}
		default:
			panic(e)
		}
		read = m.read
	}()
	for range maxInstructions {
		if m.step(m.byte()) {
			return m.pop(), m.read, nil
		}
		if len(m.stack) > maxStack {
			refuse("has a description that nests or grows beyond the limit of %d values", maxStack)
		}
	}
	refuse("has a description of more than %d instructions", maxInstructions)
	return nil, 0, nil
}

func (m *machine) count(n int64) {
	if m.read += n; m.read > maxStream {
		refuse("has a description of more than %d bytes", maxStream)
	}
}

func (m *machine) byte() byte {
	m.count(1)
	b, err := m.r.ReadByte()
	if err != nil {
		panic(eof(err))
	}
	return b
}

// eof makes read errors of the stream's end one kind.
func eof(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return io.ErrUnexpectedEOF
	}
	panic(refusal{"can't be read: " + err.Error()})
}

// bytes reads n bytes. Memory grows with what is there, not with what n claims.
func (m *machine) bytes(n int64) []byte {
	if n < 0 || n > maxStream {
		refuse("has a value of %d bytes in its description, over the limit of %d", n, maxStream)
	}
	m.count(n)
	var b bytes.Buffer
	if got, err := io.CopyN(&b, m.r, n); err != nil || got != n {
		panic(eof(cmpErr(err)))
	}
	return b.Bytes()
}

func cmpErr(err error) error {
	if err == nil {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (m *machine) line() string {
	var b []byte
	for {
		c := m.byte()
		if c == '\n' {
			return string(b)
		}
		if b = append(b, c); len(b) > 1<<16 {
			refuse("has a line of more than %d bytes in its description", 1<<16)
		}
	}
}

func (m *machine) uint(n int64) int64 {
	b := append(m.bytes(n), make([]byte, 8-n)...)
	v := binary.LittleEndian.Uint64(b)
	if v > math.MaxInt64 {
		refuse("has a length of %d in its description", v)
	}
	return int64(v)
}

func (m *machine) push(v any) { m.stack = append(m.stack, v) }

func (m *machine) pop() any {
	if len(m.stack) == 0 {
		refuse("is damaged: its description takes what it did not put")
	}
	v := m.stack[len(m.stack)-1]
	m.stack = m.stack[:len(m.stack)-1]
	return v
}

func (m *machine) top() any {
	v := m.pop()
	m.push(v)
	return v
}

// toMark pops everything above the last mark.
func (m *machine) toMark() []any {
	for i := len(m.stack) - 1; i >= 0; i-- {
		if _, ok := m.stack[i].(mark); ok {
			items := append([]any(nil), m.stack[i+1:]...)
			m.stack = m.stack[:i]
			return items
		}
	}
	refuse("is damaged: its description ends a group that it did not begin")
	return nil
}

// remember puts the top into the memo.
func (m *machine) remember(key int64) {
	if len(m.memo) >= maxStack {
		refuse("has a description that remembers more than %d values", maxStack)
	}
	m.memo[key] = m.top()
}

func (m *machine) recall(key int64) {
	v, ok := m.memo[key]
	if !ok {
		refuse("is damaged: its description recalls value %d, which it did not keep", key)
	}
	m.push(v)
}

// step runs one instruction and reports whether it was the last. The instructions are those of pickle's protocols 0 to 5 (Python, Lib/pickletools.py).
func (m *machine) step(op byte) (end bool) {
	switch op {
	case '.': // STOP
		return true
	case 0x80: // PROTO
		if v := m.byte(); v > 5 {
			refuse("is a pickle of protocol %d, this version reads 0 to 5", v)
		}
	case 0x95: // FRAME
		m.bytes(8)
	case '(':
		m.push(mark{})
	case '0':
		m.pop()
	case '1': // POP_MARK
		m.toMark()
	case '2': // DUP
		m.push(m.top())
	case 'N':
		m.push(nil)
	case 0x88:
		m.push(true)
	case 0x89:
		m.push(false)
	case 'I':
		m.push(parseInt(m.line()))
	case 'L':
		m.push(parseInt(strings.TrimSuffix(m.line(), "L")))
	case 'F':
		v, err := strconv.ParseFloat(m.line(), 64)
		if err != nil {
			refuse("is damaged: a number of its description can't be read")
		}
		m.push(v)
	case 'J':
		m.push(int64(int32(binary.LittleEndian.Uint32(m.bytes(4)))))
	case 'K':
		m.push(int64(m.byte()))
	case 'M':
		m.push(m.uint(2))
	case 'G':
		m.push(math.Float64frombits(binary.BigEndian.Uint64(m.bytes(8))))
	case 0x8a: // LONG1
		m.push(m.long(int64(m.byte())))
	case 0x8b: // LONG4
		m.push(m.long(m.uint(4)))
	case 'X', 0x8c, 0x8d: // BINUNICODE, SHORT_, 8
		m.push(string(m.bytes(m.uint(map[byte]int64{'X': 4, 0x8c: 1, 0x8d: 8}[op]))))
	case 'V', 'S':
		m.push(strings.Trim(m.line(), `'"`))
	case 'T':
		m.push(string(m.bytes(m.uint(4))))
	case 'U':
		m.push(string(m.bytes(m.uint(1))))
	case 'B', 'C', 0x8e, 0x96: // BINBYTES, SHORT_, 8, BYTEARRAY8
		m.push(m.bytes(m.uint(map[byte]int64{'B': 4, 'C': 1, 0x8e: 8, 0x96: 8}[op])))
	default:
		m.build(op)
	}
	return false
}

// build runs the instructions that make values of values.
func (m *machine) build(op byte) {
	switch op {
	case ']':
		m.push(&list{})
	case '}':
		m.push(&dict{})
	case ')':
		m.push(tuple{})
	case 0x8f: // EMPTY_SET
		m.push(&list{})
	case 't':
		m.push(tuple(m.toMark()))
	case 'l':
		m.push(&list{m.toMark()})
	case 0x91: // FROZENSET
		m.push(&list{m.toMark()})
	case 'd':
		d := &dict{}
		d.add(m.toMark())
		m.push(d)
	case 0x85, 0x86, 0x87: // TUPLE1 to 3
		t := make(tuple, op-0x84)
		for i := len(t) - 1; i >= 0; i-- {
			t[i] = m.pop()
		}
		m.push(t)
	case 'a':
		m.extend([]any{m.pop()})
	case 'e', 0x90: // APPENDS, ADDITEMS
		m.extend(m.toMark())
	case 's':
		value, key := m.pop(), m.pop()
		m.set([]any{key, value})
	case 'u':
		m.set(m.toMark())
	case 'p':
		m.remember(parseInt(m.line()))
	case 'q':
		m.remember(int64(m.byte()))
	case 'r':
		m.remember(m.uint(4))
	case 0x94: // MEMOIZE
		m.remember(int64(len(m.memo)))
	case 'g':
		m.recall(parseInt(m.line()))
	case 'h':
		m.recall(int64(m.byte()))
	case 'j':
		m.recall(m.uint(4))
	default:
		m.name(op)
	}
}

// name runs the instructions that Python would import and call by.
func (m *machine) name(op byte) {
	switch op {
	case 'c':
		module := m.line()
		m.push(known(global{module, m.line()}))
	case 0x93: // STACK_GLOBAL
		name, _ := m.pop().(string)
		module, _ := m.pop().(string)
		m.push(known(global{module, name}))
	case 'R': // REDUCE
		args := m.pop()
		m.push(m.call(m.pop(), args))
	case 0x81: // NEWOBJ
		args := m.pop()
		m.push(m.call(m.pop(), args))
	case 0x92: // NEWOBJ_EX
		m.pop()
		args := m.pop()
		m.push(m.call(m.pop(), args))
	case 'i': // INST
		module := m.line()
		g := known(global{module, m.line()})
		m.push(m.call(g, tuple(m.toMark())))
	case 'o': // OBJ
		items := m.toMark()
		if len(items) == 0 {
			refuse("is damaged: its description makes an object of nothing")
		}
		m.push(m.call(items[0], tuple(items[1:])))
	case 'b': // BUILD
		m.give(m.pop())
	case 'Q': // BINPERSID
		m.push(m.persistent(m.pop()))
	case 'P':
		refuse("names its data in a way that torch doesn't")
	case 0x82, 0x83, 0x84:
		refuse("uses pickle's extension registry, which torch doesn't")
	case 0x97, 0x98:
		refuse("keeps data outside itself")
	default:
		refuse("is damaged: its description has an instruction 0x%02x", op)
	}
}

func parseInt(s string) int64 {
	switch s {
	case "00":
		return 0
	case "01":
		return 1
	}
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		refuse("is damaged: a number of its description can't be read")
	}
	return v
}

// long reads an integer of n bytes in two's complement.
func (m *machine) long(n int64) any {
	if n > maxNumberBytes {
		refuse("has a number of %d bytes in its description, over the limit of %d", n, maxNumberBytes)
	}
	b := m.bytes(n)
	if n > 8 {
		return number(b)
	}
	var v uint64
	for i, x := range b {
		v |= uint64(x) << (8 * i)
	}
	if n > 0 && n < 8 && b[n-1]&0x80 != 0 {
		v |= math.MaxUint64 << (8 * n)
	}
	return int64(v)
}

// extend appends to the list on top.
func (m *machine) extend(items []any) {
	switch l := m.top().(type) {
	case *list:
		l.items = append(l.items, items...)
	case *object:
	default:
		refuse("is damaged: its description appends to what is no list")
	}
}

// set adds keys and values, in turn, to the dict on top.
func (m *machine) set(items []any) {
	switch d := m.top().(type) {
	case *dict:
		d.add(items)
	case *object:
	default:
		refuse("is damaged: its description sets keys of what is no dict")
	}
}

func (d *dict) add(items []any) {
	if len(items)%2 != 0 {
		refuse("is damaged: its description has a key without a value")
	}
	for i := 0; i < len(items); i += 2 {
		d.keys, d.values = append(d.keys, items[i]), append(d.values, items[i+1])
	}
}

// get returns the value of the last entry with a text key.
func (d *dict) get(key string) (any, bool) {
	for i := len(d.keys) - 1; i >= 0; i-- {
		if k, ok := d.keys[i].(string); ok && k == key {
			return d.values[i], true
		}
	}
	return nil, false
}

// give runs BUILD: the state of an object is kept, that of a dict (torch's _metadata) means nothing here.
func (m *machine) give(state any) {
	switch v := m.top().(type) {
	case *object:
		v.state = state
	case *dict, *list, *view:
	case global:
		wantsToRun(v)
	default:
		refuse("is damaged: its description gives a state to what has none")
	}
}
