package arch

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	"lycoris/internal/fault"
)

// Parsing of config.json. A key that is absent has the default of diffusers 0.42 (transformers 5 for the text encoder). A feature that
// this program doesn't compute is an error of kind fault.Input; keys it doesn't know are ignored, as diffusers does.

// config is a config.json under reading; the first mistake is kept.
type config struct {
	keys map[string]any
	err  *fault.Error
}

func parseConfig(text []byte) *config {
	c := &config{}
	if err := json.Unmarshal(text, &c.keys); err != nil {
		c.fail("config.json is not a JSON object: %v", err)
	}
	return c
}

func (c *config) fail(format string, args ...any) {
	if c.err == nil {
		c.err = fault.BadInput("", format, args...)
	}
}

// error returns the first mistake as an error; nil if there was none.
func (c *config) error() error {
	if c.err == nil {
		return nil
	}
	return c.err
}

// want refuses the config unless key is absent, null or equal to one of the values.
func (c *config) want(key string, values ...any) {
	got, ok := c.keys[key]
	if ok && got != nil && !slices.Contains(values, got) {
		text, _ := json.Marshal(got)
		c.fail("%s %s is not supported by this version", key, text)
	}
}

// number returns the number at key.
func (c *config) number(key string, absent float64) float64 {
	v, ok := c.keys[key]
	if !ok || v == nil {
		return absent
	}
	n, ok := v.(float64)
	if !ok {
		c.fail("%s is not a number", key)
	}
	return n
}

// maxSize bounds every size in a config: far above any model, far below what overflows a product of two.
const maxSize = 1 << 20

// size checks a whole number from 1 to maxSize.
func (c *config) size(key string, v any) int {
	n, ok := v.(float64)
	if !ok || n != math.Trunc(n) || n < 1 || n > maxSize {
		c.fail("%s %v is not a whole number from 1 to %d", key, v, maxSize)
		return 1
	}
	return int(n)
}

// int returns the whole number at key.
func (c *config) int(key string, absent int) int {
	if v, ok := c.keys[key]; ok && v != nil {
		return c.size(key, v)
	}
	return absent
}

// atMost bounds what multiplies the number of modules.
func (c *config) atMost(key string, n, limit int) {
	if n > limit {
		c.fail("%s %d is more than the %d that this version builds", key, n, limit)
	}
}

// bool returns the truth value at key.
func (c *config) bool(key string, absent bool) bool {
	v, ok := c.keys[key]
	if !ok || v == nil {
		return absent
	}
	b, ok := v.(bool)
	if !ok {
		c.fail("%s is neither true nor false", key)
	}
	return b
}

// string returns the text at key.
func (c *config) string(key, absent string) string {
	v, ok := c.keys[key]
	if !ok || v == nil {
		return absent
	}
	s, ok := v.(string)
	if !ok {
		c.fail("%s is not a text", key)
	}
	return s
}

// ints returns the list at key, a single number standing for n times itself; n 0 means any length.
func (c *config) ints(key string, n int, absent ...int) []int {
	v, ok := c.keys[key]
	if !ok || v == nil {
		return absent
	}
	list, ok := v.([]any)
	if !ok {
		return slices.Repeat([]int{c.size(key, v)}, n)
	}
	out := make([]int, len(list))
	for i, v := range list {
		out[i] = c.size(key, v)
	}
	if n > 0 && len(out) != n {
		c.fail("%s has %d entries, the model has %d levels", key, len(out), n)
		return slices.Repeat([]int{1}, n)
	}
	return out
}

// strings returns the list of texts at key.
func (c *config) strings(key string, absent ...string) []string {
	v, ok := c.keys[key]
	if !ok || v == nil {
		return absent
	}
	list, _ := v.([]any)
	out := make([]string, len(list))
	for i, v := range list {
		if out[i], ok = v.(string); !ok {
			c.fail("%s holds something that is not a text", key)
		}
	}
	return out
}

// channels returns the list of level widths and checks that groups divides each.
func (c *config) channels(groups int, absent ...int) []int {
	list := c.ints("block_out_channels", 0, absent...)
	if len(list) == 0 || len(list) > 8 {
		c.fail("block_out_channels has %d levels, this version builds 1 to 8", len(list))
		return absent
	}
	for _, n := range list {
		if n%groups != 0 {
			c.fail("%d channels can't be split into %d norm groups", n, groups)
		}
	}
	return list
}

// ParseUNet reads a UNet's config.json.
func ParseUNet(text []byte) (UNetConfig, error) {
	c := parseConfig(text)
	c.want("_class_name", "UNet2DConditionModel")
	for _, feature := range []struct {
		key    string
		values []any
	}{
		{"center_input_sample", []any{false}}, {"mid_block_type", []any{"UNetMidBlock2DCrossAttn"}}, {"only_cross_attention", []any{false}},
		{"downsample_padding", []any{1.0}}, {"mid_block_scale_factor", []any{1.0}}, {"dropout", []any{0.0}}, {"act_fn", []any{"silu", "swish"}},
		{"encoder_hid_dim", nil}, {"encoder_hid_dim_type", nil}, {"dual_cross_attention", []any{false}}, {"class_embed_type", nil},
		{"addition_embed_type", []any{"text_time"}}, {"num_class_embeds", nil}, {"resnet_time_scale_shift", []any{"default"}},
		{"resnet_skip_time_act", []any{false}}, {"resnet_out_scale_factor", []any{1.0}}, {"time_embedding_type", []any{"positional"}},
		{"time_embedding_dim", nil}, {"time_embedding_act_fn", nil}, {"timestep_post_act", nil}, {"time_cond_proj_dim", nil},
		{"conv_in_kernel", []any{3.0}}, {"conv_out_kernel", []any{3.0}}, {"attention_type", []any{"default"}}, {"class_embeddings_concat", []any{false}},
		{"mid_block_only_cross_attention", []any{false}}, {"cross_attention_norm", nil}, {"reverse_transformer_layers_per_block", nil},
	} {
		c.want(feature.key, feature.values...)
	}
	u := UNetConfig{
		InChannels: c.int("in_channels", 4), OutChannels: c.int("out_channels", 4), NormGroups: c.int("norm_num_groups", 32),
		NormEps: c.number("norm_eps", 1e-5), FlipSinToCos: c.bool("flip_sin_to_cos", true), FreqShift: c.number("freq_shift", 0),
		LinearProjection: c.bool("use_linear_projection", false),
	}
	u.BlockOutChannels = c.channels(u.NormGroups, 320, 640, 1280, 1280)
	levels := len(u.BlockOutChannels)
	u.LayersPerBlock = c.same("layers_per_block", levels, 2)
	u.CrossAttentionDim = c.same("cross_attention_dim", levels, 1280)
	u.TimeEmbedDim = 4 * u.BlockOutChannels[0]
	u.blockTypes(c)
	c.atMost("layers_per_block", u.LayersPerBlock, 16)
	u.TransformerDepth = c.ints("transformer_layers_per_block", levels, slices.Repeat([]int{1}, levels)...)
	u.MidDepth = u.TransformerDepth[levels-1]
	c.atMost("transformer_layers_per_block", slices.Max(u.TransformerDepth), 64)
	heads := "num_attention_heads"
	if c.keys[heads] == nil {
		heads = "attention_head_dim" // by its old name it is the number of heads all the same
	}
	u.Heads = c.ints(heads, levels, slices.Repeat([]int{8}, levels)...)
	u.MidHeads = u.Heads[levels-1]
	for i, n := range u.BlockOutChannels {
		if u.Attention[i] && n%u.Heads[i] != 0 || i == levels-1 && n%u.MidHeads != 0 {
			c.fail("%d channels can't be split into %d attention heads", n, u.Heads[i])
		}
	}
	if c.keys["addition_embed_type"] != nil {
		u.AddedInput = c.int("projection_class_embeddings_input_dim", 2816)
		u.AddedTimeDim = c.int("addition_time_embed_dim", 256)
	}
	return u, c.error()
}

// same returns the number at key, which may be a list of equal numbers.
func (c *config) same(key string, levels, absent int) int {
	list := c.ints(key, levels, slices.Repeat([]int{absent}, levels)...)
	for _, n := range list {
		if n != list[0] {
			c.fail("%s %v, one number per level, is not supported by this version", key, list)
		}
	}
	return list[0]
}

// blockTypes fills in Attention from down_block_types and checks up_block_types against it.
func (u *UNetConfig) blockTypes(c *config) {
	levels := len(u.BlockOutChannels)
	down := c.strings("down_block_types", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D")
	up := c.strings("up_block_types", "UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D")
	u.Attention = make([]bool, levels)
	if len(down) != levels || len(up) != levels {
		c.fail("%d down and %d up blocks for %d levels", len(down), len(up), levels)
		return
	}
	for i, t := range down {
		if u.Attention[i] = t == "CrossAttnDownBlock2D"; !u.Attention[i] && t != "DownBlock2D" {
			c.fail("a down block %q is not supported by this version", t)
		}
	}
	for i, t := range up {
		attention := t == "CrossAttnUpBlock2D"
		if !attention && t != "UpBlock2D" {
			c.fail("an up block %q is not supported by this version", t)
		}
		if level := levels - 1 - i; attention != u.Attention[level] {
			c.fail("up block %q does not mirror down block %q", t, down[level])
		}
	}
}

// ParseCLIP reads a text encoder's config.json.
func ParseCLIP(text []byte) (CLIPConfig, error) {
	c := parseConfig(text)
	if inner, ok := c.keys["text_config"].(map[string]any); ok { // of a whole CLIPModel
		c.keys = inner
	}
	c.want("model_type", "clip_text_model", "clip")
	if list := c.strings("architectures"); len(list) > 0 && !strings.HasPrefix(list[0], "CLIP") {
		c.fail("a text encoder %q is not supported by this version", list[0])
	}
	c.want("hidden_act", "quick_gelu", "gelu")
	t := CLIPConfig{
		VocabSize: c.int("vocab_size", 49408), Width: c.int("hidden_size", 512), Intermediate: c.int("intermediate_size", 2048),
		Layers: c.int("num_hidden_layers", 12), Heads: c.int("num_attention_heads", 8), MaxPositions: c.int("max_position_embeddings", 77),
		Activation: c.string("hidden_act", "quick_gelu"), NormEps: c.number("layer_norm_eps", 1e-5),
	}
	if t.Width%t.Heads != 0 {
		c.fail("%d channels can't be split into %d attention heads", t.Width, t.Heads)
	}
	c.atMost("num_hidden_layers", t.Layers, 256)
	return t, c.error()
}

// ParseVAE reads a VAE's config.json.
func ParseVAE(text []byte) (VAEConfig, error) {
	c := parseConfig(text)
	c.want("_class_name", "AutoencoderKL")
	c.want("act_fn", "silu", "swish")
	c.want("mid_block_add_attention", true)
	c.want("shift_factor", 0.0)
	c.want("latents_mean")
	c.want("latents_std")
	v := VAEConfig{
		InChannels: c.int("in_channels", 3), OutChannels: c.int("out_channels", 3), LatentChannels: c.int("latent_channels", 4),
		LayersPerBlock: c.int("layers_per_block", 1), NormGroups: c.int("norm_num_groups", 32),
		ScalingFactor: c.number("scaling_factor", 0.18215), QuantConv: c.bool("use_quant_conv", true),
	}
	if post := c.bool("use_post_quant_conv", true); post != v.QuantConv {
		c.fail("use_quant_conv %t with use_post_quant_conv %t is not supported by this version", v.QuantConv, post)
	}
	v.BlockOutChannels = c.channels(v.NormGroups, 64)
	c.atMost("layers_per_block", v.LayersPerBlock, 16)
	for key, want := range map[string]string{"down_block_types": "DownEncoderBlock2D", "up_block_types": "UpDecoderBlock2D"} {
		list := c.strings(key, slices.Repeat([]string{want}, len(v.BlockOutChannels))...)
		if len(list) != len(v.BlockOutChannels) {
			c.fail("%s has %d entries, the model has %d levels", key, len(list), len(v.BlockOutChannels))
		}
		for _, t := range list {
			if t != want {
				c.fail("%s: a block %q is not supported by this version", key, t)
			}
		}
	}
	if !(v.ScalingFactor > 0) {
		c.fail("scaling_factor %v is not above 0", v.ScalingFactor)
	}
	return v, c.error()
}

// String returns the sizes that matter in one line, for messages.
func (c UNetConfig) String() string {
	return fmt.Sprintf("UNet %v, cross attention %d", c.BlockOutChannels, c.CrossAttentionDim)
}
