package optim

import (
	"math"

	"lycoris/internal/fault"
)

// Schedule gives the learning rate of each step. The zero value is constant.
type Schedule struct {
	Name   string  // one of ScheduleNames; empty is constant
	Steps  int     // updates in the whole run
	Warmup int     // updates during which the rate rises in a line from 0
	MinLR  float64 // rate at the end of a falling schedule
}

// ScheduleNames lists the schedules.
func ScheduleNames() []string { return []string{"constant", "linear", "cosine"} }

// NewSchedule returns the schedule of that name. warmup below 1 is a fraction of steps (rounded down), otherwise a number of updates.
func NewSchedule(name string, steps int, warmup, minLR float64) (Schedule, error) {
	s := Schedule{Name: name, Steps: steps, Warmup: int(warmup), MinLR: minLR}
	if warmup < 1 {
		s.Warmup = int(warmup * float64(steps))
	}
	switch name {
	case "constant", "linear", "cosine":
		return s, nil
	}
	return Schedule{}, fault.BadUsage("scheduler.name", "unknown schedule %q, want one of %q", name, ScheduleNames())
}

// LR returns the rate for update step (from 0) where the full rate is base. During warmup it is base·step/Warmup, so that with a warmup the first
// update has rate 0, as in transformers. Later it falls from base to MinLR, or to base where MinLR is above it, and stays there after the last step.
func (s Schedule) LR(base float64, step int) float64 {
	if step < s.Warmup {
		return base * (float64(step) / float64(max(1, s.Warmup)))
	}
	floor := min(s.MinLR, base)
	return floor + (base-floor)*s.fall(step)
}

// fall returns how much of the way down is left at a step after the warmup: 1 is all, 0 none.
func (s Schedule) fall(step int) float64 {
	length := float64(max(1, s.Steps-s.Warmup))
	switch s.Name {
	case "linear":
		return max(0, float64(s.Steps-step)/length)
	case "cosine":
		progress := min(1, float64(step-s.Warmup)/length)
		return max(0, 0.5*(1+math.Cos(math.Pi*progress)))
	}
	return 1
}
