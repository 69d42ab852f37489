package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// choiceFlag is a flag that takes one of a few words.
type choiceFlag struct {
	v    *string
	from []string
}

// choice adds a choiceFlag.
func choice(f *pflag.FlagSet, v *string, name, def, usage string, from ...string) {
	*v = def
	f.Var(&choiceFlag{v, from}, name, usage+": "+strings.Join(from, ", "))
}

func (c *choiceFlag) String() string { return *c.v }
func (c *choiceFlag) Type() string   { return "word" }

// Set stores one of the words.
func (c *choiceFlag) Set(s string) error {
	if !slices.Contains(c.from, s) {
		return fmt.Errorf("is not one of %s", strings.Join(c.from, ", "))
	}
	*c.v = s
	return nil
}

// durationFlag is a flag that takes a time such as 30s or 6h, from min on.
type durationFlag struct {
	v   *time.Duration
	min time.Duration
}

func (d *durationFlag) String() string {
	if *d.v == 0 {
		return ""
	}
	return d.v.String()
}
func (d *durationFlag) Type() string { return "time" }

// Set stores a time.
func (d *durationFlag) Set(s string) error {
	t, err := time.ParseDuration(s)
	if err != nil || t < d.min {
		return fmt.Errorf("is not a time such as 30s, 10m or 6h (%s or more)", d.min)
	}
	*d.v = t
	return nil
}
