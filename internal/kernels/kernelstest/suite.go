package kernelstest

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"lycoris/internal/kernels"
	"lycoris/internal/kernels/ref"
	"lycoris/internal/tensor"
	"lycoris/internal/testutil"
)

// suite is the state of one family's cases.
type suite struct {
	t    testing.TB
	b    kernels.Backend // under test
	want kernels.Backend // ref
	tol  Tolerance
	rnd  *rand.Rand
}

func newSuite(t testing.TB, b kernels.Backend, tol Tolerance) *suite {
	return &suite{t: t, b: b, want: ref.Open(), tol: tol, rnd: rand.New(rand.NewPCG(1, 2))}
}

// normal returns n values with the given mean and deviation.
func (s *suite) normal(n int, mean, deviation float64) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(mean + deviation*s.rnd.NormFloat64())
	}
	return v
}

// standard returns n values with mean 0 and deviation 1.
func (s *suite) standard(n int) []float32 { return s.normal(n, 0, 1) }

// weight returns a frozen weight of standard normal values in the precision of dtype.
func (s *suite) weight(dtype tensor.DType, shape ...int) *tensor.Tensor {
	return encode(s.standard(tensor.Elems(shape)), dtype, shape)
}

func encode(values []float32, dtype tensor.DType, shape []int) *tensor.Tensor {
	var data []byte
	for _, v := range values {
		switch dtype {
		case tensor.F32:
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
		case tensor.F16:
			data = binary.LittleEndian.AppendUint16(data, tensor.Float32ToF16(v))
		case tensor.BF16:
			data = binary.LittleEndian.AppendUint16(data, tensor.Float32ToBF16(v))
		}
	}
	return &tensor.Tensor{DType: dtype, Shape: shape, Data: data}
}

// dtypes are the precisions of frozen weights.
var dtypes = []tensor.DType{tensor.F32, tensor.F16, tensor.BF16}

// output describes an operand that an op writes.
type output struct {
	n     int
	init  []float32 // what it holds before, nil: NaN
	tol   float64   // 0: the same bits
	floor float64   // least divisor of the error, see testutil.MaxRelFloor
	skip  bool      // pass nil
}

// opCase is one comparison.
type opCase struct {
	name   string
	weight *tensor.Tensor // packed for the op, may be nil
	out    []output
	in     [][]float32 // nil operands are passed as nil
	run    func(b kernels.Backend, w kernels.Weight, out, in [][]float32)
}

// check runs c on ref and on the backend and compares.
func (s *suite) check(c opCase) {
	s.t.Helper()
	var refWeight, weight kernels.Weight
	if c.weight != nil {
		refWeight, weight = s.pack(s.want, c.weight), s.pack(s.b, c.weight)
		defer s.b.Release(weight)
	}
	want := make([][]float32, len(c.out))
	for i, o := range c.out {
		if !o.skip {
			want[i] = o.start()
		}
	}
	c.run(s.want, refWeight, want, c.in)

	aligned := s.runBackend(c, weight, 0)
	shifted := s.runBackend(c, weight, 1)
	for i, o := range c.out {
		if o.skip {
			continue
		}
		rel := testutil.MaxRelFloor(aligned[i], want[i], o.floor)
		if !(rel <= o.tol) {
			s.t.Errorf("%s: output %d: error %.3g of the largest value, want at most %.3g; %s", c.name, i, rel, o.tol, worst(aligned[i], want[i]))
		}
		for j := range aligned[i] {
			if math.Float32bits(aligned[i][j]) != math.Float32bits(shifted[i][j]) {
				s.t.Errorf("%s: output %d depends on alignment or earlier calls: element %d is %v, then %v", c.name, i, j, aligned[i][j], shifted[i][j])
				break
			}
		}
	}
}

func (s *suite) pack(b kernels.Backend, w *tensor.Tensor) kernels.Weight {
	s.t.Helper()
	packed, err := b.Pack(*w)
	if err != nil {
		s.t.Fatalf("pack %s %v: %v", w.DType, w.Shape, err)
	}
	return packed
}

// start returns the contents of an output before the op.
func (o output) start() []float32 {
	if o.init != nil {
		return slices.Clone(o.init)
	}
	v := make([]float32, o.n)
	for i := range v {
		v[i] = canary
	}
	return v
}

// worst names the element with the largest error.
func worst(got, want []float32) string {
	at, largest := 0, -1.0
	for i := range want {
		e := math.Abs(float64(got[i]) - float64(want[i]))
		if math.IsNaN(e) && math.Float32bits(got[i]) != math.Float32bits(want[i]) {
			e = math.Inf(1)
		}
		if e > largest {
			at, largest = i, e
		}
	}
	if len(want) == 0 {
		return "no elements"
	}
	return fmt.Sprintf("worst at %d of %d: %v, want %v", at, len(want), got[at], want[at])
}

// canary is a NaN that no arithmetic makes.
var canary = math.Float32frombits(0x7fc0beef)

// guard is the number of canaries on each side of a buffer: a multiple of 64 bytes, longer than a vector or a tile's edge.
const guard = 64

// buffer is an operand in the backend's memory, between canaries.
type buffer struct {
	whole  []float32 // guard+shift canaries, the operand, guard canaries
	inside []float32
	before []float32 // what inside held before the op
}

// place puts v into the backend's memory, shift floats off a 64-byte boundary.
func (s *suite) place(v []float32, shift int) *buffer {
	s.t.Helper()
	first := guard + shift
	host := make([]float32, first+len(v)+guard)
	for i := range host {
		host[i] = canary
	}
	copy(host[first:], v)
	whole, err := s.b.Alloc(len(host))
	if err != nil {
		s.t.Fatalf("alloc %d: %v", len(host), err)
	}
	s.b.Upload(whole, host)
	return &buffer{whole: whole, inside: whole[first : first+len(v) : first+len(v)], before: v}
}

// take brings a buffer back to the host, checks its canaries and frees it.
func (s *suite) take(name string, f *buffer) []float32 {
	s.t.Helper()
	host := make([]float32, len(f.whole))
	s.b.Download(host, f.whole)
	s.b.Free(f.whole)
	first := len(host) - guard - len(f.before)
	for i, v := range host {
		if (i < first || i >= first+len(f.before)) && math.Float32bits(v) != math.Float32bits(canary) {
			s.t.Errorf("%s: writes element %d of an operand of %d", name, i-first, len(f.before))
			break
		}
	}
	return host[first:][:len(f.before)]
}

// runBackend runs c on the backend and returns its outputs.
func (s *suite) runBackend(c opCase, w kernels.Weight, shift int) [][]float32 {
	s.t.Helper()
	outBuffers, inBuffers := make([]*buffer, len(c.out)), make([]*buffer, len(c.in))
	out, in := make([][]float32, len(c.out)), make([][]float32, len(c.in))
	for i, o := range c.out {
		if !o.skip {
			outBuffers[i] = s.place(o.start(), shift)
			out[i] = outBuffers[i].inside
		}
	}
	for i, v := range c.in {
		if v != nil {
			inBuffers[i] = s.place(v, shift)
			in[i] = inBuffers[i].inside
		}
	}
	c.run(s.b, w, out, in)
	results := make([][]float32, len(c.out))
	for i, f := range outBuffers {
		if f != nil {
			results[i] = s.take(fmt.Sprintf("%s: output %d", c.name, i), f)
		}
	}
	for i, f := range inBuffers {
		if f == nil {
			continue
		}
		after := s.take(fmt.Sprintf("%s: input %d", c.name, i), f)
		for j := range after {
			if math.Float32bits(after[j]) != math.Float32bits(f.before[j]) {
				s.t.Errorf("%s: input %d was changed at element %d", c.name, i, j)
				break
			}
		}
	}
	return results
}
