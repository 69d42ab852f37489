package rng

// Written down on amd64 when the package was made; the same on every machine.
const (
	recordedInts    = "9b5b0328 8df3ed9c290afa45 0.0072622691421930785 65 [5 6 3 4 1 0 7 2]"
	recordedNormals = "bf670b19 be44557f bfbfdd3e be06e5f7 bf2c4028 bf519acf "
)
