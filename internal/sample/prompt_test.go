package sample

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lycoris/internal/fault"
)

var defaults = Prompt{W: 512, H: 512, Seed: 42, Steps: 20, CFG: 7, Sampler: "euler"}

func TestParsePrompt(t *testing.T) {
	with := func(change func(*Prompt)) Prompt {
		p := defaults
		change(&p)
		return p
	}
	for line, want := range map[string]Prompt{
		"a cat": with(func(p *Prompt) { p.Text = "a cat" }),
		"":      defaults,
		" a cat, sitting --n dog, blurry --w 513 --h 30 --d 7 --s 2000 --l 1.5 --ss DDIM ": {Text: "a cat, sitting", Negative: "dog, blurry", W: 512, H: 64, Seed: 7,
			Steps: 1000, CFG: 1.5, Sampler: "ddim"},
		"a --W 640 --S 0":              with(func(p *Prompt) { p.Text, p.W, p.Steps = "a", 640, 1 }),
		"a well--known -- cat - b":     with(func(p *Prompt) { p.Text = "a well--known -- cat - b" }),
		"--n only negative":            with(func(p *Prompt) { p.Negative = "only negative" }),
		"a --n --w 64":                 with(func(p *Prompt) { p.Text, p.W = "a", 64 }),
		"a\t--d\t18446744073709551615": with(func(p *Prompt) { p.Text, p.Seed = "a", 1<<64-1 }),
		"a --s 5 --s 6":                with(func(p *Prompt) { p.Text, p.Steps = "a", 6 }),
		"猫 --n 犬 --l 0":                with(func(p *Prompt) { p.Text, p.Negative, p.CFG = "猫", "犬", 0 }),
	} {
		got, err := ParsePrompt(line, defaults)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v, want %+v", line, got, err, want)
		}
	}
}

func TestParsePromptErrors(t *testing.T) {
	for line, want := range map[string]string{
		"a --w abc":           `--w: "abc" is not a number of pixels`,
		"a --w 512.5":         `--w: "512.5" is not`,
		"a --w 99999999":      `--w: "99999999" is not`,
		"a --h":               `--h: "" is not`,
		"a --d -1":            `--d: "-1" is not a seed`,
		"a --s x":             `--s: "x" is not a number of steps`,
		"a --l NaN":           `--l: "NaN" is not a guidance scale`,
		"a --l 101":           `--l: "101" is not`,
		"a --ss dpmsolver":    `--ss: "dpmsolver" is not a sampler of this version: ddim, euler`,
		"a --cn picture.png":  "--cn is not an option",
		"a --ss ddim --foo 1": "--foo is not an option",
	} {
		_, err := ParsePrompt(line, defaults)
		if err == nil || !strings.Contains(err.Error(), want) || fault.KindOf(err) != fault.Usage {
			t.Errorf("%q: %v, want %s", line, err, want)
		}
	}
}

func TestReadPrompts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p.txt")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	write("\ufeff# two cats\r\na cat --d 1\r\n\r\n  # none\n another cat")
	got, err := ReadPrompts(path, defaults)
	if err != nil || len(got) != 2 || got[0].Text != "a cat" || got[0].Seed != 1 || got[1].Text != "another cat" || got[1].Seed != 42 {
		t.Errorf("%+v, %v", got, err)
	}
	for text, want := range map[string]string{"# none\n": path + ": holds no prompts", "a\n\nb --w x": path + `:3: --w: "x"`, "a\xff": "is not UTF-8"} {
		write(text)
		if _, err := ReadPrompts(path, defaults); err == nil || !strings.Contains(err.Error(), want) || fault.KindOf(err) != fault.Input {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	for _, wrong := range []string{path + "x", filepath.Dir(path)} {
		if _, err := ReadPrompts(wrong, defaults); fault.KindOf(err) != fault.Input {
			t.Errorf("%s: %v, want an input error", wrong, err)
		}
	}
	write("a --foo 1")
	var e *fault.Error
	if _, err := ReadPrompts(path, defaults); !errors.As(err, &e) || e.Advice == "" {
		t.Errorf("%v has no advice", err)
	}
}

func TestCheck(t *testing.T) {
	p := defaults
	p.W, p.H = 64, 8192
	if err := p.Check(8); err != nil {
		t.Error(err)
	}
	for _, change := range []func(*Prompt){
		func(p *Prompt) { p.W = 100 }, func(p *Prompt) { p.H = 56 }, func(p *Prompt) { p.W = 8200 }, func(p *Prompt) { p.Steps = 0 },
		func(p *Prompt) { p.Steps = 1001 }, func(p *Prompt) { p.Sampler = "heun" },
	} {
		p := defaults
		change(&p)
		if err := p.Check(8); fault.KindOf(err) != fault.Usage {
			t.Errorf("%+v: %v, want a usage error", p, err)
		}
	}
}
