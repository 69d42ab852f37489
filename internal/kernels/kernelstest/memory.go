package kernelstest

import (
	"fmt"
	"math"
	"strings"
	"unsafe"

	"lycoris/internal/kernels"
	"lycoris/internal/tensor"
)

// memory checks Alloc, Free, Upload and Download.
func memory(s *suite) {
	for _, n := range []int{0, 1, 15, 16, 17, 1000, 1 << 16} {
		buf, err := s.b.Alloc(n)
		if err != nil {
			s.t.Fatalf("alloc %d: %v", n, err)
		}
		if len(buf) != n {
			s.t.Errorf("alloc %d: %d floats", n, len(buf))
		}
		if n > 0 && uintptr(unsafe.Pointer(unsafe.SliceData(buf)))%64 != 0 {
			s.t.Errorf("alloc %d: not at a 64-byte boundary", n)
		}
		host := s.standard(n)
		s.b.Download(host, buf)
		for i, v := range host {
			if math.Float32bits(v) != 0 {
				s.t.Errorf("alloc %d: element %d is %v, want 0", n, i, v)
				break
			}
		}
		want := s.standard(n)
		s.b.Upload(buf, want)
		s.b.Download(host, buf)
		for i := range want {
			if host[i] != want[i] {
				s.t.Errorf("upload and download of %d: element %d is %v, want %v", n, i, host[i], want[i])
				break
			}
		}
		s.b.Free(buf)
	}
	if s.b.Name() == "" {
		s.t.Error("the backend has no name")
	}
}

// pack checks that a weight comes back from its own layout with the values of its file's precision.
func pack(s *suite) {
	for _, dtype := range dtypes {
		for _, shape := range [][]int{{1, 1}, {3, 5}, {16, 32}, {17, 33}, {31, 7}, {64, 385}, {33, 17, 1, 1}, {5, 4, 3, 3}, {17, 33, 3, 3}, {32, 16, 3, 3}, {3, 2, 5, 3}} {
			w := s.weight(dtype, shape...)
			got, want := s.pack(s.b, w), s.pack(s.want, w)
			if !tensor.SameShape(got.Shape(), shape) || got.DType() != dtype || got.Bytes() < int64(len(w.Data)) {
				s.t.Errorf("%s %v: packed as %s %v in %d bytes", dtype, shape, got.DType(), got.Shape(), got.Bytes())
			}
			clear(w.Data) // it isn't kept
			a, b := s.b.Unpack(got), s.want.Unpack(want)
			if len(a) != len(b) {
				s.t.Errorf("%s %v: unpacked %d values, want %d", dtype, shape, len(a), len(b))
				continue
			}
			for i := range b {
				if math.Float32bits(a[i]) != math.Float32bits(b[i]) {
					s.t.Errorf("%s %v: value %d is %v, want %v", dtype, shape, i, a[i], b[i])
					break
				}
			}
			s.b.Release(got)
		}
	}
	if _, err := s.b.Pack(tensor.Tensor{DType: tensor.I8, Shape: []int{2, 2}, Data: make([]byte, 4)}); err == nil {
		s.t.Error("pack of an I8 weight: no error")
	}
}

// panics checks that operands of a wrong length are refused with the op's name, before anything is computed.
func panics(s *suite) {
	w := s.pack(s.b, s.weight(tensor.F32, 4, 8))
	defer s.b.Release(w)
	buf, err := s.b.Alloc(4096)
	if err != nil {
		s.t.Fatal(err)
	}
	defer s.b.Free(buf)
	f := func(n int) []float32 { return buf[:n:n] }
	c := kernels.Conv{N: 1, H: 2, W: 2, C: 8, O: 4, KH: 1, KW: 1, Stride: 1, OH: 2, OW: 2}
	a := kernels.Attention{N: 1, Heads: 2, TQ: 3, TK: 5, D: 4, Scale: 0.5}
	g := kernels.GroupNorm{N: 1, P: 4, C: 8, Groups: 2}
	for _, bad := range []struct {
		op  string
		run func()
	}{
		{"Linear", func() { s.b.Linear(f(11), f(24), w, 3, kernels.Epilogue{}) }},
		{"Linear", func() { s.b.Linear(f(12), f(24), w, 3, kernels.Epilogue{Bias: f(3)}) }},
		{"LinearGrad", func() { s.b.LinearGrad(f(24), f(11), w, 3, nil) }},
		{"LinearChanged", func() { s.b.LinearChanged(f(12), f(24), w, f(31), 3, kernels.Epilogue{}) }},
		{"Conv2d", func() { s.b.Conv2d(f(15), f(32), w, c, kernels.Epilogue{}) }},
		{"ConvFree", func() { s.b.ConvFree(f(16), f(32), f(31), c, kernels.Epilogue{}) }},
		{"ConvWeightGrad", func() { s.b.ConvWeightGrad(f(32), f(16), f(31), c) }},
		{"MatMul", func() {
			s.b.MatMul(f(6), f(8), f(11), kernels.Epilogue{}, kernels.MatMul{Batch: 1, M: 2, N: 3, K: 4, Alpha: 1})
		}},
		{"BlockMatMul", func() { s.b.BlockMatMul(f(6), f(8), f(7), nil, kernels.BlockMatMul{M: 1, N: 2, S: 4, T: 3}) }},
		{"Cayley", func() { s.b.Cayley(f(8), f(9), kernels.Cayley{N: 2, S: 2}) }},
		{"NormRatio", func() { s.b.NormRatio(f(2), f(2), f(1), 0, 1) }},
		{"GroupNorm", func() { s.b.GroupNorm(f(31), f(4), f(32), f(8), f(8), g) }},
		{"LayerNorm", func() { s.b.LayerNorm(f(12), f(5), f(12), f(4), f(4), kernels.LayerNorm{M: 3, D: 4}) }},
		{"Attention", func() { s.b.Attention(f(24), f(6), f(24), f(39), f(40), a) }},
		{"AttentionGrad", func() { s.b.AttentionGrad(f(24), f(40), f(40), f(24), f(24), f(5), f(24), f(40), f(40), a) }},
		{"Activate", func() { s.b.Activate(f(4), f(5), kernels.SiLU) }},
		{"GEGLU", func() { s.b.GEGLU(f(6), f(11), 2, 3) }},
		{"Combine", func() { s.b.Combine(f(4), f(4), 1, f(5), 1) }},
		{"Axpy", func() { s.b.Axpy(f(4), f(3), 1) }},
		{"Permute", func() { s.b.Permute(f(6), f(5), []int{2, 3}, []int{1, 0}) }},
		{"GatherRows", func() { s.b.GatherRows(f(4), f(6), []int32{0, 3}, 2) }},
		{"SquaredError", func() { s.b.SquaredError(f(2), f(6), f(5), 2) }},
		{"Dropout", func() { s.b.Dropout(f(4), f(4), f(2), 0, 0.5) }},
		{"AdamW", func() { s.b.AdamW(f(4), f(4), f(3), f(4), kernels.AdamW{Step: 1}) }},
		{"AdamW", func() { s.b.AdamW(f(4), f(4), f(4), f(4), kernels.AdamW{Step: 1, LR: 1, Decay: 1, Origin: w}) }},
	} {
		func() {
			defer func() {
				if r := recover(); r == nil {
					s.t.Errorf("%s: operands of wrong lengths: no panic", bad.op)
				} else if !strings.Contains(fmt.Sprint(r), bad.op) {
					s.t.Errorf("%s: the panic doesn't name the op: %v", bad.op, r)
				}
			}()
			bad.run()
		}()
	}
}
