package pickle

import (
	"slices"
	"strings"

	"lycoris/internal/tensor"
)

// storages are torch's classes of elements; dtypes are the names that newer files have for them.
var storages = map[string]tensor.DType{
	"DoubleStorage": tensor.F64, "FloatStorage": tensor.F32, "HalfStorage": tensor.F16, "BFloat16Storage": tensor.BF16, "LongStorage": tensor.I64,
	"IntStorage": tensor.I32, "ShortStorage": tensor.I16, "CharStorage": tensor.I8, "ByteStorage": tensor.U8, "BoolStorage": tensor.Bool,
}

var dtypes = map[string]tensor.DType{
	"float64": tensor.F64, "float32": tensor.F32, "float16": tensor.F16, "bfloat16": tensor.BF16, "int64": tensor.I64, "int32": tensor.I32, "int16": tensor.I16,
	"int8": tensor.I8, "uint8": tensor.U8, "bool": tensor.Bool, "uint16": tensor.U16, "uint32": tensor.U32, "uint64": tensor.U64,
}

// untyped is the storage of bytes; a dtype beside it says what they are.
var untyped = global{"torch.storage", "UntypedStorage"}

// dtype returns the element type that a storage class or a dtype name stands for.
func dtype(g global) (tensor.DType, bool) {
	switch {
	case g == untyped:
		return tensor.U8, true
	case g.module != "torch":
		return tensor.Invalid, false
	}
	if d, ok := storages[g.name]; ok {
		return d, true
	}
	d, ok := dtypes[g.name]
	return d, ok
}

// allowed are the functions and classes that a file may call. Each is one case of [machine.call], which computes nothing but the placement of data.
var allowed = []global{
	{"collections", "OrderedDict"}, {"collections", "Counter"},
	{"torch._utils", "_rebuild_tensor"}, {"torch._utils", "_rebuild_tensor_v2"}, {"torch._utils", "_rebuild_tensor_v3"},
	{"torch._utils", "_rebuild_parameter"}, {"torch._utils", "_rebuild_parameter_with_state"},
	{"torch", "Size"}, {"torch", "device"}, untyped, {"torch.storage", "TypedStorage"}, {"torch.nn.modules.container", "ParameterDict"},
	{"numpy", "dtype"}, {"numpy.core.multiarray", "scalar"}, {"numpy._core.multiarray", "scalar"}, {"_codecs", "encode"},
}

// plain are the types of Python itself that may be called.
var plain = []string{"set", "frozenset", "dict", "list", "tuple", "int", "float", "bool", "str", "bytes", "complex"}

// inert are packages whose classes stand in checkpoints beside the weights (original SD1 files hold Lightning's callbacks). Their objects are kept as names.
var inert = []string{"pytorch_lightning.", "lightning.", "lightning_fabric.", "lightning_utilities."}

// known returns g where a file may name it; else it ends the reading.
func known(g global) global {
	if g.module == "__builtin__" {
		g.module = "builtins"
	}
	if _, ok := dtype(g); ok || slices.Contains(allowed, g) || g.module == "builtins" && slices.Contains(plain, g.name) || g.foreign() {
		return g
	}
	wantsToRun(g)
	return g
}

// foreign reports whether g is of a package whose objects are kept as names.
func (g global) foreign() bool {
	return slices.ContainsFunc(inert, func(p string) bool { return strings.HasPrefix(g.module+".", p) })
}

// call gives the value that f(args) stands for.
func (m *machine) call(f, args any) any {
	g, ok := f.(global)
	if !ok {
		refuse("is damaged: its description calls what is no name")
	}
	known(g)
	a, ok := args.(tuple)
	if !ok {
		refuse("is damaged: its description calls %q without arguments", g.String())
	}
	switch g.name {
	case "OrderedDict", "Counter":
		return ordered(a)
	case "_rebuild_tensor":
		return rebuild(a, 4)
	case "_rebuild_tensor_v2":
		return rebuild(a, 6)
	case "_rebuild_tensor_v3":
		v := rebuild(a, 7)
		if d, ok := a[6].(global); ok {
			v.class = d
		}
		return v
	case "_rebuild_parameter", "_rebuild_parameter_with_state":
		if len(a) > 0 {
			return a[0]
		}
	case "Size":
		if len(a) == 1 {
			return a[0]
		}
	case "dict":
		if len(a) == 0 {
			return &dict{}
		}
	case "set", "frozenset", "list":
		if len(a) == 0 {
			return &list{}
		}
		if l, ok := a[0].(*list); ok {
			return l
		}
	case "encode":
		if s, ok := arg(a, 0).(string); ok {
			return latin1(s)
		}
	}
	return &object{class: g, args: a}
}

// ordered makes the dict of a list of pairs.
func ordered(a tuple) any {
	d := &dict{}
	switch from := arg(a, 0).(type) {
	case *list:
		for _, item := range from.items {
			switch pair := item.(type) {
			case tuple:
				d.add(pair)
			case *list:
				d.add(pair.items)
			}
		}
	case *dict:
		return from
	}
	return d
}

// arg returns an argument, nil where there is none.
func arg(a tuple, i int) any {
	if i < len(a) {
		return a[i]
	}
	return nil
}

// latin1 returns the bytes whose values are the characters of s.
func latin1(s string) any {
	var b []byte
	for _, r := range s {
		if r > 255 {
			return s
		}
		b = append(b, byte(r))
	}
	return b
}

// rebuild makes the tensor of (storage, offset, shape, strides, …).
func rebuild(a tuple, want int) *view {
	if len(a) < want {
		refuse("is damaged: a tensor of its description has %d of %d parts", len(a), want)
	}
	s, ok := a[0].(*storage)
	offset, isInt := a[1].(int64)
	if !ok || !isInt || offset < 0 {
		refuse("is damaged: a tensor of its description has no place in the data")
	}
	return &view{storage: s, class: s.class, offset: offset, shape: whole(a[2]), steps: whole(a[3])}
}

// whole returns a tuple of numbers, none below 0.
func whole(v any) []int64 {
	items, ok := v.(tuple)
	if l, isList := v.(*list); isList {
		items, ok = tuple(l.items), true
	}
	if !ok || len(items) > 16 {
		refuse("is damaged: a tensor of its description has no shape")
	}
	out := make([]int64, len(items))
	for i, x := range items {
		n, ok := x.(int64)
		if !ok || n < 0 {
			refuse("is damaged: a tensor of its description has a size %v", x)
		}
		out[i] = n
	}
	return out
}

// persistent gives the storage that an id names: ('storage', class, key, device, elements[, view]).
func (m *machine) persistent(id any) any {
	t, ok := id.(tuple)
	if !ok || len(t) < 5 || t[0] != "storage" {
		refuse("names its data in a way that torch doesn't")
	}
	class, ok := t[1].(global)
	key, isText := t[2].(string)
	elems, isInt := t[4].(int64)
	if !ok || !isText || !isInt || elems < 0 {
		refuse("is damaged: its description names data without a type, a name or a size")
	}
	if _, ok := dtype(class); !ok {
		refuse("holds data of the type %q, which this version doesn't read", class.String())
	}
	if len(t) > 5 && t[5] != nil {
		refuse("holds views of storages as torch wrote them before version 0.4; open and save it with a newer torch")
	}
	if s, ok := m.storage[key]; ok {
		if s.class != class || s.elems != elems {
			refuse("is damaged: its description gives the data %q two sizes", key)
		}
		return s
	}
	s := &storage{key: key, class: class, elems: elems}
	m.storage[key] = s
	return s
}
