package coppice

import (
	"io"
	"sync"
)

// lastWords keeps the newest line in which a program said why it dies. Safe for
// concurrent use.
type lastWords struct {
	mu   sync.Mutex
	line string
}

// note remembers line if it is how a Go program says why it dies. The dump that
// follows it may be long.
func (w *lastWords) note(line []byte) {
	if !isLastWords(string(line)) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.line = string(line)
}

// String returns the line, or "".
func (w *lastWords) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.line
}

// tagged writes whole lines of several processes to one stream, each behind its
// writer's tag. Safe for concurrent use.
type tagged struct {
	mu  sync.Mutex
	dst io.Writer
	buf []byte
}

// line writes "tag| text\n" in one Write. A stream that cannot be written to
// costs the line: output is not worth a worker's life.
func (t *tagged) line(tag string, text []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(append(t.buf[:0], tag...), "| "...)
	t.buf = append(append(t.buf, text...), '\n')
	_, _ = t.dst.Write(t.buf)
}
