// Package resize gives adapters fewer ranks: lycoris resize.
//
// [Run] reads an adapter without its base, decomposes each module's change through its factors (never the change itself), keeps as many singular values as the
// [Rule] and the caps of [Options] say, and writes the best approximation of that rank (Eckart and Young, 1936) with the scale baked in. LoRA stays LoRA, plain
// where it had a Tucker core; LoHa becomes the LoRA that it is; of LoKr the large factor is cut. A DyLoRA is cut behind one of its blocks instead, where its
// ranks were trained to work alone. Modules without a rank are copied. What was lost is in the [Report], exactly.
//
// Sums are in float64, with one rounding at the end. The written bytes don't depend on the number of threads.
//
// Start at [Run], then read factors.go.
package resize
