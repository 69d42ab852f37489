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
	F8E4M3 // as the FN form has it: no infinities
	F8E5M2
)

var dtypes = [...]struct {
	name string
	size int
}{{"invalid", 0}, {"F64", 8}, {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"I64", 8}, {"I32", 4}, {"I16", 2}, {"I8", 1}, {"U8", 1}, {"BOOL", 1},
	{"U16", 2}, {"U32", 4}, {"U64", 8}, {"F8_E4M3", 1}, {"F8_E5M2", 1}}

// String returns the safetensors name, such as "BF16".
func (d DType) String() string { return dtypes[d].name }

// Size returns the bytes of one element.
func (d DType) Size() int { return dtypes[d].size }

// IsFloat reports whether d is one of the floating-point types that are calculated with and written; [DType.IsF8] are read alone.
func (d DType) IsFloat() bool { return d >= F64 && d <= BF16 }

// IsF8 reports whether d is one of the floating-point types of eight bits.
func (d DType) IsF8() bool { return d == F8E4M3 || d == F8E5M2 }

// ParseDType returns the type with the safetensors name s.
func ParseDType(s string) (DType, error) {
	for d := F64; d <= F8E5M2; d++ {
		if dtypes[d].name == s {
			return d, nil
		}
	}
	if strings.HasPrefix(s, "F8_") || strings.HasPrefix(s, "F4") || strings.HasPrefix(s, "F6_") {
		return Invalid, fmt.Errorf("element type %q is not supported yet", s)
	}
	return Invalid, fmt.Errorf("element type %q is not known", s)
}
