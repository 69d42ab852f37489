package resize

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"

	"lycoris/internal/algos"
	"lycoris/internal/fault"
	"lycoris/internal/tensor"
)

// dyLoRA is how a file whose ranks are ordered is cut (Valipour et al., 2022): what its first ranks did in training they do alone, at the scale they had there.
// Nothing in its tensors tells it from a LoRA.
type dyLoRA struct {
	ranks int    // to keep
	block int    // ranks that were trained together
	rule  string // of algos.BlockScales
}

// The rules' names.
const (
	scaleActive  = "active"  // alpha/k at k ranks
	scaleKohya   = "kohya"   // alpha/R·√(R/k)
	scaleLycoris = "lycoris" // alpha/blocks
)

// trainedAs reads from metadata whether a file is a DyLoRA, by which rule it was scaled and how many ranks were trained together.
func trainedAs(meta map[string]string) (d dyLoRA, known bool) {
	var args map[string]any
	json.Unmarshal([]byte(meta["ss_network_args"]), &args) // absent or of another form: no arguments
	number := func(key string, other int) int {
		switch v := args[key].(type) {
		case string:
			if n, err := strconv.Atoi(v); err == nil && n > 0 {
				return n
			}
		case float64:
			if v >= 1 && v == math.Trunc(v) {
				return int(v)
			}
		}
		return other
	}
	algo, _ := args["algo"].(string)
	module := meta["ss_network_module"]
	switch rule := meta["lycoris.dylora_scale"]; {
	case slices.Contains(algos.BlockScales, rule):
		return dyLoRA{block: number("block_size", 1), rule: rule}, true
	case strings.HasSuffix(module, "networks.dylora"):
		return dyLoRA{block: number("unit", 1), rule: scaleKohya}, true
	case strings.Contains(module, "lycoris") && strings.EqualFold(algo, "dylora"):
		return dyLoRA{block: number("block_size", 4), rule: scaleLycoris}, true
	}
	return dyLoRA{block: 1, rule: scaleActive}, false
}

// check refuses a cut inside a block, with the neighbours, or beyond the largest rank.
func (d *dyLoRA) check(flag string, most int) error {
	switch below := d.ranks / d.block * d.block; {
	case d.ranks > most:
		return fault.BadUsage(flag, "%d is above the file's %d ranks", d.ranks, most).Advise("choose %d or less", most)
	case below == d.ranks:
		return nil
	case below == 0:
		return fault.BadUsage(flag, "%d cuts a block of %d ranks that were trained together", d.ranks, d.block).Advise("choose %d", d.block)
	default:
		return fault.BadUsage(flag, "%d cuts a block of %d ranks that were trained together", d.ranks, d.block).Advise("choose %d or %d", below, below+d.block)
	}
}

// alpha returns the alpha of a file cut to k of all ranks, such that alpha/k is the scale that these had in training.
func (d *dyLoRA) alpha(alpha float64, k, all int) float64 {
	switch d.rule {
	case scaleKohya:
		return alpha * math.Sqrt(float64(k)/float64(all))
	case scaleLycoris:
		return alpha * float64(d.block)
	}
	return alpha
}

// cutBlocks keeps the first ranks of both factors, bit by bit.
func (j *job) cutBlocks() error {
	up, down := j.stored[keyUp], j.stored[keyDown]
	all := up.Shape[1]
	k := min(j.cut.ranks, all)
	alpha, err := j.alpha(all)
	if err != nil {
		return err
	}
	if alpha == 0 {
		alpha = float64(all)
	}
	j.done.Did, j.done.Rank = Cut, k
	j.compare(up, down, j.cut.alpha(alpha, all, all)/float64(all), k)
	upShape := []int{up.Shape[0], k}
	for range down.Shape[2:] {
		upShape = append(upShape, 1)
	}
	size := up.DType.Size()
	cut := tensor.Tensor{DType: up.DType, Shape: upShape, Data: make([]byte, 0, up.Shape[0]*k*size)}
	for row := range slices.Chunk(up.Data, all*size) {
		cut.Data = append(cut.Data, row[:k*size]...)
	}
	rows := tensor.Tensor{DType: down.DType, Shape: append([]int{k}, down.Shape[1:]...), Data: down.Data[:len(down.Data)/all*k]}
	if err := j.put(keyUp, cut); err != nil {
		return err
	}
	if err := j.put(keyDown, rows); err != nil {
		return err
	}
	j.finish(j.cut.alpha(alpha, k, all))
	return j.keepDoRA()
}

// compare finds what the ranks behind the cut hold, and what the best approximation of the same rank would lose.
func (j *job) compare(up, down tensor.Tensor, scale float64, k int) {
	o, all, n := up.Shape[0], up.Shape[1], tensor.Elems(down.Shape[1:])
	whole := func() pair {
		return pair{up: columnsOf(values(up), o, all), down: rowsOf(values(down), all, n), o: o, n: n}
	}
	p := whole()
	a := p.decompose()
	a.times(scale)
	j.done.Norm, j.done.Best = a.norm(), a.errorOf(k)
	if k < all {
		tail := whole()
		tail.up, tail.down = tail.up[k:], tail.down[k:]
		left := tail.decompose()
		left.times(scale)
		j.done.Error = left.norm()
	}
}
