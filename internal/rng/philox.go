package rng

import "math/bits"

// Philox4x32 returns four random words for a counter and a key: ten rounds of Philox 4x32 (Salmon, Moraes, Dror and Shaw, "Parallel random
// numbers: as easy as 1, 2, 3", SC 2011, section 4.3, with the constants of its reference implementation, Random123).
func Philox4x32(ctr [4]uint32, key [2]uint32) [4]uint32 {
	for round := 0; ; round++ {
		hi0, lo0 := bits.Mul32(0xD2511F53, ctr[0])
		hi1, lo1 := bits.Mul32(0xCD9E8D57, ctr[2])
		ctr = [4]uint32{hi1 ^ ctr[1] ^ key[0], lo1, hi0 ^ ctr[3] ^ key[1], lo0}
		if round == 9 {
			return ctr
		}
		key[0] += 0x9E3779B9 // golden ratio
		key[1] += 0xBB67AE85 // √3-1
	}
}
