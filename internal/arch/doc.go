// Package arch knows the architectures: for each model every module's name in each naming scheme, its kind and its shape.
//
// Three configs describe a model: [UNetConfig], [CLIPConfig] and [VAEConfig], read from a diffusers folder's config.json or inferred
// from shapes by internal/checkpoint. [UNetModules], [CLIPModules] and [VAEModules] turn a config into its list of [Module], in the order in
// which diffusers and transformers define them, which is the order adapters are made in.
//
// A module's Path is its diffusers (transformers) name and always names it in this program: down_blocks.0.resnets.0.conv1,
// text_model.encoder.layers.0.mlp.fc1. Its LDM field is the name in single-file checkpoints, without the component's prefix ([LDMPrefix]).
// Text encoder paths have the text_model level, whatever wrote the file.
//
// Nothing here reads files or holds weights. Values are immutable and safe for concurrent use. Start at [Module], then unet.go.
//
// Sources: diffusers 0.42 (UNet2DConditionModel, AutoencoderKL), transformers 5 (CLIPTextModel), CompVis latent-diffusion for LDM names;
// testdata/names holds what those programs print.
package arch
