package ui

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// trainSteps runs n steps of a second each, of a run that resumes at first.
func trainSteps(u *UI, first, total, n int) {
	p := u.Progress()
	p.Phase(Train, total-first)
	for i := first + 1; i <= first+n; i++ {
		time.Sleep(2310 * time.Millisecond)
		p.Step(StepInfo{Step: i, Steps: total, Loss: 0.0912, Avg: 0.0987, LR: 1e-4, Took: 2310 * time.Millisecond, MemUsed: 3328599654, MemTotal: 24 << 30, Saved: first})
	}
	p.End()
}

func TestPlainCadence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got, _ := spoken(Options{}, func(u *UI) { trainSteps(u, 100, 140, 40) })
		want := []string{
			"train  40",
			"step 101/140  72.1%  loss 0.0912 (avg 0.0987)  lr 1.0e-04  2.31 s/it  eta --  mem 3.1/24.0 GiB  saved 100",
			"step 102/140  72.9%  loss 0.0912 (avg 0.0987)  lr 1.0e-04  2.31 s/it  eta --  mem 3.1/24.0 GiB  saved 100",
			"step 105/140  75.0%  loss 0.0912 (avg 0.0987)  lr 1.0e-04  2.31 s/it  eta 1m21s  mem 3.1/24.0 GiB  saved 100",
			"step 110/140  78.6%  loss 0.0912 (avg 0.0987)  lr 1.0e-04  2.31 s/it  eta 1m09s  mem 3.1/24.0 GiB  saved 100",
			"step 123/140  87.9%  loss 0.0912 (avg 0.0987)  lr 1.0e-04  2.31 s/it  eta 39s  mem 3.1/24.0 GiB  saved 100",
			"step 136/140  97.1%  loss 0.0912 (avg 0.0987)  lr 1.0e-04  2.31 s/it  eta 9s  mem 3.1/24.0 GiB  saved 100",
			"step 140/140  100.0%  loss 0.0912 (avg 0.0987)  lr 1.0e-04  2.31 s/it  eta 0s  mem 3.1/24.0 GiB  saved 100",
		}
		if got != strings.Join(want, "\n")+"\n" {
			t.Errorf("got\n%swant\n%s", got, strings.Join(want, "\n"))
		}
	})
}

func TestOtherPhases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got, _ := spoken(Options{}, func(u *UI) {
			p := u.Progress()
			p.Phase(ReadModel, 0)
			p.Phase(CacheLatents, 8)
			for range 8 {
				time.Sleep(10 * time.Second)
				p.Add(1)
			}
			p.Add(0) // of a caller that counts bytes: the end is told once
			p.Phase(Save, 0)
			p.End()
		})
		want := "read model\ncache latents  8\ncache latents 3/8  37.5%  eta 50s\ncache latents 6/8  75.0%  eta 20s\ncache latents 8/8  100.0%  took 1m20s\nsave\n"
		if got != want {
			t.Errorf("got\n%swant\n%s", got, want)
		}
		for _, o := range []Options{{Quiet: true}, {NoProgress: true}} {
			if got, _ := spoken(o, func(u *UI) { trainSteps(u, 0, 5, 5) }); got != "" {
				t.Errorf("%+v: got %q", o, got)
			}
		}
	})
}

func TestStatusAndSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got, _ := spoken(Options{Quiet: true}, func(u *UI) {
			u.Status()
			p := u.Progress()
			p.Phase(CacheText, 100)
			u.Status()
			for range 4 {
				time.Sleep(time.Second)
				p.Add(1)
			}
			time.Sleep(time.Hour) // stopped by TSTP
			u.Slept()
			p.Add(1)
			u.Status()
		})
		if want := "starting\ncache text 0/100\ncache text 5/100  5.0%  eta 1m35s\n"; got != want {
			t.Errorf("got\n%swant\n%s", got, want)
		}
	})
}

func TestBar(t *testing.T) {
	for _, width := range []int{20, 100, 300} {
		synctest.Test(t, func(t *testing.T) {
			got, _ := spoken(Options{Bar: true, Width: width}, func(u *UI) {
				p := u.Progress()
				p.Phase(Train, 10)
				for i := range 5 {
					time.Sleep(time.Second)
					p.Step(StepInfo{Step: i + 1, Steps: 10, Loss: 0.5, Took: time.Second})
				}
				u.Warn("look", "")
				time.Sleep(time.Second)
				p.Step(StepInfo{Step: 6, Steps: 10, Loss: 0.5, Took: time.Second})
				p.End()
			})
			screen := render(got)
			if len(screen) != 2 || screen[0] != "warn: look" || !strings.HasPrefix(screen[1], "step 6/10") {
				t.Errorf("width %d: the screen ends as %q", width, screen)
			}
			for _, frame := range strings.FieldsFunc(got, func(r rune) bool { return r == '\r' || r == '\n' }) {
				frame = strings.ReplaceAll(frame, "\x1b[2K", "")
				frame = strings.ReplaceAll(frame, "\x1b[0K", "")
				if strings.Contains(frame, "[") && len(frame) >= width {
					t.Errorf("width %d: a frame of %d columns: %q", width, len(frame), frame)
				}
			}
			if width == 100 && !strings.Contains(got, "step 5/10  50.0%  loss 0.5000 (avg 0.0000)  lr 0.0e+00") {
				t.Errorf("the bar's words differ from the plain ones: %q", got)
			}
		})
	}
}

// render returns the lines that a terminal shows after the text: \r goes to the start of a line, ESC[2K empties it.
func render(s string) []string {
	var lines []string
	line := ""
	for len(s) > 0 {
		switch {
		case strings.HasPrefix(s, "\x1b[2K"):
			line, s = "", s[4:]
		case s[0] == '\n':
			lines, line, s = append(lines, line), "", s[1:]
		case s[0] == '\r':
			line, s = "", s[1:]
		default:
			line, s = line+s[:1], s[1:]
		}
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}

func TestPace(t *testing.T) {
	var p pace
	for i := range 100 {
		p.add(time.Duration(i) * time.Second) // the last 50: 50..99 s
	}
	if d, ok := p.median(); !ok || d != 74500*time.Millisecond {
		t.Errorf("got %v", d)
	}
	if got := p.eta(2, time.Minute); got != "3m29s" {
		t.Errorf("got %s", got)
	}
	for d, want := range map[time.Duration]string{0: "0s", 59600 * time.Millisecond: "1m00s", 57*time.Minute + 2*time.Second: "57m02s", 3*time.Hour + 5*time.Minute: "3h05m", 52 * time.Hour: "2d04h"} {
		if got := FormatDuration(d); got != want {
			t.Errorf("%v: got %s, want %s", d, got, want)
		}
	}
}
