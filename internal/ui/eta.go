package ui

import (
	"fmt"
	"slices"
	"time"
)

// etaWindow is how many unit times the estimate looks back on, etaFrom how many it needs.
const (
	etaWindow = 50
	etaFrom   = 3
)

// pace remembers the times of the last units of this start.
type pace struct {
	times []time.Duration
	count int
}

// add notes one unit that took d.
func (p *pace) add(d time.Duration) {
	if len(p.times) < etaWindow {
		p.times = append(p.times, d)
	} else {
		p.times[p.count%etaWindow] = d
	}
	p.count++
}

// median returns the median time of a unit; ok is false until there are enough.
func (p *pace) median() (d time.Duration, ok bool) {
	if p.count < etaFrom {
		return 0, false
	}
	s := slices.Clone(p.times)
	slices.Sort(s)
	m := len(s) / 2
	if len(s)%2 == 0 {
		return (s[m-1] + s[m]) / 2, true
	}
	return s[m], true
}

// eta returns the words for the time left: median × units left + extra; "--" until enough units are done.
func (p *pace) eta(left int, extra time.Duration) string {
	d, ok := p.median()
	if !ok {
		return "--"
	}
	return FormatDuration(d*time.Duration(max(left, 0)) + extra)
}

// FormatDuration writes 12s, 57m02s, 3h05m, 2d04h.
func FormatDuration(d time.Duration) string {
	s := int64(d.Round(time.Second) / time.Second)
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	case s < 86400:
		return fmt.Sprintf("%dh%02dm", s/3600, s%3600/60)
	}
	return fmt.Sprintf("%dd%02dh", s/86400, s%86400/3600)
}
