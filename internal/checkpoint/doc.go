// Package checkpoint opens base models: what they are, what they hold, and their tensors one by one.
//
// A [Model] comes from a single-file checkpoint with LDM names or from a diffusers folder; either way its tensors are asked for by component
// (arch.Component) and diffusers name, and come in the file's own dtype and the diffusers shape. [Open] reads headers only: a model that isn't
// one this version trains, or that lacks tensors, is refused there with a sentence that says what it is.
//
// Files stay open until [Model.Close]. A Model is safe for concurrent use. Start at [Open]; the rules are in identify.go (which family),
// infer.go (sizes from shapes) and names.go (the forms a tensor's name takes).
package checkpoint
