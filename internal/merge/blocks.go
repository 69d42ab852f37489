package merge

import (
	"encoding/json"
	"fmt"
	"math"
	"path"
	"regexp"
	"strconv"
	"strings"

	"lycoris/internal/arch"
	"lycoris/internal/fault"
)

// Blocks are multipliers of a UNet's blocks and of the text encoders, as [ParseBlocks] reads them.
type Blocks struct {
	text   string
	vector []float64 // of a list; its length says which blocks
	named  []namedBlock
}

type namedBlock struct {
	glob  string
	value float64
}

// String returns what was parsed.
func (b *Blocks) String() string { return b.text }

// ParseBlocks reads multipliers of blocks: a list of numbers, "1,0.5,…" or "[1,0.5,…]", the count and a colon in front if one likes ("17:1,0.5,…"); or names,
// "IN04=0.5,M00=0,OUT*=0.8".
func ParseBlocks(text string) (*Blocks, error) {
	b := &Blocks{text: text}
	bad := func(format string, args ...any) error {
		return fault.BadUsage("--blocks", format, args...).Advise(`give a list (17:1,0.5,…) or names: IN04=0.5,M00=0,OUT*=0.8`)
	}
	list := strings.TrimSpace(text)
	if strings.HasPrefix(list, "[") {
		if err := json.Unmarshal([]byte(list), &b.vector); err != nil {
			return nil, bad("%q is not a JSON list of numbers", text)
		}
		return b, nil
	}
	count := -1
	if head, rest, ok := strings.Cut(list, ":"); ok {
		n, err := strconv.Atoi(head)
		if err != nil {
			return nil, bad("%q is not a number of blocks", head)
		}
		count, list = n, rest
	}
	for _, item := range strings.Split(list, ",") {
		name, number, isNamed := strings.Cut(item, "=")
		if !isNamed {
			number = item
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, bad("%q is not a number", strings.TrimSpace(number))
		}
		if !isNamed {
			b.vector = append(b.vector, v)
			continue
		}
		name = strings.ToUpper(strings.TrimSpace(name))
		if name == "MID" {
			name = "M00"
		}
		if _, err := path.Match(name, ""); err != nil {
			return nil, bad("%q is not a name of a block", name)
		}
		b.named = append(b.named, namedBlock{name, v})
	}
	switch {
	case len(b.named) > 0 && len(b.vector) > 0:
		return nil, bad("%q mixes names and a list", text)
	case count >= 0 && count != len(b.vector):
		return nil, bad("%q says %d numbers and has %d", text, count, len(b.vector))
	}
	return b, nil
}

// vectors are the blocks of a list by its length, per family: all, or those with attention. As in supermerger and sd-scripts.
func vectors(family string) [][]string {
	span := func(kind string, from, to int) []string {
		var names []string
		for i := from; i <= to; i++ {
			names = append(names, fmt.Sprintf("%s%02d", kind, i))
		}
		return names
	}
	join := func(lists ...[]string) []string {
		all := []string{"BASE"}
		for _, l := range lists {
			all = append(all, l...)
		}
		return all
	}
	mid := []string{"M00"}
	if family == "sdxl" {
		return [][]string{join(span("IN", 0, 8), mid, span("OUT", 0, 8)), join(span("IN", 4, 5), span("IN", 7, 8), mid, span("OUT", 0, 5))}
	}
	return [][]string{join(span("IN", 0, 11), mid, span("OUT", 0, 11)), join(span("IN", 1, 2), span("IN", 4, 5), span("IN", 7, 8), mid, span("OUT", 3, 11))}
}

// of returns the multipliers by block for a family; blocks that aren't named have 1. known are the blocks of the model, for names that match none.
func (b *Blocks) of(family string, known map[string]bool) (map[string]float64, error) {
	out := map[string]float64{}
	if b == nil {
		return out, nil
	}
	if len(b.vector) > 0 {
		var lengths []string
		for _, names := range vectors(family) {
			if len(names) == len(b.vector) {
				for i, name := range names {
					out[name] = b.vector[i]
				}
				return out, nil
			}
			lengths = append(lengths, fmt.Sprintf("%d (%s … %s)", len(names), names[1], names[len(names)-1]))
		}
		return nil, fault.BadUsage("--blocks", "a list of %d numbers fits no layout of this family", len(b.vector)).Advise("lists have %s, BASE first", strings.Join(lengths, " or "))
	}
	for _, n := range b.named {
		found := false
		for block := range known {
			if ok, _ := path.Match(n.glob, block); ok {
				out[block], found = n.value, true
			}
		}
		if !found {
			return nil, fault.BadUsage("--blocks", "%q is no block of the model", n.glob).Advise("blocks are BASE (text encoders), IN00 and on, M00, OUT00 and on, REST")
		}
	}
	return out, nil
}

var ldmBlock = regexp.MustCompile(`^(input_blocks|output_blocks)\.(\d+)\.`)

// blockOf returns the block of a module: BASE of text encoders, IN, M00 and OUT by LDM's numbers, REST of embeddings and output.
func blockOf(c arch.Component, m arch.Module) string {
	if c != arch.UNet {
		return "BASE"
	}
	if strings.HasPrefix(m.LDM, "middle_block.") {
		return "M00"
	}
	parts := ldmBlock.FindStringSubmatch(m.LDM)
	if parts == nil {
		return "REST"
	}
	n, _ := strconv.Atoi(parts[2])
	if parts[1] == "input_blocks" {
		return fmt.Sprintf("IN%02d", n)
	}
	return fmt.Sprintf("OUT%02d", n)
}
