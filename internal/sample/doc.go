// Package sample makes pictures from a base model and adapters, for looking at what an adapter learned.
//
// A [Prompt] is a text with its settings, read from kohya's prompt lines by [ParsePrompt]. A [Sampler] turns one into a picture: text states, noise, a
// walk of the diffusion sampler with classifier-free guidance, VAE. [Write] puts a picture and its settings on disk, [Sheet] joins pictures into one.
//
// A picture is a function of model, adapters and prompt: its noise has a random stream of its own, so neither its place in a list nor the number of
// threads matters. A Sampler isn't safe for concurrent use.
package sample
