package tinymodel

import (
	"fmt"
	"math"
	"strings"

	"lycoris/internal/arch"
)

// A path through the norms and activations that changes nothing. Some channels carry a signal x, others -x, and one constant pair ±k shares their
// norm group. With k far above the signal, the group's deviation is k·√(2/n) for n channels whatever x is, so that the norm is a fixed scale,
// which gamma undoes; and silu(x) - silu(-x) = x exactly. The residual branches don't write to these channels.

// pass is the layout of the path: signals in pairs (2i, 2i+1) within groups of pairs.
type pass struct {
	signals  int     // number of signals
	perGroup int     // signals in each norm group
	k        float32 // the constant
}

// channel returns the channel of +signal i in a tensor whose norm groups have n channels; -signal is the next one.
func (p pass) channel(i, n int) int { return i/p.perGroup*n + 2*(i%p.perGroup) }

// constant returns the channel of +k in group g; -k is the next one.
func (p pass) constant(g, n int) int { return g*n + 2*p.perGroup }

func (p pass) groups() int { return (p.signals + p.perGroup - 1) / p.perGroup }

// channels lists all channels of the path where groups have n channels.
func (p pass) channels(n int) []int {
	var list []int
	for i := range p.signals {
		list = append(list, p.channel(i, n), p.channel(i, n)+1)
	}
	for g := range p.groups() {
		list = append(list, p.constant(g, n), p.constant(g, n)+1)
	}
	return list
}

// parts gives access to the values of a model by name.
type parts map[string]array

// row zeroes output row o of a layer, bias included.
func (v parts) row(layer string, o int) {
	w := v[layer+".weight"]
	per := len(w.v) / w.shape[0]
	fill(w.v[o*per:(o+1)*per], 0)
	if b, ok := v[layer+".bias"]; ok {
		b.v[o] = 0
	}
}

// tap sets one tap of a layer; y and x are the place in the window.
func (v parts) tap(layer string, o, i, y, x int, value float32) {
	w := v[layer+".weight"]
	if len(w.shape) == 2 {
		w.v[o*w.shape[1]+i] = value
		return
	}
	w.v[((o*w.shape[1]+i)*w.shape[2]+y)*w.shape[3]+x] = value
}

// start makes a layer put signal i of its input, times scale, on the path, and the constants.
func (v parts) start(layer string, p pass, n int, scale float32, from func(i int) map[int]float32) {
	for _, c := range p.channels(n) {
		v.row(layer, c)
	}
	mid := v[layer+".weight"].shape[2] / 2
	for i := range p.signals {
		for input, weight := range from(i) {
			v.tap(layer, p.channel(i, n), input, mid, mid, scale*weight)
			v.tap(layer, p.channel(i, n)+1, input, mid, mid, -scale*weight)
		}
	}
	b := v[layer+".bias"].v
	for g := range p.groups() {
		b[p.constant(g, n)], b[p.constant(g, n)+1] = p.k, -p.k
	}
}

// keep makes a layer hand the path on: channel in[j] to out[j], by the given taps of the window.
func (v parts) keep(layer string, out, in []int, taps map[[2]int]float32) {
	for j := range out {
		v.row(layer, out[j])
		for at, weight := range taps {
			v.tap(layer, out[j], in[j], at[0], at[1], weight)
		}
	}
}

// end makes the last norm and convolution give signal i, times scale, as output i on top of the rest of the row times damp.
func (v parts) end(norm, conv string, p pass, n int, scale, damp float32, outputs int) {
	gamma := float32(float64(p.k) * math.Sqrt(2/float64(n)))
	for _, c := range p.channels(n) {
		v[norm+".weight"].v[c], v[norm+".bias"].v[c] = gamma, 0
	}
	w := v[conv+".weight"]
	per := len(w.v) / w.shape[0]
	for o := range outputs {
		for j := range per {
			w.v[o*per+j] *= damp
		}
		for _, c := range p.channels(n) {
			window := w.v[o*per+c*9 : o*per+(c+1)*9]
			fill(window, 0)
		}
		v[conv+".bias"].v[o] = 0
	}
	for i := range outputs {
		v.tap(conv, i, p.channel(i, n), 1, 1, scale)
		v.tap(conv, i, p.channel(i, n)+1, 1, 1, -scale)
	}
}

var centre = map[[2]int]float32{{1, 1}: 1}

// craftUNet lets the latents through to the output, by the last skip connection.
func craftUNet(c arch.UNetConfig, values map[string]array) {
	v, width := parts(values), c.BlockOutChannels[0]
	n := width / c.NormGroups // channels of a group
	p := pass{signals: c.InChannels, perGroup: 2, k: 8}
	v.start("conv_in", p, n, 1, func(i int) map[int]float32 { return map[int]float32{i: 1} })
	last := c.Levels() - 1
	resnet := fmt.Sprint("up_blocks.", last, ".resnets.", c.LayersPerBlock)
	in, _ := c.UpChannels(last)
	skip := in[c.LayersPerBlock] - width // where the skip connection's channels begin: after what comes up
	path := p.channels(n)
	var from []int
	for _, ch := range path {
		from = append(from, skip+ch)
	}
	v.keep(resnet+".conv_shortcut", path, from, map[[2]int]float32{{0, 0}: 1})
	for _, ch := range path {
		v.row(resnet+".conv2", ch)
		v.row(fmt.Sprint("up_blocks.", last, ".attentions.", c.LayersPerBlock, ".proj_out"), ch)
	}
	v.end("conv_norm_out", "conv_out", p, n, 1, 0.25, c.OutChannels)
}

// latentGain makes the scaled latents of photographs about as wide as noise: colours have a deviation of 0.5, and 0.18215 · 11 · 0.5 = 1.
const latentGain = 11

// craftVAE makes latents the block means of red, green, blue and their mean, times latentGain, and the decoder the way back.
func craftVAE(c arch.VAEConfig, values map[string]array) {
	v := parts(values)
	for name := range v {
		layer := strings.TrimSuffix(strings.TrimSuffix(name, ".weight"), ".bias")
		if strings.HasSuffix(layer, ".conv2") || strings.HasSuffix(layer, ".to_out.0") {
			fill(v[name].v, 0) // no residual branch writes anything
		}
	}
	p := pass{signals: 3, perGroup: 3, k: 64}
	levels := len(c.BlockOutChannels)
	group := func(level int) int { return c.BlockOutChannels[level] / c.NormGroups }
	straight := p.channels(group(0)) // group 0 begins at channel 0 at every width, so the path's channels are the same everywhere
	shortcut := func(layer string) {
		if _, ok := v[layer+".weight"]; ok {
			v.keep(layer, straight, straight, map[[2]int]float32{{0, 0}: 1})
		}
	}
	colour := func(i int) map[int]float32 { return map[int]float32{i: 1} }

	v.start("encoder.conv_in", p, group(0), 1, colour)
	quarter := map[[2]int]float32{{0, 0}: 0.25, {0, 1}: 0.25, {1, 0}: 0.25, {1, 1}: 0.25}
	for i := range levels {
		shortcut(fmt.Sprint("encoder.down_blocks.", i, ".resnets.0.conv_shortcut"))
		if i < levels-1 {
			v.keep(fmt.Sprint("encoder.down_blocks.", i, ".downsamplers.0.conv"), straight, straight, quarter)
		}
	}
	v.end("encoder.conv_norm_out", "encoder.conv_out", p, group(levels-1), latentGain, 0, 3)
	for o := 3; o < 2*c.LatentChannels; o++ {
		v.row("encoder.conv_out", o)
	}
	for i := range 3 { // the fourth latent is the mean of the colours
		v.tap("encoder.conv_out", 3, p.channel(i, 0), 1, 1, latentGain/3.)
		v.tap("encoder.conv_out", 3, p.channel(i, 0)+1, 1, 1, -latentGain/3.)
	}
	for o := c.LatentChannels; o < 2*c.LatentChannels; o++ {
		v["encoder.conv_out.bias"].v[o] = -12 // log variance: next to none
	}
	for _, layer := range []string{"quant_conv", "post_quant_conv"} {
		for o := range v[layer+".weight"].shape[0] {
			v.row(layer, o)
			v.tap(layer, o, o, 0, 0, 1)
		}
	}

	v.start("decoder.conv_in", p, group(levels-1), 1./latentGain, colour)
	for i := range levels {
		shortcut(fmt.Sprint("decoder.up_blocks.", i, ".resnets.0.conv_shortcut"))
		if i < levels-1 {
			v.keep(fmt.Sprint("decoder.up_blocks.", i, ".upsamplers.0.conv"), straight, straight, centre)
		}
	}
	v.end("decoder.conv_norm_out", "decoder.conv_out", p, group(0), 1, 0, 3)
}
