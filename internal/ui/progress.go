package ui

import (
	"fmt"
	"strings"
	"time"
)

// The phases of a run.
const (
	ReadModel     = "read model"
	ScanPictures  = "scan pictures"
	CacheLatents  = "cache latents"
	CacheText     = "cache text"
	StartAdapters = "start adapters" // first values from the frozen weights
	Train         = "train"
	Sample        = "sample"
	Save          = "save"
	Resize        = "resize"
)

// Progress shows where a run is. Its methods never block and may be called from several goroutines.
type Progress interface {
	// Phase begins a phase of total units (pictures, tensors, steps); 0 when unknown. It ends the phase before.
	Phase(name string, total int)
	// Add says that n more units of the phase are done.
	Add(n int)
	// Step says that a training step is done.
	Step(s StepInfo)
	// End ends the last phase.
	End()
}

// StepInfo is what is told about a training step.
type StepInfo struct {
	Step, Steps       int // the step that is done, and how many the run has
	Loss, Avg, LR     float64
	Took              time.Duration // of this step, by the monotonic clock
	Extra             time.Duration // known saves, samples and validations that are still to come
	MemUsed, MemTotal int64         // bytes; 0 when unknown
	Saved             int           // step of the last saved state, 0 when there is none
}

// progress is the one Progress of a UI.
type progress struct {
	u     *UI
	phase string
	total int
	done  int
	pace  pace
	began time.Time
	last  time.Time // when the last unit was done
	shown time.Time // when the last plain line was written
	steps int       // steps of this start
	slept bool      // the process was stopped since the last unit: its time isn't counted
	words []string  // fields of the last status line
	bar   *bar
}

// Progress returns the UI's display.
func (u *UI) Progress() Progress {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.prog == nil {
		u.prog = &progress{u: u}
	}
	return u.prog
}

// Slept says that the process was stopped and goes on (SIGCONT): the unit in flight doesn't count for rates.
func (u *UI) Slept() {
	u.mu.Lock()
	if u.prog != nil {
		u.prog.slept = true
	}
	u.mu.Unlock()
}

// Status prints a status line at once, whatever the kind of progress (SIGUSR1).
func (u *UI) Status() {
	u.mu.Lock()
	defer u.mu.Unlock()
	line := "starting"
	if u.prog != nil && u.prog.phase != "" {
		line = u.prog.line()
	}
	u.clearBar()
	u.err.Write([]byte(line + "\n"))
	u.redrawBar()
}

func (p *progress) Phase(name string, total int) {
	p.u.mu.Lock()
	defer p.u.mu.Unlock()
	p.end()
	now := time.Now()
	*p = progress{u: p.u, phase: name, total: total, began: now, last: now, shown: now}
	if p.hidden() {
		return
	}
	if p.u.o.Bar && total > 0 {
		p.bar = newBar(p.u, total)
		p.bar.draw(0, []string{name})
		return
	}
	line := name
	if total > 0 {
		line += fmt.Sprintf("  %d", total)
	}
	p.u.err.Write([]byte(line + "\n"))
}

func (p *progress) Add(n int) {
	p.u.mu.Lock()
	defer p.u.mu.Unlock()
	now := time.Now()
	if n > 0 && !p.slept {
		for range min(n, etaWindow) {
			p.pace.add(now.Sub(p.last) / time.Duration(n))
		}
	}
	p.slept, p.last, p.done = false, now, p.done+n
	p.words = p.unitWords(now)
	p.show(now, n > 0 && p.done == p.total)
}

// unitWords are the fields for phases that count units: "cache latents 12/43", share, ETA.
func (p *progress) unitWords(now time.Time) []string {
	if p.total <= 0 {
		return []string{fmt.Sprintf("%s %d", p.phase, p.done), FormatDuration(now.Sub(p.began))}
	}
	head := []string{fmt.Sprintf("%s %d/%d", p.phase, p.done, p.total), percent(p.done, p.total)}
	if p.done >= p.total {
		return append(head, "took "+FormatDuration(now.Sub(p.began)))
	}
	return append(head, "eta "+p.pace.eta(p.total-p.done, 0))
}

func (p *progress) Step(s StepInfo) {
	p.u.mu.Lock()
	defer p.u.mu.Unlock()
	now := time.Now()
	if !p.slept {
		p.pace.add(s.Took)
	}
	p.slept, p.last = false, now
	p.done++
	p.steps++
	p.words = stepWords(s, &p.pace)
	early := p.steps == 1 || p.steps == 2 || p.steps == 5 || p.steps == 10
	p.show(now, early || s.Step == s.Steps)
}

// stepWords are the fields of a training line.
func stepWords(s StepInfo, p *pace) []string {
	took := s.Took
	if m, ok := p.median(); ok {
		took = m
	}
	w := []string{fmt.Sprintf("step %d/%d", s.Step, s.Steps), percent(s.Step, s.Steps), fmt.Sprintf("loss %.4f (avg %.4f)", s.Loss, s.Avg),
		fmt.Sprintf("lr %.1e", s.LR), fmt.Sprintf("%.2f s/it", took.Seconds()), "eta " + p.eta(s.Steps-s.Step, s.Extra)}
	if s.MemUsed > 0 {
		w = append(w, fmt.Sprintf("mem %.1f/%.1f GiB", float64(s.MemUsed)/(1<<30), float64(s.MemTotal)/(1<<30)))
	}
	if s.Saved > 0 {
		w = append(w, fmt.Sprintf("saved %d", s.Saved))
	}
	return w
}

func percent(n, total int) string {
	return fmt.Sprintf("%.1f%%", 100*float64(n)/float64(max(total, 1)))
}

// show draws the bar, or writes a plain line when it is due.
func (p *progress) show(now time.Time, due bool) {
	switch {
	case p.hidden():
	case p.bar != nil:
		p.bar.draw(p.done, p.words)
	case due || p.steps > 10 && now.Sub(p.shown) >= p.u.o.ProgressEvery || p.steps == 0 && now.Sub(p.shown) >= p.u.o.ProgressEvery:
		p.shown = now
		p.u.err.Write([]byte(p.line() + "\n"))
	}
}

// line is the status line.
func (p *progress) line() string {
	if len(p.words) == 0 {
		if p.total > 0 {
			return fmt.Sprintf("%s 0/%d", p.phase, p.total)
		}
		return p.phase
	}
	return strings.Join(p.words, "  ")
}

// hidden reports whether progress isn't shown: quiet, or asked for none.
func (p *progress) hidden() bool { return p.u.o.NoProgress || p.u.threshold() > Info }

func (p *progress) End() {
	p.u.mu.Lock()
	defer p.u.mu.Unlock()
	p.end()
}

// end replaces the bar by its last line, so that the words stay.
func (p *progress) end() {
	if p.bar != nil {
		p.bar.clear()
		p.bar = nil
		p.u.err.Write([]byte(p.line() + "\n"))
	}
	p.phase, p.words = "", nil
}

// clearBar takes the bar off the screen before something else is written.
func (u *UI) clearBar() {
	if u.prog != nil && u.prog.bar != nil {
		u.prog.bar.clear()
	}
}

// redrawBar puts the bar back.
func (u *UI) redrawBar() {
	if u.prog != nil && u.prog.bar != nil {
		u.prog.bar.redraw()
	}
}
