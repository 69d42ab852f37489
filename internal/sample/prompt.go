package sample

import (
	"fmt"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"lycoris/internal/diffusion"
	"lycoris/internal/fault"
)

// Prompt is one picture to make.
type Prompt struct {
	Text     string
	Negative string // what guidance leads away from
	W, H     int    // pixels
	Seed     uint64
	Steps    int
	CFG      float64 // guidance scale; 1: none
	Sampler  string  // one of diffusion.SamplerNames
}

// Limits of a picture's sides: below, nothing is left at the UNet's deepest level.
const minSide, maxSide = 64, 8192

// maxPromptFile bounds a file of prompts, as the configuration's are.
const maxPromptFile = 4 << 20

// option is where an option of a prompt line begins: --w 512.
var option = regexp.MustCompile(`(?:^|\s)--([A-Za-z]\w*)`)

// ParsePrompt reads a prompt line of sd-scripts: the text, then --n NEGATIVE, --w and --h pixels, --d SEED, --s STEPS, --l GUIDANCE, --ss SAMPLER in any
// order and case. What a line doesn't say is as in defaults. As there, sizes go down to a multiple of 8 and up to 64, and steps into 1..1000. An
// option that isn't known is an error of kind fault.Usage.
func ParsePrompt(line string, defaults Prompt) (Prompt, error) {
	p := defaults
	found := option.FindAllStringSubmatchIndex(line, -1)
	end := len(line)
	if len(found) > 0 {
		end = found[0][0]
	}
	p.Text = strings.TrimSpace(line[:end])
	for i, at := range found {
		end := len(line)
		if i+1 < len(found) {
			end = found[i+1][0]
		}
		if err := p.set(strings.ToLower(line[at[2]:at[3]]), strings.TrimSpace(line[at[1]:end])); err != nil {
			return defaults, err
		}
	}
	return p, nil
}

func (p *Prompt) set(name, value string) error {
	bad := func(want string) error { return fault.BadUsage("", "--%s: %q is not %s", name, value, want) }
	switch name {
	case "n":
		p.Negative = value
	case "w", "h":
		v, err := strconv.Atoi(value)
		if err != nil || v < 1 || v > maxSide {
			return bad(fmt.Sprintf("a number of pixels (%d to %d)", minSide, maxSide))
		}
		side := &p.W
		if name == "h" {
			side = &p.H
		}
		*side = max(v/8*8, minSide)
	case "d":
		v, err := strconv.ParseUint(value, 10, 64)
		if err != nil {
			return bad("a seed (0 or more)")
		}
		p.Seed = v
	case "s":
		v, err := strconv.Atoi(value)
		if err != nil {
			return bad("a number of steps (1 to 1000)")
		}
		p.Steps = min(max(v, 1), diffusion.TrainTimesteps)
	case "l":
		v, err := strconv.ParseFloat(value, 64)
		if err != nil || !(v >= 0 && v <= 100) {
			return bad("a guidance scale (0 to 100)")
		}
		p.CFG = v
	case "ss":
		v := strings.ToLower(value)
		if !slices.Contains(diffusion.SamplerNames(), v) {
			return bad("a sampler of this version: " + strings.Join(diffusion.SamplerNames(), ", "))
		}
		p.Sampler = v
	default:
		return fault.BadUsage("", "--%s is not an option of a prompt line", name).Advise("there are --n --w --h --d --s --l --ss")
	}
	return nil
}

// ReadPrompts reads a file of prompt lines; empty lines and lines that begin with # are left out. Errors name the line.
func ReadPrompts(path string, defaults Prompt) ([]Prompt, error) {
	stat, err := os.Stat(path)
	switch {
	case os.IsNotExist(err):
		return nil, fault.BadInput(path, "there is no such file of prompts")
	case err != nil:
		return nil, fault.BadInput(path, "can't be read: %w", err)
	case !stat.Mode().IsRegular():
		return nil, fault.BadInput(path, "is not a file of prompts")
	case stat.Size() > maxPromptFile:
		return nil, fault.BadInput(path, "is %d bytes long, a file of prompts may have %d", stat.Size(), maxPromptFile)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.BadInput(path, "can't be read: %w", err)
	}
	text := strings.TrimPrefix(string(data), "\ufeff")
	if !utf8.ValidString(text) {
		return nil, fault.BadInput(path, "is not UTF-8 text")
	}
	var all []Prompt
	for i, line := range strings.Split(text, "\n") {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		p, err := ParsePrompt(line, defaults)
		if err != nil {
			return nil, inLine(path, i+1, err)
		}
		all = append(all, p)
	}
	if len(all) == 0 {
		return nil, fault.BadInput(path, "holds no prompts").Advise("write one on each line; lines that begin with # are left out")
	}
	return all, nil
}

// inLine makes the error of a prompt one about a line of a file.
func inLine(path string, line int, err error) error {
	at := fault.BadInput(fmt.Sprintf("%s:%d", path, line), "%w", err)
	if e, ok := err.(*fault.Error); ok {
		at.Advice = e.Advice
	}
	return at
}

// Check returns an error of kind fault.Usage unless a picture can be made of p. side is what both sides must be a multiple of, the VAE's factor.
func (p Prompt) Check(side int) error {
	switch {
	case p.W%side != 0 || p.H%side != 0:
		return fault.BadUsage("", "a picture of %dx%d pixels: both sides must be multiples of %d", p.W, p.H, side)
	case min(p.W, p.H) < minSide || max(p.W, p.H) > maxSide:
		return fault.BadUsage("", "a picture of %dx%d pixels: sides must be %d to %d", p.W, p.H, minSide, maxSide)
	case p.Steps < 1 || p.Steps > diffusion.TrainTimesteps:
		return fault.BadUsage("", "%d sampling steps: there can be 1 to %d", p.Steps, diffusion.TrainTimesteps)
	case math.IsNaN(p.CFG) || math.IsInf(p.CFG, 0):
		return fault.BadUsage("", "the guidance scale is not a number")
	case !slices.Contains(diffusion.SamplerNames(), p.Sampler):
		return fault.BadUsage("", "%q is not a sampler of this version", p.Sampler).Advise("there are: %s", strings.Join(diffusion.SamplerNames(), ", "))
	}
	return nil
}
