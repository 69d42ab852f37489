package ui

import (
	"io"
	"sync/atomic"
	"time"
)

// lossyWriter passes writes on from a goroutine of its own and drops them when the other end doesn't take them, so that a pipe that
// nobody reads never stops the caller.
type lossyWriter struct {
	queue   chan message
	dropped atomic.Int64
}

// message is text to write, or a request to be told that everything before it is written.
type message struct {
	text []byte
	done chan struct{}
}

// queueLength is how many writes may wait.
const queueLength = 256

func newLossyWriter(w io.Writer) *lossyWriter {
	l := &lossyWriter{queue: make(chan message, queueLength)}
	go func() {
		for m := range l.queue {
			if m.done != nil {
				close(m.done)
				continue
			}
			w.Write(m.text) // a broken standard error has nobody to be told to
		}
	}()
	return l
}

// Write queues a copy of p; it never blocks and never fails.
func (l *lossyWriter) Write(p []byte) (int, error) {
	select {
	case l.queue <- message{text: append([]byte(nil), p...)}:
	default:
		l.dropped.Add(1)
	}
	return len(p), nil
}

// flush waits until everything is written, at most for the given time.
func (l *lossyWriter) flush(patience time.Duration) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	done := make(chan struct{})
	select {
	case l.queue <- message{done: done}:
	case <-timer.C:
		return
	}
	select {
	case <-done:
	case <-timer.C:
	}
}

// stop ends the goroutine once the queue is written; nothing may be written afterwards.
func (l *lossyWriter) stop() { close(l.queue) }
