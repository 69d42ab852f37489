// Package nn emits layers into a graph: frozen weights by name, and the hook on which an adapter hangs.
//
// A [Store] hands out frozen weights and reads them later, so that a graph can be planned from a file's header alone. A [Builder] is what a model's
// assembly code works with: its Linear, Conv2d, GroupNorm and LayerNorm take a module path in the model's own naming (diffusers, transformers). Each Linear and
// Conv2d is a [Layer]; where Builder.Adapters gives an [Adapter] for its path, the adapter emits the layer instead; that of a norm is a [NormAdapter].
//
// Paths of layers begin with the component: "unet.down_blocks.0…", "text_encoder.text_model.encoder…". Neither models nor adapters know each other.
// Start at [Layer].
package nn
