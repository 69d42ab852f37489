// Package diffusion holds the arithmetic of diffusion models: what noise is added, what the model should answer, and how a picture is
// sampled from its answers. It reads and writes nothing.
//
// A [Schedule] says how much noise each of the 1000 timesteps carries. A [Prediction] says what the model answers: the noise, or the
// velocity. A [Sampler] walks from pure noise to latents by asking the model a few dozen times.
//
// Everything is elementwise, so the layout of latents doesn't matter, except where a function names one. Outputs come first and belong to
// the caller. A Schedule is read-only once made and may be shared; a Sampler has a position and may not.
//
// Start at [NewSchedule]. The formulas are those of DDPM (Ho et al. 2020), progressive distillation (Salimans and Ho 2022, for the
// velocity) and EDM (Karras et al. 2022, for Euler), in the rounding of diffusers, against which the tests compare.
package diffusion
