package main

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"lycoris/internal/config"
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

// numberFlag is a flag that takes a number from min to max; *v stays nil where it isn't given.
type numberFlag struct {
	v        **float64
	min, max float64
	whole    bool
}

func (n *numberFlag) String() string {
	if n.v == nil || *n.v == nil {
		return ""
	}
	return strconv.FormatFloat(**n.v, 'g', -1, 64)
}
func (n *numberFlag) Type() string { return "number" }

// Set stores a number.
func (n *numberFlag) Set(s string) error {
	x, err := strconv.ParseFloat(s, 64)
	kind := "a number"
	if n.whole {
		kind = "a whole number"
	}
	if err != nil || n.whole && x != math.Trunc(x) || !(x >= n.min && x <= n.max) {
		return fmt.Errorf("is not %s (%g to %g)", kind, n.min, n.max)
	}
	*n.v = &x
	return nil
}

// seedFlag is a flag that takes a seed; *v stays nil where it isn't given.
type seedFlag struct{ v **uint64 }

func (f *seedFlag) String() string {
	if f.v == nil || *f.v == nil {
		return ""
	}
	return strconv.FormatUint(**f.v, 10)
}
func (f *seedFlag) Type() string { return "number" }

// Set stores a seed.
func (f *seedFlag) Set(s string) error {
	x, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return fmt.Errorf("is not a seed (0 to 18446744073709551615)")
	}
	*f.v = &x
	return nil
}

// sizeFlag is a flag that takes a picture size such as 512 or 512x768.
type sizeFlag struct{ v *config.Size }

func (f *sizeFlag) String() string {
	if f.v == nil || f.v.IsAuto() {
		return ""
	}
	return f.v.String()
}
func (f *sizeFlag) Type() string { return "size" }

// Set stores a size: width, then height.
func (f *sizeFlag) Set(s string) error {
	width, height, both := strings.Cut(s, "x")
	if !both {
		height = width
	}
	w, errW := strconv.Atoi(width)
	h, errH := strconv.Atoi(height)
	if errW != nil || errH != nil || w < 64 || h < 64 || w > 8192 || h > 8192 || w%8 != 0 || h%8 != 0 {
		return errors.New("is not a size such as 512 or 512x768 (multiples of 8 from 64 to 8192)")
	}
	*f.v = config.Size{W: w, H: h}
	return nil
}
