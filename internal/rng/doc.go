// Package rng makes random numbers that depend on nothing but their address.
//
// A [Stream] is addressed by a seed, a purpose ("noise", "shuffle", …), a step and an item, and gives the same numbers wherever, whenever and in
// whatever order streams are made: there is no state but the stream's own position. So resuming, the order of work and the number of threads
// can't change a draw. Results are the same on every machine: the normal samples use arithmetic of this package alone, see normal.go.
//
// The generator is [Philox4x32]. Its key is the seed XOR the FNV-1a 64 hash of the purpose, so that each purpose has its own bijection of the
// counters; its counter is block (32 bits), step (48 bits) and item (48 bits) side by side, so that streams of one purpose never share a block:
//
//	key      low half, high half of seed XOR FNV-1a(purpose)
//	counter  block, low 32 bits of step, high 16 bits of step | high 16 bits of item << 16, low 32 bits of item
//
// A stream has 2³² blocks of four words. Streams aren't safe for concurrent use; make one for each goroutine.
package rng
