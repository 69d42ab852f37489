package ui

import (
	"bytes"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/schollz/progressbar/v3"
)

// bar draws one line on a terminal. The library only paints: words, rate and ETA are ours, and a frame goes out in one write.
type bar struct {
	u     *UI
	bar   *progressbar.ProgressBar
	frame bytes.Buffer
	total int
	cells int // columns of the bar itself
	drawn time.Time
}

// barFrame is the shortest time between two frames.
const barFrame = 100 * time.Millisecond

// barScale keeps the library's count below its maximum: it ends a bar that is full, ours ends with its phase.
const barScale = 1000

// barFrills are the columns around words and cells: share, brackets, blanks, and one that stays free so that no terminal wraps.
const barFrills = 11

// newBar returns a bar for the units of this start.
func newBar(u *UI, total int) *bar {
	b := &bar{u: u, total: total}
	b.cells = 20
	if u.o.Width < 60 {
		b.cells = 4
	}
	b.bar = progressbar.NewOptions(total*barScale, progressbar.OptionSetWriter(&b.frame), progressbar.OptionSetWidth(b.cells), progressbar.OptionSetPredictTime(false),
		progressbar.OptionSetElapsedTime(false), progressbar.OptionThrottle(0), progressbar.OptionUseANSICodes(true), progressbar.OptionSetRenderBlankState(false),
		progressbar.OptionSetTheme(progressbar.Theme{Saucer: "#", SaucerHead: ">", SaucerPadding: ".", BarStart: "[", BarEnd: "]"}))
	return b
}

// draw shows n of total units and the words that fit.
func (b *bar) draw(n int, words []string) {
	now := time.Now()
	if now.Sub(b.drawn) < barFrame && n < b.total {
		return
	}
	b.drawn = now
	b.bar.Set(min(n*barScale, b.total*barScale-1))
	b.frame.Reset() // Set paints only when the share changes; Describe paints always
	b.bar.Describe(fit(words, b.u.o.Width-b.cells-barFrills))
	b.flush()
}

// fit joins as many words as room has columns for; the first is cut when even it is too long.
func fit(words []string, room int) string {
	for n := len(words); n > 1; n-- {
		if s := strings.Join(words[:n], "  "); utf8.RuneCountInString(s) <= room {
			return s
		}
	}
	r := []rune(words[0])
	return string(r[:min(len(r), max(room, 0))])
}

// flush sends the frame.
func (b *bar) flush() {
	if b.frame.Len() > 0 {
		b.u.err.Write(b.frame.Bytes())
		b.frame.Reset()
	}
}

// clear takes the bar off the screen.
func (b *bar) clear() {
	b.frame.Reset()
	b.bar.Clear()
	b.flush()
}

// redraw paints the bar as it was.
func (b *bar) redraw() {
	b.bar.RenderBlank()
	b.flush()
}
