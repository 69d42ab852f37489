package tensor

import (
	"fmt"
	"strings"
)

// DType is the type of a tensor's elements, by its name in safetensors files.
type DType uint8

// The element types this program reads.
const (
	Invalid DType = iota
	F64
	F32
	F16
	BF16
	I64
	I32
	I16
	I8
	U8
	Bool
	U16
	U32
	U64
)

var dtypes = [...]struct {
	name string
	size int
}{{"invalid", 0}, {"F64", 8}, {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"I64", 8}, {"I32", 4}, {"I16", 2}, {"I8", 1}, {"U8", 1}, {"BOOL", 1},
	{"U16", 2}, {"U32", 4}, {"U64", 8}}

// String returns the safetensors name, such as "BF16".
func (d DType) String() string { return dtypes[d].name }

// Size returns the bytes of one element.
func (d DType) Size() int { return dtypes[d].size }

// IsFloat reports whether d is one of the floating-point types.
func (d DType) IsFloat() bool { return d >= F64 && d <= BF16 }

// ParseDType returns the type with the safetensors name s.
func ParseDType(s string) (DType, error) {
	for d := F64; d <= U64; d++ {
		if dtypes[d].name == s {
			return d, nil
		}
	}
	if strings.HasPrefix(s, "F8_") || strings.HasPrefix(s, "F4") || strings.HasPrefix(s, "F6_") {
		return Invalid, fmt.Errorf("element type %q is not supported yet", s)
	}
	return Invalid, fmt.Errorf("element type %q is not known", s)
}
