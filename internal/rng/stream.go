package rng

import (
	"fmt"
	"hash/fnv"
	"math/bits"
)

// Stream is a sequence of random numbers. Make it with [New].
type Stream struct {
	key   [2]uint32
	ctr   [4]uint32 // of the next block
	words [4]uint32 // the block in use
	used  int       // words of it that were given out
	full  bool      // all blocks but the one in use were given out
	spare float32   // the second normal sample of a pair
	held  bool      // spare is to be given out
}

// New returns the stream at an address. step and item are below 2⁴⁸.
func New(seed uint64, purpose string, step, item uint64) *Stream {
	if step>>48 != 0 || item>>48 != 0 {
		panic(fmt.Sprintf("rng: New: step %d, item %d, want both below 2^48", step, item))
	}
	hash := fnv.New64a()
	hash.Write([]byte(purpose)) // never fails
	key := seed ^ hash.Sum64()
	return &Stream{
		key:  [2]uint32{uint32(key), uint32(key >> 32)},
		ctr:  [4]uint32{0, uint32(step), uint32(step>>32) | uint32(item>>32)<<16, uint32(item)},
		used: 4,
	}
}

// Uint32 returns 32 random bits.
func (s *Stream) Uint32() uint32 {
	if s.used == 4 {
		if s.full {
			panic("rng: a stream of 2^34 words was used up")
		}
		s.words, s.used = Philox4x32(s.ctr, s.key), 0
		s.ctr[0]++
		s.full = s.ctr[0] == 0
	}
	w := s.words[s.used]
	s.used++
	return w
}

// Uint64 returns 64 random bits: two words, the low half first.
func (s *Stream) Uint64() uint64 {
	low := uint64(s.Uint32())
	return low | uint64(s.Uint32())<<32
}

// Float64 returns a number of [0,1): a multiple of 2^-53, all equally likely.
func (s *Stream) Float64() float64 { return float64(s.Uint64()>>11) * 0x1p-53 }

// IntN returns an integer of [0,n), all equally likely; n is 1 or more. It takes the high word of a 64-bit draw times n and draws again where
// the low word shows that this would favour some (Lemire, "Fast random integer generation in an interval", 2019, algorithm 5).
func (s *Stream) IntN(n int) int {
	if n <= 0 {
		panic(fmt.Sprintf("rng: IntN: n = %d, want 1 or more", n))
	}
	m := uint64(n)
	high, low := bits.Mul64(s.Uint64(), m)
	for low < m && low < -m%m {
		high, low = bits.Mul64(s.Uint64(), m)
	}
	return int(high)
}

// Perm returns the integers of [0,n) in random order.
func (s *Stream) Perm(n int) []int {
	p := make([]int, n)
	for i := range p {
		p[i] = i
	}
	s.Shuffle(n, func(i, j int) { p[i], p[j] = p[j], p[i] })
	return p
}

// Shuffle puts n things in random order, all equally likely, by swapping pairs of them (Fisher and Yates, from the end).
func (s *Stream) Shuffle(n int, swap func(i, j int)) {
	for i := n - 1; i > 0; i-- {
		swap(i, s.IntN(i+1))
	}
}
