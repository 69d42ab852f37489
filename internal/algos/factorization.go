package algos

// Factorization splits dim into m·n, m ≤ n (lycoris-lora 4.1.3, functional/general.py). A factor that divides dim is one of the two, whatever its size;
// otherwise m is the largest divisor of dim that is neither above factor nor above its partner's neighbour, and a negative factor leaves m free: the pair
// nearest to a square. Factor 0 gives (1, dim).
func Factorization(dim, factor int) (m, n int) {
	if factor > 0 && dim%factor == 0 {
		m, n = factor, dim/factor
		return min(m, n), max(m, n)
	}
	if factor < 0 {
		factor = dim
	}
	m, n = 1, dim
	for m < n {
		next := m + 1
		for dim%next != 0 {
			next++
		}
		if next > factor || next+dim/next > dim+1 { // upstream compares with the sum it began with
			break
		}
		m, n = next, dim/next
	}
	return min(m, n), max(m, n)
}
