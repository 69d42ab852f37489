// Package modelfile reads base models for the tools: Stable Diffusion 1.x, 2.x and XL, as one file with LDM names, as a UNet alone, or as a diffusers folder.
//
// A [Model] is its files; a [File] is its tensors in the order of the file; a [Tensor] says what it is (its [Role]) and, if it belongs to modules, which rows belong to
// which ([Part]): OpenCLIP keeps query, key and value of a layer in one matrix, thirds of its rows. Module paths are those of diffusers and transformers whatever the
// file's own names are. [Model.Find] goes the other way. Only headers are read until [Model.Read] is called. Safe for concurrent use once open.
//
// Unlike internal/checkpoint, which opens models to run them, nothing is refused that can be carried along: EMA copies, markers and unknown tensors are known as
// such, widths are those of the file, and parts may be missing. Start at [Open]. Names: the reference formats, section 2.
package modelfile
