// Package tinymodel makes small models of SD1.x architecture on the spot, for tests and the demo, and a full-size one for the benchmark.
//
// The tiny model's weights are random but sane. Its VAE is made by hand: latents are the means of 8x8 blocks, so that what comes out of a
// sampler can be looked at. Its UNet hands its input through beside random features: it predicts that the noise is what it sees, as
// good a guess as one can make without learning, and training has something to add to. See craft.go.
//
// Start at [WriteTiny].
package tinymodel
