// Package adapter reads and writes adapter files: which layer a tensor belongs to, what the file says about itself, and its hashes.
//
// A [Table] knows the flat name of every module of a model, lora_unet_down_blocks_0_…, and finds the module from it or from the
// other spellings in the field. A [File] is an open adapter: its [Module]s, each with its tensors by suffix (lora_down.weight, alpha). [Metadata]
// becomes the strings that other programs show and select by. [Save] writes.
//
// Written names are kohya's: diffusers paths for the UNet, text_model paths for the text encoder. The package knows no algorithm: it is handed
// their key sets ([KeySet]).
//
// Start at [Name] and [Open]. Key names follow sd-scripts and LyCORIS; metadata follow sd-scripts' train_network.py.
package adapter
